package serve_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"selvedge/internal/serve"
)

func TestCheckListen(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:80": true, "localhost:0": true, "[::1]:1": true, "127.9.9.9:1": true,
		":80": false, "0.0.0.0:80": false, "[::]:80": false, "10.0.0.1:80": false, "localhost.example:80": false, "example:80": false,
	} {
		if err := serve.CheckListen(addr, false); (err == nil) != want {
			t.Errorf("%s: %v", addr, err)
		}
		if err := serve.CheckListen(addr, true); err != nil {
			t.Errorf("%s with TLS: %v", addr, err)
		}
	}
	for _, bad := range []string{"", "127.0.0.1", "a:b:c"} {
		if serve.CheckListen(bad, true) == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

func listen(t *testing.T, c serve.Config) (addr string, stop func()) {
	t.Helper()
	c.Addr = "127.0.0.1:0"
	s, err := serve.Listen(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return s.Addr(), stop
}

func TestServerStopsInTheMiddleOfWaits(t *testing.T) {
	waiting := make(chan struct{})
	addr, stop := listen(t, serve.Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(waiting)
		<-r.Context().Done()
		w.WriteHeader(http.StatusNotModified)
	})})
	done := make(chan struct{})
	go func() {
		defer close(done)
		res, err := http.Get("http://" + addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer res.Body.Close()
		if res.StatusCode != 304 {
			t.Error(res.Status)
		}
	}()
	<-waiting
	stop() // an error if somebody still waits after five seconds
	<-done
}

func TestServerBounds(t *testing.T) {
	addr, _ := listen(t, serve.Config{Handler: http.NotFoundHandler()})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	// a flood of headers is answered before it ends
	go io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n"+strings.Repeat("X-Flood: "+strings.Repeat("y", 1000)+"\r\n", 5000))
	b, _ := io.ReadAll(conn)
	if !strings.HasPrefix(string(b), "HTTP/1.1 431") {
		t.Errorf("%.100q", b)
	}
}

// certificate writes a self-made one and returns its serial number.
func certificate(t *testing.T, dir string, serial int64) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestServerReloadsItsCertificate(t *testing.T) {
	dir := t.TempDir()
	certificate(t, dir, 1)
	addr, _ := listen(t, serve.Config{Handler: http.NotFoundHandler(), CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")})
	serial := func() int64 {
		conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Fatal(got)
	}
	if err := os.WriteFile(filepath.Join(dir, "cert.pem"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // it looks once a second
	if got := serial(); got != 1 {
		t.Fatal("a broken certificate replaced a good one:", got)
	}
	certificate(t, dir, 2)
	deadline := time.Now().Add(20 * time.Second)
	for serial() != 2 {
		if time.Now().After(deadline) {
			t.Fatal("the new certificate is not served")
		}
		time.Sleep(50 * time.Millisecond)
	}
	if res, err := http.Get("http://" + addr); err == nil {
		defer res.Body.Close()
		if res.StatusCode != 400 {
			t.Error("plain HTTP on the port of HTTPS")
		}
	}
}

func TestListenPlainBeyondLoopback(t *testing.T) {
	c := serve.Config{Addr: "0.0.0.0:0", Handler: http.NotFoundHandler()}
	if s, err := serve.Listen(c); err == nil {
		s.Close()
		t.Error("plain HTTP beyond loopback without being asked for")
	}
	c.Plain = true
	s, err := serve.Listen(c)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestListenRefuses(t *testing.T) {
	for name, c := range map[string]serve.Config{
		"plain beyond loopback": {Addr: "0.0.0.0:0"},
		"key without":           {Addr: "127.0.0.1:0", KeyFile: "x"},
		"no such certificate":   {Addr: "127.0.0.1:0", CertFile: "/none", KeyFile: "/none"},
	} {
		if s, err := serve.Listen(c); err == nil {
			s.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}
