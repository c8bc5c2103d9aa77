// Package opstest makes an ops.Ops over real services for tests: a roster that is followed
// over a socket, a NATS server, nodes that connect to it and answer as agents do.
package opstest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"selvedge/reconciler/access"
	"selvedge/reconciler/hub/audit"
	"selvedge/reconciler/hub/bus"
	"selvedge/reconciler/hub/enrol"
	"selvedge/reconciler/hub/follow"
	"selvedge/reconciler/hub/ops"
	"selvedge/reconciler/hub/status"
	"selvedge/schema/nodestate"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// Hub is the URL that join lines name.
const Hub = "https://hub.example:8443"

// World is a hub's services, without its port.
type World struct {
	*ops.Ops
	Follow *follow.Follower
	Bus    *bus.Bus
	Enrol  *enrol.Enrol
	Status *status.Store
	Audit  *audit.Log

	AuditPath string
	tunnel    *httptest.Server
	pairs     map[string]nkeys.KeyPair

	mu      sync.Mutex
	fleet   roster.Fleet
	nodes   map[string]roster.Node
	feed    chan roster.Event
	applied chan struct{} // closed and made anew at each delta
}

// Config changes what New makes.
type Config struct {
	Fleet roster.Fleet           // nil members: those of Fleet()
	Nodes map[string]roster.Node // nil: Nodes()
	Ops   func(*ops.Config)      // changes the configuration of Ops; nil: nothing
	Audit audit.Config           // Path is filled in
}

// Token returns the API token of an identity of Fleet, by a name of its own such as
// "viewer"; other names give tokens that Git does not know.
func Token(name string) string {
	return access.TokenPrefix + (name + strings.Repeat("0", 43))[:43]
}

// Fleet has two workspaces, folders/munich/line-1 and folders/berlin/line-2, and for each role
// somebody with a token of their name: viewer, editor and admin of folders/munich, berlin
// (viewer of folders/berlin), root (admin of the platform), nobody (no role), and
// expired, whose token is; narrow is root bound to viewer at folders/munich.
func Fleet() roster.Fleet {
	year := time.Now().Add(365 * 24 * time.Hour).UTC().Truncate(time.Second)
	f := roster.Fleet{
		Platform: "Example", Prefix: "fleet", Fingerprint: "sha256:" + strings.Repeat("ab", 32),
		InForce: roster.Commit{Hash: strings.Repeat("1", 40), Subject: "secret words of a commit", Time: time.Unix(1.7e9, 0).UTC()},
		Scopes: map[string]roster.Scope{"": {Kind: "platform"}, "folders/munich": {Kind: "folder"}, "folders/munich/line-1": {Kind: "workspace", Title: "Line 1"},
			"folders/berlin": {Kind: "folder"}, "folders/berlin/line-2": {Kind: "workspace", Title: "Line 2"}},
		Identities: map[string]roster.Identity{},
		Guides: map[string]roster.Guide{
			"folders/munich/line-1/box": {Name: "box", Scope: "folders/munich/line-1", Prefix: "mu-", Labels: map[string]string{"line": "1"}},
			"folders/berlin/line-2/box": {Name: "box", Scope: "folders/berlin/line-2", Prefix: "be-"},
		},
		Apps:     map[string][]roster.App{"folders/munich/line-1": {{Name: "web", Scope: "folders/munich"}}, "folders/berlin/line-2": {{Name: "web", Scope: "folders/berlin"}}},
		Problems: []roster.Problem{{Severity: "warning", Workspace: "folders/berlin/line-2", Text: "berlin's own problem"}},
	}
	who := func(name, role, scope string) {
		t := roster.Token{Hash: access.Hash(Token(name)), Expires: year}
		switch name {
		case "expired":
			t.Expires = time.Unix(1.7e9, 0)
		case "narrow":
			t.Role, t.Scope = access.Viewer, "folders/munich"
		}
		f.Identities[name] = roster.Identity{Kind: "user", Tokens: map[string]roster.Token{"laptop": t}}
		if role != "" {
			f.Bindings = append(f.Bindings, roster.Binding{Name: name, Scope: scope, Role: role, Subjects: []string{"user:" + name}})
		}
	}
	who("viewer", access.Viewer, "folders/munich")
	who("editor", access.Editor, "folders/munich")
	who("admin", access.Admin, "folders/munich")
	who("berlin", access.Viewer, "folders/berlin")
	who("root", access.Admin, "")
	who("narrow", access.Admin, "")
	who("expired", access.Admin, "")
	who("nobody", "", "")
	return f
}

// Nodes are mu-1, which grants everything, mu-2, which grants nothing, mu-3 without an
// identity, and be-1 in the other workspace, which grants everything.
func Nodes() map[string]roster.Node {
	all := nodestate.Remote{Logs: true, Restart: true, Exec: true}
	n := func(workspace string, r nodestate.Remote) roster.Node {
		return roster.Node{Workspace: workspace, Labels: map[string]string{"line": workspace[len(workspace)-1:]}, Generation: 7, Digest: "sha256:" + strings.Repeat("7", 64),
			Commit: strings.Repeat("1", 40), Apps: []string{"web"}, Remote: r}
	}
	return map[string]roster.Node{
		"mu-1": n("folders/munich/line-1", all), "mu-2": n("folders/munich/line-1", nodestate.Remote{}),
		"mu-3": n("folders/munich/line-1", all), "be-1": n("folders/berlin/line-2", all),
	}
}

// New starts the services; they end with the test.
func New(t testing.TB, c Config) *World {
	t.Helper()
	w := &World{AuditPath: filepath.Join(t.TempDir(), "audit.jsonl"), fleet: c.Fleet, nodes: c.Nodes, feed: make(chan roster.Event, 16),
		applied: make(chan struct{}), pairs: map[string]nkeys.KeyPair{}}
	if w.fleet.Identities == nil {
		w.fleet = Fleet()
	}
	if w.nodes == nil {
		w.nodes = Nodes()
	}
	for name, n := range w.nodes {
		if name == "mu-3" {
			continue
		}
		pair, err := nkeys.CreateUser()
		must(t, err)
		w.pairs[name] = pair
		n.PublicKey, err = pair.PublicKey()
		must(t, err)
		w.nodes[name] = n
	}
	log := slog.New(slog.DiscardHandler)
	var err error
	w.Follow, err = follow.New(follow.Config{URL: "unix:" + w.reconciler(t), Log: log})
	must(t, err)
	w.Bus, err = bus.New(bus.Config{Dir: t.TempDir(), Log: log, Allowed: func(node, key string) bool {
		name, _, ok := w.Follow.View().NodeByKey(key)
		return ok && name == node
	}})
	must(t, err)
	w.Status, err = status.Open(status.Config{Path: filepath.Join(t.TempDir(), "status.db")})
	must(t, err)
	w.Enrol = enrol.New(enrol.Config{
		Hub: []string{Hub}, Signer: w.Bus.Signer, Bucket: w.Bus.Bucket, BusToken: w.Bus.NodeToken,
		Node:  func(key string) (string, bool) { name, _, ok := w.Follow.View().NodeByKey(key); return name, ok },
		Named: func(name string) (string, bool) { n, ok := w.Follow.View().Node(name); return n.PublicKey, ok },
		Guide: func(key string) (roster.Guide, int, bool) {
			g, ok := w.Follow.View().Fleet.Guides[key]
			return g, 0, ok
		},
		Trust: func(context.Context) ([][]byte, error) { return nil, nil }, Rejected: func(string, ...any) {}, Log: log,
	})
	c.Audit.Path, c.Audit.Log = w.AuditPath, log
	w.Audit, err = audit.Open(c.Audit)
	must(t, err)
	oc := ops.Config{Follow: w.Follow, Bus: w.Bus, Enrol: w.Enrol, Status: w.Status, Audit: w.Audit, Hub: Hub, CA: "sha256:" + strings.Repeat("cd", 32), Log: log}
	if c.Ops != nil {
		c.Ops(&oc)
	}
	w.Follow.OnDelta(func(v *follow.View, d follow.Delta) {
		w.Status.Fleet(v.Fleet)
		w.Status.Want(d.Reset, d.Nodes, d.Removed)
		w.Status.Changes(d.Changes)
	})
	w.Ops = ops.New(oc)
	w.Follow.OnDelta(func(*follow.View, follow.Delta) {
		w.mu.Lock()
		defer w.mu.Unlock()
		close(w.applied)
		w.applied = make(chan struct{})
	})
	must(t, w.Bus.Subscribe(w.Status.Report, w.Status.Events, w.Status.Presence))
	w.tunnel = httptest.NewUnstartedServer(w.Bus.Tunnel())
	w.tunnel.StartTLS()
	w.run(t)
	return w
}

// run starts what runs, and waits until it works.
func (w *World) run(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	applied := w.applied
	start := func(run func(context.Context) error) { wg.Go(func() { _ = run(ctx) }) } // it ends with the context's error
	start(w.Bus.Run)
	start(w.Status.Run)
	start(w.Follow.Run)
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		w.tunnel.Close()
		w.Audit.Close()
		w.Status.Close()
	})
	for what, c := range map[string]<-chan struct{}{"bus": w.Bus.Ready(), "roster": applied} {
		select {
		case <-c:
		case <-time.After(30 * time.Second):
			t.Fatal("not ready: ", what)
		}
	}
	start(w.Enrol.Run)                                                            // not before the bus, which it would wait for in steps of seconds
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) { // it tells nobody when it is
		if _, err := w.Enrol.Pending(ctx); err == nil {
			return
		} else if time.Now().After(end) {
			t.Fatal("not ready: ", err)
		}
	}
}

// reconciler serves the roster on a socket.
func (w *World) reconciler(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hub.sock")
	l, err := net.Listen("unix", path)
	must(t, err)
	stop := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		if r.URL.Path != roster.Path {
			http.NotFound(out, r)
			return
		}
		out.Header().Set("Content-Type", "application/x-ndjson")
		w.mu.Lock()
		all := roster.Event{Reset: true, Fleet: &w.fleet, Nodes: w.nodes, Trust: "sha256:" + strings.Repeat("e", 64),
			Changes: []roster.Change{{Commit: w.fleet.InForce, At: w.fleet.InForce.Time, Nodes: map[string]int64{"mu-1": 7}}}}
		err := json.NewEncoder(out).Encode(all)
		w.mu.Unlock()
		for {
			if err != nil || http.NewResponseController(out).Flush() != nil {
				return
			}
			select {
			case e := <-w.feed:
				err = json.NewEncoder(out).Encode(e)
			case <-r.Context().Done():
				return
			case <-stop:
				return
			}
		}
	}))
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(func() { close(stop); s.CloseClientConnections(); s.Close() })
	return path
}

// Change tells hubs of a change in Git and waits until this one has applied it.
func (w *World) Change(t testing.TB, e roster.Event) {
	t.Helper()
	w.mu.Lock()
	applied := w.applied
	w.mu.Unlock()
	w.feed <- e
	select {
	case <-applied:
	case <-time.After(20 * time.Second):
		t.Fatal("the change is not applied")
	}
}

// ChangeFleet is Change with a changed copy of the fleet.
func (w *World) ChangeFleet(t testing.TB, change func(*roster.Fleet)) {
	t.Helper()
	w.mu.Lock()
	b, err := json.Marshal(w.fleet)
	w.mu.Unlock()
	must(t, err)
	var f roster.Fleet
	must(t, json.Unmarshal(b, &f))
	change(&f)
	w.mu.Lock()
	w.fleet = f
	w.mu.Unlock()
	w.Change(t, roster.Event{Fleet: &f})
}

// Caller is who has the token of that name.
func (w *World) Caller(t testing.TB, name string) ops.Caller {
	t.Helper()
	c, err := w.Authenticate(Token(name), "192.0.2.7:4711")
	must(t, err)
	return c
}

// connect opens a node's connection.
func (w *World) connect(t testing.TB, name string) *nats.Conn {
	t.Helper()
	pair := w.pairs[name]
	key, err := pair.PublicKey()
	must(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(w.tunnel.Certificate())
	nc, err := nats.Connect(strings.Replace(w.tunnel.URL, "https://", "wss://", 1),
		nats.UserJWT(func() (string, error) { return w.Bus.NodeToken(name, key, time.Hour) }, pair.Sign),
		nats.CustomInboxPrefix(wire.InboxPrefix(name)), nats.ProxyPath(wire.PathBus), nats.IgnoreDiscoveredServers(),
		nats.Secure(&tls.Config{RootCAs: roots}))
	must(t, err)
	t.Cleanup(nc.Close)
	return nc
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Unstarted is an Ops of a hub that has not heard of the reconciler yet.
func (w *World) Unstarted() *ops.Ops {
	f, err := follow.New(follow.Config{URL: "unix:/nowhere/hub.sock"})
	if err != nil {
		panic(err) // the address is right
	}
	return ops.New(ops.Config{Follow: f, Bus: w.Bus, Enrol: w.Enrol, Status: w.Status, Audit: w.Audit})
}
