package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"selvedge/internal/serve"
	"selvedge/reconciler/hub/ops"
	"selvedge/reconciler/hub/ops/opstest"
	"selvedge/schema/wire"
)

// TestHubStops stops the server, as a signal does, with a log, a command and questions open, over both
// versions of HTTP: none of them looks as if it had gone well.
func TestHubStops(t *testing.T) {
	w := newWorld(t, opstest.Config{Ops: func(c *ops.Config) { c.RestartTime = 2 * time.Second }})
	node := w.Join(t, "mu-1")
	a, err := New(Config{Ops: w.Ops, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*http.Client{"HTTP/1.1": {Transport: w.http1()}, "HTTP/2": w.http.Client()} {
		t.Run(name, func(t *testing.T) {
			s, err := serve.Listen(serve.Config{Addr: "127.0.0.1:0", Handler: a, HTTP2: true, Log: slog.New(slog.DiscardHandler),
				GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &w.http.TLS.Certificates[0], nil }})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- s.Run(ctx) }()
			defer func() { stop(); <-ran }()
			request := func(method, path, body string) *http.Request {
				r := w.request(t, "root", method, path, body)
				r.URL, err = url.Parse("https://" + s.Addr() + Base + path)
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			node.Silent.Store(false)
			followed := w.open(t, c, request("GET", "/nodes/mu-1/logs?app=web&follow=true", ""))
			if !strings.HasPrefix(followed.Proto, name) {
				t.Errorf("%s, want %s", followed.Proto, name)
			}
			if _, err := io.ReadFull(followed.Body, make([]byte, 7)); err != nil {
				t.Fatal(err)
			}
			command, _, err := websocket.Dial(t.Context(), "https://"+s.Addr()+Base+"/nodes/mu-1/exec?app=web&command=cat&stdin=true",
				&websocket.DialOptions{HTTPClient: c, HTTPHeader: http.Header{"Authorization": {"Bearer " + opstest.Token("root")}}})
			if err != nil {
				t.Fatal(err)
			}
			defer command.CloseNow()
			node.Silent.Store(true)
			before := len(node.Requests())
			asked := map[string]chan int{}
			for _, r := range []*http.Request{request("POST", "/nodes/mu-1/restart", `{"app":"web"}`), request("GET", "/nodes/mu-1/logs?agent=true", "")} {
				status := make(chan int, 1)
				asked[r.URL.Path] = status
				go func() {
					res, err := c.Do(r)
					if err != nil {
						status <- 0
						return
					}
					res.Body.Close()
					status <- res.StatusCode
				}()
			}
			for end := time.Now().Add(20 * time.Second); len(node.Requests()) < before+2; time.Sleep(time.Millisecond) { // it tells nobody
				if time.Now().After(end) {
					t.Fatal("the node is not asked")
				}
			}
			stop()
			if n, err := io.Copy(io.Discard, followed.Body); err == nil {
				t.Errorf("the log seems to be whole after %d bytes more", n)
			}
			if _, last := read(t, command); last.Error == nil || last.Error.Code != wire.CodeUnavailable {
				t.Errorf("of a command: %+v", last)
			}
			ended(t, node)
			ended(t, node)
			for path, status := range asked {
				if code := <-status; code != 0 && code < 500 {
					t.Errorf("%s: %d, and the node never answered", path, code)
				}
			}
		})
	}
}

// TestHubStopsAtACallerWhoStays holds that nobody delays the hub's stop: not even who answers all
// pings and never a close.
func TestHubStopsAtACallerWhoStays(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	node := w.Join(t, "mu-1")
	s, err := serve.Listen(serve.Config{Addr: "127.0.0.1:0", Handler: w.api, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET %s/nodes/mu-1/exec?app=web&command=cat&stdin=true HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n"+
		"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		Base, s.Addr(), opstest.Token("root"))
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(res, err)
	}
	stop()
	var got []byte // the opcodes of its frames
	for {
		var head [2]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			break
		}
		size := int64(head[1])
		if size == 126 {
			var more [2]byte
			if _, err := io.ReadFull(r, more[:]); err != nil {
				break
			}
			size = int64(binary.BigEndian.Uint16(more[:]))
		}
		data := make([]byte, size)
		if _, err := io.ReadFull(r, data); err != nil {
			break
		}
		opcode := head[0] & 0xf
		got = append(got, opcode)
		if opcode == 9 { // a ping; the pong is masked by zeros
			c.Write(append([]byte{0x8a, 0x80 | byte(size), 0, 0, 0, 0}, data...))
		}
	}
	if err := <-ran; err != nil {
		t.Error(err)
	}
	if !bytes.Contains(got, []byte{9, 8}) {
		t.Errorf("its frames were %v: no close was asked for", got)
	}
	ended(t, node)
}
