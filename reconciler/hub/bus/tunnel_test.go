package bus

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"selvedge/internal/serve"
	"selvedge/schema/wire"
)

const goodUpgrade = "GET /bus HTTP/1.1\r\nHost: hub\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"

// speak sends bytes to the hub's port and returns the connection.
func speak(t testing.TB, h *hub, text string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := tls.Dial("tcp", h.http.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

func TestTunnelRefuses(t *testing.T) {
	h := start(t, Config{})
	for what, c := range map[string]struct {
		text string
		want int
	}{
		"as it should be":  {goodUpgrade + "\r\n", 101},
		"no upgrade":       {"GET /bus HTTP/1.1\r\nHost: hub\r\n\r\n", 426},
		"other protocol":   {strings.Replace(goodUpgrade, "Upgrade: websocket", "Upgrade: h2c", 1) + "\r\n", 426},
		"other version":    {strings.Replace(goodUpgrade, "Version: 13", "Version: 8", 1) + "\r\n", 426},
		"no key":           {strings.Replace(goodUpgrade, "AAAAAAAAAAAAAAAAAAAAAA==", "AAAA", 1) + "\r\n", 400},
		"POST":             {strings.Replace(goodUpgrade, "GET", "POST", 1) + "\r\n", 405},
		"HTTP/1.0":         {strings.Replace(goodUpgrade, "HTTP/1.1", "HTTP/1.0", 1) + "\r\n", 505},
		"a browser":        {goodUpgrade + "Origin: https://evil.example\r\n\r\n", 403},
		"with a body":      {goodUpgrade + "Content-Length: 3\r\n\r\nabc", 400},
		"leaf node's path": {strings.Replace(goodUpgrade, "/bus", "/bus/leafnode", 1) + "\r\n", 101}, // a client all the same
	} {
		_, r := speak(t, h, c.text)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != c.want {
			t.Errorf("%s: %v %v", what, resp, err)
			continue
		}
		if c.want == 426 && resp.Header.Get("Upgrade") != "websocket" {
			t.Error(what, resp.Header)
		}
	}
	// HTTP/2 as Go's client speaks it
	resp, err := h.http.Client().Get(h.http.URL + wire.PathBus)
	if err != nil || resp.StatusCode != http.StatusHTTPVersionNotSupported {
		t.Fatal(resp, err)
	}
	if resp.ProtoMajor != 2 {
		t.Error("that was", resp.Proto)
	}
	// what comes before the answer was not meant for a server of NATS
	_, r := speak(t, h, goodUpgrade+"\r\nGET / HTTP/1.1\r\n\r\n")
	if rest, _ := io.ReadAll(r); strings.Contains(string(rest), "HTTP/1.1 200") {
		t.Errorf("%q", rest)
	}
}

func TestTunnelHidesHeaders(t *testing.T) {
	// a server that tells what it hears
	heard := make(chan *http.Request, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heard <- r
		w.WriteHeader(http.StatusTeapot)
	}))
	defer s.Close()
	h := start(t, Config{})
	h.tunnel.open([]*url.URL{{Scheme: "ws", Host: strings.TrimPrefix(s.URL, "http://")}})
	_, r := speak(t, h, goodUpgrade+"X-Forwarded-For: 6.6.6.6\r\nCookie: jwt=x\r\nNats-No-Masking: true\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusBadGateway {
		t.Error(resp, err)
	}
	got := wait(t, "the request", heard)
	if got.Header.Get("X-Forwarded-For") != "127.0.0.1" || len(got.Header["Cookie"]) > 0 || got.Header.Get("Nats-No-Masking") != "" || got.URL.Path != "/" {
		t.Error(got.URL, got.Header)
	}
}

// TestStrangersSlots: who does not say who he is takes only his own slots, and not for ever.
func TestStrangersSlots(t *testing.T) {
	tun := &tunnel{sources: map[netip.Prefix]int{}, free: make(chan struct{})}
	a, b := serve.Source(addressOf("10.0.0.1:5")), serve.Source(addressOf("[2001:db8::1]:5"))
	for range maxSource {
		if !tun.enter(t.Context(), a) {
			t.Fatal("refused")
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if tun.enter(gone, a) {
		t.Error("one too many")
	}
	if !tun.enter(gone, b) {
		t.Error("another address is refused")
	}
	tun.leave(b)
	in := make(chan bool)
	go func() { in <- tun.enter(t.Context(), a) }()
	tun.leave(a)
	if !wait(t, "a slot", in) {
		t.Error("the slot that became free was not given")
	}
	for range maxSource {
		tun.leave(a)
	}
	if tun.strangers != 0 || len(tun.sources) != 0 {
		t.Error("left over:", tun.strangers, tun.sources)
	}
	if serve.Source(addressOf("[2001:db8::1]:5")) != serve.Source(addressOf("[2001:db8::ffff]:6")) {
		t.Error("a /64 counts as many")
	}
	if serve.Source(addressOf("[::ffff:1.2.3.4]:5")) != serve.Source(addressOf("1.2.3.4:6")) {
		t.Error("one address counts as two")
	}
}

// TestKnownNodesFreeTheirSlots, whether they stay, go, or are refused.
func TestKnownNodesFreeTheirSlots(t *testing.T) {
	h := start(t, Config{})
	n := join(t, h, "a")
	free := func() (int, int) {
		h.tunnel.mu.Lock()
		defer h.tunnel.mu.Unlock()
		return h.tunnel.strangers, len(h.tunnel.pairs)
	}
	until := func(strangers, pairs int) {
		t.Helper()
		poll(t, fmt.Sprintf("%d strangers of %d connections", strangers, pairs), func() bool {
			s, p := free()
			return s == strangers && p == pairs
		})
	}
	until(0, 1)
	c, r := speak(t, h, goodUpgrade+"\r\n")
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	if s, p := free(); s != 1 || p != 2 {
		t.Error("a stranger:", s, p)
	}
	c.Close()
	until(0, 1)
	h.stop()
	until(0, 0)
	if n := h.tunnel.opened.Load(); n != 0 {
		t.Error("after the end:", n)
	}
	wait(t, "the node's end", n.dropped)
	rec := httptest.NewRecorder()
	req, _ := http.ReadRequest(bufio.NewReader(strings.NewReader(goodUpgrade + "\r\n")))
	h.Tunnel().ServeHTTP(rec, req)
	if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
		t.Error(rec.Code)
	}
}

// TestStrangerIsSentAway: who connects and says nothing is not kept.
func TestStrangerIsSentAway(t *testing.T) {
	h := start(t, Config{})
	h.tunnel.handshake = 100 * time.Millisecond
	_, r := speak(t, h, goodUpgrade+"\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatal(resp, err)
	}
	if rest, err := io.ReadAll(r); strings.Contains(fmt.Sprint(err), "timeout") || !strings.Contains(string(rest), "INFO") {
		t.Errorf("%q %v", rest, err)
	}
	poll(t, "a free slot", func() bool { h.tunnel.mu.Lock(); defer h.tunnel.mu.Unlock(); return h.tunnel.strangers == 0 })
	// a node is not held to that time
	h.tunnel.handshake = 10 * time.Second
	n := join(t, h, "a")
	n.flush(t)
}

func TestRawListener(t *testing.T) {
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	defer cert.Close()
	conf := cert.TLS.Clone()
	conf.NextProtos = []string{"h2", "http/1.1"}
	h := start(t, Config{Listen: "127.0.0.1:0", TLS: conf})
	n := newNode(t, h.Bus, "a")
	addr := h.listenAddr()
	nc, err := nats.Connect(fmt.Sprintf("tls://%s", addr), append(n.options(), tunnelOptions(cert)[1])...)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	h.untilThere(t, "a", true)
	plain := newNode(t, h.Bus, "b")
	if nc, err := nats.Connect(fmt.Sprintf("nats://%s", addr), append(plain.options(), nats.NoReconnect())...); err == nil {
		_, enc := nc.TLSConnectionState()
		if enc != nil {
			t.Error("a connection without TLS")
		}
		nc.Close()
	}
	if _, err := New(Config{Dir: t.TempDir(), Listen: ":0"}); err == nil {
		t.Error("a listener without TLS")
	}
}

func TestMeter(t *testing.T) {
	now := time.Now()
	m := &meter{tokens: meterBurst, last: now}
	for range meterBurst / (64 << 10) {
		if wait := m.spend(64<<10, now); wait != 0 {
			t.Fatal("waits in the burst:", wait)
		}
	}
	if wait := m.spend(meterRate, now); wait != time.Second {
		t.Error(wait)
	}
	if wait := m.spend(meterRate, now.Add(2*time.Second)); wait != 0 {
		t.Error(wait)
	}
	m.spend(0, now.Add(1000*time.Hour))
	if m.tokens != meterBurst {
		t.Error(m.tokens)
	}
	m.spend(1, now) // a clock that goes back gives nothing
	if m.tokens != meterBurst-1 {
		t.Error(m.tokens)
	}
}

func TestNoFilesLeft(t *testing.T) {
	h := start(t, Config{})
	if h.tunnel.most < 1 || mostPairs(true) < mostPairs(false) {
		t.Error(h.tunnel.most)
	}
	h.tunnel.most = 1
	n := join(t, h, "a")
	if err := newNode(t, h.Bus, "b").connect(t, h); err == nil {
		t.Error("one too many")
	}
	n.Close()
	poll(t, "room", func() bool { return newNode(t, h.Bus, "b").connect(t, h) == nil })
}

func TestReadReply(t *testing.T) {
	for text, ok := range map[string]bool{
		"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\nrest": true,
		"HTTP/1.1 200 OK\r\n\r\n":                              false,
		"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n":         false,
		"": false,
		"HTTP/1.1 101 x\r\n" + strings.Repeat("A: b\r\n", 2000): false,
		"HTTP/1.1 101 " + strings.Repeat("x", 5000):             false,
	} {
		got, err := readReply(bufio.NewReaderSize(strings.NewReader(text), 2048))
		if (err == nil) != ok || ok && string(got) != text {
			t.Errorf("%.30q: %q %v", text, got, err)
		}
	}
}

func FuzzCheckUpgrade(f *testing.F) {
	f.Add(goodUpgrade + "\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			return
		}
		if status, _ := checkUpgrade(r); status != 0 {
			return
		}
		if key := r.Header.Get("Sec-WebSocket-Key"); strings.ContainsAny(key, "\r\n ") {
			t.Errorf("passes on %q", key)
		}
	})
}
