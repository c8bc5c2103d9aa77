package serve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

const (
	headerTime = 10 * time.Second // for the handshake, and for the headers
	bodyTime   = 30 * time.Second // for the body of a request
	idleTime   = 2 * time.Minute  // between requests
	stallTime  = time.Minute      // for a peer to take anything of what is written
	lastTime   = 5 * time.Second  // for requests when the server stops
)

// Config configures a Server.
type Config struct {
	Addr     string       // host:port; port 0: any free one
	Listener net.Listener // open already, in place of Addr: a unix socket, for example
	Handler  http.Handler

	CertFile string // PEM chain; with KeyFile: HTTPS, read again when it changes
	KeyFile  string
	// GetCertificate in place of files: HTTPS.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	ClientCAs      *x509.CertPool // clients must show a certificate of one of them
	Plain          bool           // allows HTTP beyond loopback, for a proxy that adds TLS
	// HTTP2 offers it over TLS besides HTTP/1.1. Its requests cannot be hijacked: clients that
	// want a WebSocket have to offer HTTP/1.1, as browsers and Go's do.
	HTTP2 bool

	MaxConns          int           // at once; more wait to be accepted; 0 means 30,000
	MaxConnsPerSource int           // at once from an IPv4 address or an IPv6 /64; more are closed; 0: no bound
	WriteTimeout      time.Duration // for a whole answer; 0: none, for streams
	Log               *slog.Logger  // nil: slog.Default()
}

// Server serves a handler over HTTP or HTTPS.
type Server struct {
	listener net.Listener
	sources  *sources
	http     *http.Server
	tls      bool
	running  sync.WaitGroup // handlers, hijacked ones too
}

// CheckListen refuses plain HTTP on anything but loopback, unless anywhere is right: with TLS, or as asked.
func CheckListen(addr string, anywhere bool) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("listen on %q: %w", addr, err)
	}
	if anywhere || host == "localhost" {
		return nil
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("listen on %q: plain HTTP is served on loopback only; give a certificate and its key, or listen on 127.0.0.1", addr)
}

// Listen opens the port; it serves once Run runs.
func Listen(c Config) (*Server, error) {
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, fmt.Errorf("listen on %q: a certificate needs its key, and a key its certificate", c.Addr)
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.MaxConns <= 0 {
		c.MaxConns = 30000
	}
	if c.CertFile != "" {
		get, err := Files(c.CertFile, c.KeyFile, c.Log)
		if err != nil {
			return nil, err
		}
		c.GetCertificate = get
	}
	s := &Server{tls: c.GetCertificate != nil}
	if c.ClientCAs != nil && !s.tls {
		return nil, fmt.Errorf("listen on %q: clients show certificates over TLS only; give a certificate and its key", c.Addr)
	}
	l := c.Listener
	if l == nil {
		if err := CheckListen(c.Addr, s.tls || c.Plain); err != nil {
			return nil, err
		}
		var err error
		if l, err = net.Listen("tcp", c.Addr); err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	s.http = &http.Server{
		Handler:           s.handler(c.Handler),
		ReadHeaderTimeout: headerTime,
		WriteTimeout:      c.WriteTimeout,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug), // what strangers do wrong
		Protocols:         new(http.Protocols),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 128, SendPingTimeout: stallTime, PingTimeout: stallTime / 2},
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetHTTP2(c.HTTP2)
	if s.tls {
		s.http.TLSConfig = &tls.Config{GetCertificate: c.GetCertificate, MinVersion: tls.VersionTLS12}
		if c.ClientCAs != nil {
			s.http.TLSConfig.ClientCAs, s.http.TLSConfig.ClientAuth = c.ClientCAs, tls.RequireAndVerifyClientCert
		}
	}
	s.sources = &sources{Listener: l, max: c.MaxConnsPerSource, n: map[netip.Prefix]int{}}
	s.listener = netutil.LimitListener(s.sources, c.MaxConns)
	return s, nil
}

// Addr returns the address that is listened on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Refused counts the connections that were closed because their source had too many.
func (s *Server) Refused() uint64 { return s.sources.refused.Load() }

// Close gives the port back if Run is not called.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves until ctx ends; then waiting requests are answered at once and the others,
// hijacked ones too, have five seconds to finish.
func (s *Server) Run(ctx context.Context) error {
	s.http.BaseContext = func(net.Listener) context.Context { return ctx }
	done := make(chan error, 1)
	go func() {
		if s.tls {
			done <- s.http.ServeTLS(s.listener, "", "")
		} else {
			done <- s.http.Serve(s.listener)
		}
	}()
	select {
	case err := <-done:
		return fmt.Errorf("serve %s: %w", s.Addr(), err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTime)
	defer cancel()
	err := s.http.Shutdown(last)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-done
	ended := make(chan struct{})
	go func() { s.running.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-last.Done():
		err = errors.Join(err, fmt.Errorf("serve %s: a handler does not end", s.Addr()))
	}
	return err
}

// handler counts the requests that run, and bounds the time of their bodies.
func (s *Server) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.running.Add(1)
		defer s.running.Done()
		if r.ContentLength != 0 && r.Body != nil && r.Body != http.NoBody {
			c := http.NewResponseController(w)
			if c.SetReadDeadline(time.Now().Add(bodyTime)) == nil {
				r.Body = &body{ReadCloser: r.Body, control: c}
			}
		}
		next.ServeHTTP(w, r)
	})
}
