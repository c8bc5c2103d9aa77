package uplink_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"selvedge/edge/uplink"
	"selvedge/schema/wire"
)

// proxy is an HTTP proxy that lets in who has its password.
func proxy(t *testing.T, tunnels *atomic.Int64) *url.URL {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Header.Get("Proxy-Authorization") != "Basic YW5hOnNlY3JldA==" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		there, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		tunnels.Add(1)
		here, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
		go func() { io.Copy(there, here); there.Close() }()
		go func() { io.Copy(here, there); here.Close() }()
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(strings.Replace(s.URL, "http://", "http://ana:secret@", 1))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// A site that lets out only its proxy.
func TestThroughAProxy(t *testing.T) {
	var tunnels atomic.Int64
	r := newRig(t, func(_ *rig, c *uplink.Config) { uplink.SetProxy(c, proxy(t, &tunnels)) })
	r.seen("a status", func(wire.Status) bool { return true })
	if tunnels.Load() == 0 {
		t.Error("past the proxy")
	}
}

func TestProxyRefuses(t *testing.T) {
	var tunnels atomic.Int64
	r := newRig(t, func(_ *rig, c *uplink.Config) {
		u := proxy(t, &tunnels)
		u.User = url.UserPassword("ana", "wrong")
		uplink.SetProxy(c, u)
	})
	r.until("the refusal to be told", func() bool { return strings.Contains(r.up.Link().Why, "407") })
	if strings.Contains(r.up.Link().Why, "wrong") {
		t.Error("the password is told")
	}
}

// The library forgets a connection whose handshake fails: thousands of attempts at a hub that
// answers 503 must not keep thousands of sockets.
func TestForgottenConnectionsAreClosed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := uplink.NewDialer(t.Context())
	for range 3 {
		if _, err := d.Dial("tcp", l.Addr().String()); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i == 2 {
			break // in use
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("connection %d is kept: %v", i, err)
		}
	}
}
