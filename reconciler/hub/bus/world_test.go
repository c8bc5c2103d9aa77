package bus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"selvedge/schema/wire"
)

// hub is a Bus that runs, behind a real HTTPS server.
type hub struct {
	*Bus
	http *httptest.Server
	stop func()

	mu       sync.Mutex
	statuses map[string][]string
	events   map[string][]string
	there    map[string]bool
	changed  chan struct{} // closed at each change
}

func testLog(t testing.TB) *slog.Logger {
	var w io.Writer = io.Discard
	if os.Getenv("BUS_LOG") != "" {
		w = os.Stderr
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// start runs a bus that is told of revoked keys before; an empty Dir is a new one.
func start(t testing.TB, c Config, revoked ...string) *hub {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	if c.Log == nil {
		c.Log = testLog(t)
	}
	b, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	b.presence.doubt = 0
	if err := b.Revoke(t.Context(), revoked...); err != nil {
		t.Fatal(err)
	}
	h := &hub{Bus: b, statuses: map[string][]string{}, events: map[string][]string{}, there: map[string]bool{}, changed: make(chan struct{})}
	err = b.Subscribe(
		func(n string, d []byte) { h.note(func() { h.statuses[n] = append(h.statuses[n], string(d)) }) },
		func(n string, d []byte) { h.note(func() { h.events[n] = append(h.events[n], string(d)) }) },
		func(n string, is bool) { h.note(func() { h.there[n] = is }) })
	if err != nil {
		t.Fatal(err)
	}
	h.http = httptest.NewUnstartedServer(b.Tunnel())
	h.http.EnableHTTP2 = true
	h.http.StartTLS()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		h.http.Close()
	})
	t.Cleanup(h.stop)
	select {
	case <-b.Ready():
	case err := <-done:
		done <- nil
		t.Fatal("the bus ended:", err)
	case <-time.After(patience * 30 * time.Second):
		t.Fatal("the bus is not ready")
	}
	return h
}

func (h *hub) note(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	close(h.changed)
	h.changed = make(chan struct{})
}

// until waits for something about what nodes said.
func (h *hub) until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.After(patience * 15 * time.Second)
	for {
		h.mu.Lock()
		yes, changed := ok(), h.changed
		h.mu.Unlock()
		if yes {
			return
		}
		select {
		case <-changed:
		case <-end:
			t.Fatal("in vain:", what)
		}
	}
}

func (h *hub) untilThere(t testing.TB, node string, want bool) {
	t.Helper()
	h.until(t, node+" comes or goes", func() bool { is, told := h.there[node]; return is == want && (told || !want) })
}

// node is a peer as the agent is one.
type node struct {
	*nats.Conn
	name, key string
	pair      nkeys.KeyPair
	errs      chan error
	dropped   chan error
	back      chan struct{}

	mu  sync.Mutex
	jwt string
}

func newNode(t testing.TB, h *Bus, name string) *node {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	key, _ := pair.PublicKey()
	n := &node{name: name, key: key, pair: pair, errs: make(chan error, 100), dropped: make(chan error, 100), back: make(chan struct{}, 100)}
	n.renew(t, h)
	return n
}

func (n *node) renew(t testing.TB, h *Bus) {
	t.Helper()
	token, err := h.NodeToken(n.name, n.key, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	n.jwt = token
	n.mu.Unlock()
}

func (n *node) options() []nats.Option {
	return []nats.Option{
		nats.UserJWT(func() (string, error) { n.mu.Lock(); defer n.mu.Unlock(); return n.jwt, nil }, n.pair.Sign),
		nats.CustomInboxPrefix(wire.InboxPrefix(n.name)), nats.Timeout(10 * time.Second),
		nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(), nats.IgnoreDiscoveredServers(),
		nats.ReconnectWait(50 * time.Millisecond), nats.ReconnectJitter(50*time.Millisecond, 50*time.Millisecond),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { offer(n.errs, err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { offer(n.errs, err) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { offer(n.dropped, err) }),
		nats.ReconnectHandler(func(*nats.Conn) { offer(n.back, struct{}{}) }),
	}
}

func offer[T any](c chan T, v T) {
	select {
	case c <- v:
	default:
	}
}

// tunnelOptions are those of the way through the hub's port.
func tunnelOptions(s *httptest.Server) []nats.Option {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return []nats.Option{nats.ProxyPath(wire.PathBus), nats.Secure(&tls.Config{RootCAs: roots})}
}

func wss(s *httptest.Server) string { return strings.Replace(s.URL, "https://", "wss://", 1) }

// connect connects through the tunnel.
func (n *node) connect(t testing.TB, h *hub, more ...nats.Option) error {
	t.Helper()
	nc, err := nats.Connect(wss(h.http), append(append(n.options(), tunnelOptions(h.http)...), more...)...)
	if err != nil {
		return err
	}
	n.Conn = nc
	t.Cleanup(nc.Close)
	return nil
}

// join makes a node and connects it.
func join(t testing.TB, h *hub, name string) *node {
	t.Helper()
	n := newNode(t, h.Bus, name)
	if err := n.connect(t, h); err != nil {
		t.Fatal(err)
	}
	h.untilThere(t, name, true)
	return n
}

// answer answers requests with that verb.
func (n *node) answer(t testing.TB, verb string, f func(m *nats.Msg) any) {
	t.Helper()
	_, err := n.Subscribe(wire.RequestSubject(n.name, verb), func(m *nats.Msg) {
		data, _ := json.Marshal(f(m))
		m.Respond(data)
	})
	if err != nil {
		t.Fatal(err)
	}
	n.flush(t)
}

func (n *node) flush(t testing.TB) {
	t.Helper()
	if err := n.FlushTimeout(10 * time.Second); err != nil {
		t.Fatal(err)
	}
}

func wait[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience * 15 * time.Second):
		t.Fatal("in vain:", what)
		panic("unreachable")
	}
}

// poll waits for what nobody tells.
func poll(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience * 20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("in vain: ", what)
		}
	}
}
