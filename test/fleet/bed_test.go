package fleet

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"selvedge/reconciler/feed"
	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
	"selvedge/schema/nodestate"
	"selvedge/schema/roster"
	"selvedge/test/hubproc"
	"selvedge/test/swarm"
)

// TestMain is the hub's process, too, and that of a NATS server.
func TestMain(m *testing.M) {
	hubproc.Be()
	if name := os.Getenv("SELVEDGE_TEST_NATS"); name != "" {
		os.Exit(beNATS(name))
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // drills wait more than they work
		panic(err)
	}
	os.Exit(m.Run())
}

// bed is a hub with its roster.
type bed struct {
	t       *testing.T
	dir     string
	feed    *feed.Feed
	addr    string
	from    string // the feed
	url     string
	link    *link // another way to the hub
	pin     string
	hub     *exec.Cmd
	log     *hubproc.Log
	mu      sync.Mutex // of clients
	nodes   map[string]roster.Node
	keys    map[string]nkeys.KeyPair
	tokens  map[string]string // identity → text
	fleet   roster.Fleet
	calls   *http.Client
	clients map[string]*client.Client // by URL and token
}

const workspace = "folders/plant/line"

// newBed starts a hub for nodes of that many names, node-0 and so on, with ana, who is admin,
// and vic, who is viewer of another folder.
func newBed(t *testing.T, n int) *bed {
	t.Helper()
	t.Parallel()
	b := newRoster(t, n)
	b.start()
	return b
}

// newRoster is all of a bed but the hub.
func newRoster(t *testing.T, n int) *bed {
	t.Helper()
	dir, err := os.MkdirTemp("", "svf") // a socket's path is short
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bed{t: t, dir: dir, nodes: map[string]roster.Node{}, keys: map[string]nkeys.KeyPair{}, tokens: map[string]string{}, log: &hubproc.Log{}, clients: map[string]*client.Client{}}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // the hub of this test
	t.Cleanup(transport.CloseIdleConnections)
	b.calls = &http.Client{Transport: transport, Timeout: patience * time.Minute}
	for i := range n {
		b.newNode(fmt.Sprint("node-", i))
	}
	b.fleet = roster.Fleet{
		Platform: "Acme", Fingerprint: nodestate.Digest([]byte("root")), Seen: commit(1), InForce: commit(1),
		Scopes:     map[string]roster.Scope{"": {Kind: "platform"}, "folders/plant": {Kind: "folder"}, workspace: {Kind: "workspace", Title: "Line"}, "folders/other": {Kind: "folder"}},
		Identities: map[string]roster.Identity{},
		Bindings: []roster.Binding{
			{Name: "admins", Scope: "", Role: "admin", Subjects: []string{"user:ana"}},
			{Name: "viewers", Scope: "folders/other", Role: "viewer", Subjects: []string{"user:vic"}},
			{Name: "watchers", Scope: "folders/plant", Role: "viewer", Subjects: []string{"user:vera"}},
		},
		Guides: map[string]roster.Guide{workspace + "/box": {Name: "box", Scope: workspace, Prefix: "box-", MaxNodes: 2000}},
		Apps:   map[string][]roster.App{workspace: {{Name: "app-0", Scope: workspace}, {Name: "app-1", Scope: workspace}}},
	}
	for _, who := range []string{"ana", "vic", "vera"} {
		b.newToken(who)
	}
	b.feed, b.from = hubproc.Feed(t, dir, http.HandlerFunc(stored))
	b.tell(roster.Event{Reset: true, Fleet: &b.fleet, Nodes: maps.Clone(b.nodes), Trust: nodestate.Digest([]byte("trust"))})

	b.addr = hubproc.FreeAddr(t)
	b.url = "https://" + b.addr
	b.link = newLink(t, b.addr)
	t.Cleanup(func() {
		b.end(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("the hub's log ends with:\n%s", b.log.Tail(6000))
		}
	})
	return b
}

// stored is a store that has a state for everybody, without a look at who asks.
func stored(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", nodestate.MediaTypeManifest)
	fmt.Fprint(w, "the state at ", r.URL.Path)
}

func commit(n int) roster.Commit {
	return roster.Commit{Hash: fmt.Sprintf("%040x", n), Subject: fmt.Sprint("commit ", n), Author: "Ana <ana@acme.example>", Time: time.Now()}
}

func (b *bed) newNode(name string) {
	key, err := nkeys.CreateUser()
	must(b.t, err)
	public, err := key.PublicKey()
	must(b.t, err)
	b.keys[name] = key
	b.nodes[name] = roster.Node{Workspace: workspace, PublicKey: public, Generation: 1, Digest: nodestate.Digest([]byte(name)), Commit: commit(1).Hash,
		Apps: []string{"app-0", "app-1"}, Remote: nodestate.Remote{Logs: true, Restart: true, Exec: true}}
}

// newToken gives an identity a token, in place of the one before.
func (b *bed) newToken(who string) {
	text := "selvedge_" + strings.Repeat(string(rune('a'+len(b.tokens))), 42-len(who)) + who + "0"
	text = text[:9+43]
	b.tokens[who] = text
	b.fleet.Identities[who] = roster.Identity{Kind: "user", Tokens: map[string]roster.Token{"t": {Hash: nodestate.Digest([]byte(text)), Expires: time.Now().Add(24 * time.Hour)}}}
}

func (b *bed) tell(e roster.Event) {
	b.t.Helper()
	must(b.t, b.feed.Tell(e))
}

func (b *bed) start() {
	b.t.Helper()
	b.hub = b.spawn(hubproc.Settings{DataDir: filepath.Join(b.dir, "hub"), Listen: b.addr, URLs: []string{b.url, b.link.url}})
}

// spawn starts a hub, and waits until it is up.
func (b *bed) spawn(s hubproc.Settings) (cmd *exec.Cmd) {
	b.t.Helper()
	s.Reconciler, s.Clock = b.from, filepath.Join(filepath.Dir(s.DataDir), "clock")
	cmd, pin := hubproc.Start(b.t, s, b.log, patience*time.Minute)
	if b.pin == "" {
		b.pin = pin
	}
	return cmd
}

func (b *bed) end(s syscall.Signal) {
	hubproc.End(b.hub, s)
	b.hub = nil
}

// client is an identity's.
func (b *bed) client(who string) *client.Client { return b.clientOf(b.url, who) }

func (b *bed) clientOf(url, who string) *client.Client {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	key := url + " " + b.tokens[who]
	if b.clients[key] == nil {
		c, err := client.New(client.Config{URL: url, Token: b.tokens[who], CA: b.pin, Attempts: 1, Timeout: patience * 15 * time.Second})
		must(b.t, err)
		b.t.Cleanup(c.Close)
		b.clients[key] = c
	}
	return b.clients[key]
}

// members are nodes of the swarm.
func (b *bed) members(names ...string) (out []swarm.Member) {
	if len(names) == 0 {
		for name := range b.keys {
			names = append(names, name)
		}
	}
	for _, name := range names {
		out = append(out, swarm.Member{Name: name, Key: b.keys[name]})
	}
	return out
}

// swarm connects nodes and waits for them.
func (b *bed) swarm(cfg swarm.Config) *swarm.Swarm {
	b.t.Helper()
	if cfg.Hubs == nil {
		cfg.Hubs = []string{b.url}
	}
	cfg.Pin = b.pin
	if cfg.Members == nil {
		cfg.Members = b.members()
	}
	s, err := swarm.Start(b.t.Context(), cfg)
	must(b.t, err)
	b.t.Cleanup(s.Close)
	ctx, cancel := context.WithTimeout(b.t.Context(), patience*time.Minute)
	defer cancel()
	must(b.t, s.Await(ctx, len(cfg.Members)))
	return s
}

// node is what the hub says of a node.
func (b *bed) node(name string) hubapi.NodeDetail {
	n, _ := b.client("ana").Node(b.t.Context(), name)
	return n
}

func (b *bed) until(most time.Duration, what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(patience * most); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("waited %v for %s in vain", most, what)
		}
	}
}

// ask sends a request as somebody; an empty token sends none.
func (b *bed) ask(method, path, token string, body io.Reader) (int, string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, body)
	must(b.t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := b.calls.Do(req)
	must(b.t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 8<<20))
	must(b.t, err)
	return res.StatusCode, string(text)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
