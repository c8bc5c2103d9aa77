package publish

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// ServerConfig configures a Server.
type ServerConfig struct {
	Addr     string // host:port; port 0: any free one
	CertFile string // PEM chain; with KeyFile: HTTPS, read again when it changes
	KeyFile  string
	Handler  http.Handler
	Plain    bool         // allows HTTP beyond loopback, for a proxy that adds TLS
	MaxConns int          // at once; more wait to be accepted; 0 means 30,000
	Log      *slog.Logger // nil: slog.Default()
}

// Server serves a handler over HTTP or HTTPS with every bound that is needed towards
// strangers: on headers, idle and slow connections and their number.
type Server struct {
	listener net.Listener
	http     *http.Server
	tls      bool
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
func Listen(c ServerConfig) (*Server, error) {
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, fmt.Errorf("listen on %q: a certificate needs its key, and a key its certificate", c.Addr)
	}
	s := &Server{tls: c.CertFile != ""}
	if err := CheckListen(c.Addr, s.tls || c.Plain); err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.MaxConns <= 0 {
		c.MaxConns = 30000
	}
	s.http = &http.Server{
		Handler:           c.Handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       MaxWait + 30*time.Second, // it also ends the wait of a request
		WriteTimeout:      MaxWait + time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug), // what strangers do wrong
	}
	if s.tls {
		pair := &keyPair{cert: c.CertFile, key: c.KeyFile, log: c.Log}
		if _, err := pair.get(nil); err != nil {
			return nil, err
		}
		s.http.TLSConfig = &tls.Config{GetCertificate: pair.get, MinVersion: tls.VersionTLS12}
	}
	l, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	s.listener = netutil.LimitListener(l, c.MaxConns)
	return s, nil
}

// Addr returns the address that is listened on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close gives the port back if Run is not called.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves until ctx ends; then waiting requests are answered at once and the others
// have five seconds to finish.
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
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := s.http.Shutdown(last)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-done
	return err
}

// keyPair is a certificate that is read again when its files change.
type keyPair struct {
	cert, key string
	log       *slog.Logger

	mu      sync.Mutex
	checked time.Time
	stamp   [2]stamp
	pair    *tls.Certificate
}

type stamp struct {
	time time.Time
	size int64
}

// get returns the certificate. One that cannot be read, as in the middle of a
// replacement, leaves the one before in use.
func (k *keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pair != nil && time.Since(k.checked) < time.Second {
		return k.pair, nil
	}
	k.checked = time.Now()
	var now [2]stamp
	for i, name := range []string{k.cert, k.key} {
		if info, err := os.Stat(name); err == nil {
			now[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	if k.pair != nil && now == k.stamp {
		return k.pair, nil
	}
	pair, err := tls.LoadX509KeyPair(k.cert, k.key)
	if err == nil {
		k.pair, k.stamp = &pair, now
		return k.pair, nil
	}
	err = fmt.Errorf("load certificate: %w", err)
	if k.pair == nil {
		return nil, err
	}
	k.log.Warn("the old certificate stays in use", "error", err)
	return k.pair, nil
}
