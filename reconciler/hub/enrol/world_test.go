package enrol

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

const hubURL = "https://hub.example:8443"

// world is a real NATS server, what Git says, and any number of hubs.
type world struct {
	t      testing.TB
	js     []jetstream.JetStream // of each server; hubs take them in turn
	hubs   int
	signer nkeys.KeyPair

	mu       sync.Mutex
	now      func() time.Time
	nodes    map[string]string // public key → name
	guides   map[string]roster.Guide
	rejected []string
}

func newWorld(t testing.TB) *world { t.Helper(); return newCluster(t, 1) }

// listen takes a port below those that connections get by themselves: nobody takes it meanwhile.
func listen(t testing.TB) net.Listener {
	t.Helper()
	var last error
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 12000+rand.N(20000)))
		if err == nil {
			return l
		}
		last = err
	}
	t.Fatal(last)
	return nil
}

// newCluster is a world with several NATS servers, each of which keeps everything.
func newCluster(t testing.TB, servers int) *world {
	t.Helper()
	signer, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, signer: signer, now: time.Now, nodes: map[string]string{}, guides: map[string]roster.Guide{
		"folders/lab/box":   {Name: "box", Scope: "folders/lab", Prefix: "gw-", Labels: map[string]string{"site": "lab"}},
		"folders/lab/other": {Name: "other", Scope: "folders/lab", Prefix: "x-"},
	}}
	var routes []*url.URL // all must know all before they start
	var ports []int
	var free []net.Listener // closed when all have one
	if servers > 1 {
		for range servers {
			l := listen(t)
			free = append(free, l)
			ports = append(ports, l.Addr().(*net.TCPAddr).Port)
			routes = append(routes, &url.URL{Scheme: "nats", Host: l.Addr().String()})
		}
	}
	for _, l := range free {
		l.Close()
	}
	var all []*server.Server
	for i := range servers {
		o := &server.Options{ServerName: fmt.Sprint("s", i), Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true}
		if servers > 1 {
			o.Cluster, o.Routes = server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: ports[i]}, routes
		}
		s, err := server.NewServer(o)
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		all = append(all, s)
	}
	for _, s := range all {
		if !s.ReadyForConnections(30 * time.Second) {
			t.Fatal("no NATS server")
		}
		nc, err := nats.Connect("", nats.InProcessServer(s))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		w.js = append(w.js, js)
	}
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now()
}

func (w *world) setClock(off time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = func() time.Time { return time.Now().Add(off) }
}

func (w *world) setNode(key, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if name == "" {
		delete(w.nodes, key)
	} else {
		w.nodes[key] = name
	}
}

func (w *world) config() Config {
	js := w.js[w.hubs%len(w.js)]
	w.hubs++
	return Config{
		Hub:    []string{hubURL, "https://10.0.0.1"},
		Signer: func() nkeys.KeyPair { return w.signer },
		Bucket: func(ctx context.Context, name string, ttl time.Duration) (jetstream.KeyValue, error) {
			for {
				kv, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: name, TTL: ttl, History: 1, Replicas: len(w.js)})
				if err == nil || len(w.js) == 1 || ctx.Err() != nil {
					return kv, err
				}
				time.Sleep(50 * time.Millisecond) // the cluster has no leader yet
			}
		},
		BusToken: func(node, key string, ttl time.Duration) (string, error) {
			return fmt.Sprint("bus:", node, ":", key, ":", ttl), nil
		},
		Node: func(key string) (string, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			n, ok := w.nodes[key]
			return n, ok
		},
		Named: func(name string) (string, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for k, n := range w.nodes {
				if n == name {
					return k, true
				}
			}
			return "", false
		},
		Guide: func(key string) (roster.Guide, int, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			g, ok := w.guides[key]
			n := 0
			for _, name := range w.nodes {
				if strings.HasPrefix(name, g.Prefix) {
					n++
				}
			}
			return g, n, ok
		},
		Images: []string{"registry.example"},
		Prefix: func() string { return "fleet" },
		Trust:  func(context.Context) ([][]byte, error) { return [][]byte{[]byte("root 1")}, nil },
		Rejected: func(event string, attrs ...any) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.rejected = append(w.rejected, event+" "+fmt.Sprint(attrs...))
		},
		Rate: Rate{All: 1e6, Source: 1e6},
		Log:  slog.New(slog.DiscardHandler),
		Now:  w.clock,
	}
}

// rejections returns what went to the audit since the last call.
func (w *world) rejections() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := strings.Join(w.rejected, "\n")
	w.rejected = nil
	return all
}

// hub runs one; change may change its configuration.
func (w *world) hub(change func(*Config)) *Enrol {
	w.t.Helper()
	c := w.config()
	if change != nil {
		change(&c)
	}
	e := New(c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	w.until("the hub follows what is pending", func() bool { _, err := e.Pending(context.Background()); return err == nil })
	return e
}

func (w *world) until(what string, done func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatal("never: " + what)
		}
	}
}

// node is a key and how it asks.
type node struct {
	t      testing.TB
	key    nkeys.KeyPair
	public string
}

func newNode(t testing.TB) *node {
	t.Helper()
	k, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	p, err := k.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return &node{t, k, p}
}

func (n *node) sign(message []byte) string {
	s, err := n.key.Sign(message)
	if err != nil {
		n.t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(s)
}

// answered is what a hub answers.
type answered struct {
	status int
	header http.Header
	body   []byte
}

func (a answered) problem() hubapi.Problem {
	var p hubapi.Problem
	if a.header.Get("Content-Type") == hubapi.MediaTypeProblem {
		_ = json.Unmarshal(a.body, &p) // then it is no problem
	}
	return p
}

// into decodes a good answer.
func into[T any](t testing.TB, a answered) T {
	t.Helper()
	var v T
	if a.status != 200 {
		t.Fatalf("%d: %s", a.status, a.body)
	}
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func ask(t testing.TB, e *Enrol, method, path string, body any) answered {
	t.Helper()
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case []byte:
		r = bytes.NewReader(b)
	default:
		j, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		r = bytes.NewReader(j)
	}
	w := httptest.NewRecorder()
	e.Handler().ServeHTTP(w, httptest.NewRequest(method, path, r))
	return answered{w.Code, w.Header(), w.Body.Bytes()}
}

func (n *node) nonce(e *Enrol) string {
	n.t.Helper()
	return into[wire.Nonce](n.t, ask(n.t, e, "GET", wire.PathNonce, nil)).Nonce
}

func (n *node) token(e *Enrol) answered {
	n.t.Helper()
	nonce := n.nonce(e)
	return ask(n.t, e, "POST", wire.PathToken, wire.TokenRequest{PublicKey: n.public, Nonce: nonce, Signature: n.sign(wire.TokenMessage(hubURL, nonce))})
}

const recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"

func (n *node) request(token string) wire.JoinRequest {
	q := wire.JoinRequest{Token: token, PublicKey: n.public, Recipient: recipient, Machine: wire.Machine{Hostname: "box", OS: "Debian", Arch: "arm64", CPUs: 4}}
	q.Signature = n.sign(wire.JoinMessage(hubURL, q))
	return q
}

func (n *node) join(e *Enrol, token string) answered {
	n.t.Helper()
	return ask(n.t, e, "POST", wire.PathJoin, n.request(token))
}

// tokens makes join tokens.
func (w *world) tokens(e *Enrol, guide string, n int) []string {
	w.t.Helper()
	all, _, err := e.JoinTokens(context.Background(), guide, "user:ana", time.Hour, n)
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

func with(value string) *http.Request {
	r := httptest.NewRequest("GET", "/v2/", nil)
	if value != "" {
		r.Header.Set("Authorization", value)
	}
	return r
}
