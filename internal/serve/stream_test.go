package serve_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"selvedge/internal/serve"
)

// echo takes the connection over and sends back what comes, until the server stops.
func echo(t *testing.T, began, ended chan<- struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			w.WriteHeader(http.StatusHTTPVersionNotSupported)
			return
		}
		defer close(ended)
		defer c.Close()
		stop := context.AfterFunc(r.Context(), func() { c.SetReadDeadline(time.Now()) })
		defer stop()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		close(began)
		if _, err := io.Copy(c, rw); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Log(err)
		}
	}
}

func TestHijacked(t *testing.T) {
	began, ended := make(chan struct{}), make(chan struct{})
	addr, stop := listen(t, serve.Config{Handler: echo(t, began, ended), MaxConnsPerSource: 1})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	for range 3 {
		io.WriteString(c, "hello\n")
		if line, err := r.ReadString('\n'); line != "hello\n" || err != nil {
			t.Fatal(line, err)
		}
	}
	// it counts as long as it lasts
	if b := first(t, addr); b != "" {
		t.Errorf("a second connection of the source: %q", b)
	}
	stop() // ends the handler, and waits for it
	select {
	case <-ended:
	default:
		t.Error("the server ended before its handler")
	}
}

// first returns how a connection begins, "" if it is closed.
func first(t *testing.T, addr string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	line, _ := bufio.NewReader(c).ReadString('\n') // the error is that it was closed
	return strings.TrimSpace(line)
}

func TestConnectionsOfASource(t *testing.T) {
	s, err := serve.Listen(serve.Config{Addr: "127.0.0.1:0", MaxConnsPerSource: 3, Handler: http.NotFoundHandler()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() { cancel(); <-done }()
	var held []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	for range 5 {
		if line := first(t, s.Addr()); line != "" {
			t.Errorf("one too many: %q", line)
		}
	}
	if n := s.Refused(); n != 5 {
		t.Errorf("%d refused", n)
	}
	// another source is none the worse (all of 127.0.0.0/8 is here)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	c, err := d.Dial("tcp", s.Addr())
	if err != nil {
		t.Skip("no other address of loopback: ", err)
	}
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 404") {
		t.Errorf("%q %v", b, err)
	}
	c.Close()
	held[0].Close() // its place is given back
	deadline := time.Now().Add(20 * time.Second)
	for first(t, s.Addr()) == "" {
		if time.Now().After(deadline) {
			t.Fatal("the place is not given back")
		}
	}
}

// A stream lasts as long as it moves, and its body's end does not end the answer.
func TestEventsAfterABody(t *testing.T) {
	more := make(chan struct{})
	addr, _ := listen(t, serve.Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || string(b) != "question" {
			t.Errorf("%q %v", b, err)
		}
		c := http.NewResponseController(w)
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			if err := c.Flush(); err != nil {
				t.Error(err)
			}
			select {
			case <-more:
			case <-r.Context().Done():
				t.Error("the stream was cut")
				return
			}
		}
	})})
	res, err := http.Post("http://"+addr, "text/plain", strings.NewReader("question"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	r := bufio.NewReader(res.Body)
	for i := range 3 {
		line, err := r.ReadString('\n')
		if line != fmt.Sprintf("data: %d\n", i) || err != nil {
			t.Fatalf("%q %v", line, err)
		}
		r.ReadString('\n')
		more <- struct{}{}
	}
}

func TestUnixSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "serve-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "s")
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := serve.Listen(serve.Config{Listener: l, MaxConnsPerSource: 1, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for range 3 { // a socket has no sources: no bound but MaxConns
		tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", name)
		}}
		res, err := (&http.Client{Transport: tr}).Get("http://hub/")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// HTTP/2 where it is asked for and offered; a hijack falls back to an answer.
func TestProtocols(t *testing.T) {
	for _, two := range []bool{false, true} {
		// httptest has a certificate at hand
		ts := httptest.NewTLSServer(nil)
		pair := ts.TLS.Certificates[0]
		pool := ts.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
		ts.Close()
		addr, _ := listen(t, serve.Config{HTTP2: two, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil },
			Handler: echo(t, make(chan struct{}), make(chan struct{}))})
		client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "example.com"}}}
		if !two {
			c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: pool, ServerName: "example.com", NextProtos: []string{"h2", "http/1.1"}})
			if err != nil {
				t.Fatal(err)
			}
			if p := c.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
				t.Errorf("negotiated %q", p)
			}
			c.Close()
			continue
		}
		res, err := client.Get("https://" + addr)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.ProtoMajor != 2 || res.StatusCode != http.StatusHTTPVersionNotSupported {
			t.Errorf("%s %s", res.Proto, res.Status)
		}
		client.CloseIdleConnections()
	}
}

func TestClientCertificates(t *testing.T) {
	dir := t.TempDir()
	certificate(t, dir, 1)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(pair.Leaf)
	get := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil }
	if s, err := serve.Listen(serve.Config{Addr: "127.0.0.1:0", ClientCAs: x509.NewCertPool()}); err == nil {
		s.Close()
		t.Error("client certificates without TLS")
	}
	addr, _ := listen(t, serve.Config{GetCertificate: get, ClientCAs: pool, Handler: http.NotFoundHandler()})
	for _, show := range []bool{false, true} {
		c := &tls.Config{RootCAs: pool, ServerName: "localhost"}
		if show {
			c.Certificates = []tls.Certificate{pair}
		}
		tr := &http.Transport{TLSClientConfig: c}
		res, err := (&http.Client{Transport: tr}).Get("https://" + addr)
		if (err == nil) != show {
			t.Errorf("shown %v: %v", show, err)
		}
		if err == nil {
			res.Body.Close()
		}
		tr.CloseIdleConnections()
	}
}
