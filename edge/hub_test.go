package edge_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"selvedge/edge"
	"selvedge/edge/auth"
	"selvedge/edge/hubtest"
	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

// withHub gives a bed a hub in front of its store, and has nobody prepared yet.
func withHub(t *testing.T) (*bed, *hubtest.Hub) {
	t.Helper()
	b := newBed(t)
	h := hubtest.New(t)
	h.Docs, h.V2, h.Prefix = b.cloud.Docs, b.store.Handler(), "eu"
	if err := os.RemoveAll(b.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	b.cfg.HostsDir = filepath.Join(t.TempDir(), "certs.d")
	b.cfg.Interval = 100 * time.Millisecond
	return b, h
}

func (b *bed) options(h *hubtest.Hub, token string) edge.JoinOptions {
	sum := nodestate.Digest(b.cloud.Docs[0])
	return edge.JoinOptions{Hubs: []string{h.URL}, Token: token, Pin: h.Pin, Fingerprint: sum}
}

func (b *bed) join(h *hubtest.Hub) edge.Joined {
	b.Helper()
	h.Lock()
	h.Tokens["t"] = true
	h.Unlock()
	j, err := edge.Join(b.Context(), b.cfg.Dir, b.options(h, "t"))
	if err != nil {
		b.Fatal(err)
	}
	b.key = j.PublicKey
	return j
}

// joined is a node that joined and was let in.
func joined(t *testing.T) (*bed, *hubtest.Hub) {
	t.Helper()
	b, h := withHub(t)
	h.Approve(b.join(h).PublicKey, "gw-1")
	return b, h
}

func TestJoin(t *testing.T) {
	b, h := withHub(t)
	j := b.join(h)
	if j.Code != "CODE-1" || j.Node != "" {
		t.Fatalf("%+v", j)
	}
	if q := h.Joins[0]; q.PublicKey != j.PublicKey || !strings.HasPrefix(q.Recipient, "age1") {
		t.Errorf("%+v", q)
	}
	// again: the same keys, no second request, and the token is not needed
	if again, err := edge.Join(t.Context(), b.cfg.Dir, b.options(h, "used")); err != nil || again != j || len(h.Joins) != 1 {
		t.Errorf("%+v, %v", again, err)
	}
	b.start()
	b.until("it to wait", func() bool {
		s := b.status()
		return s.Running && s.Hub.Joining && s.Hub.Code == "CODE-1" && strings.Contains(s.Hub.Error, "waits for approval")
	})
	if err := edge.New(b.cfg).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "running already") {
		t.Errorf("a second agent: %v", err)
	}
	h.Approve(j.PublicKey, "gw-1")
	b.publish(1, app("a", "1"))
	b.good(1)
	b.until("the live connection", func() bool { return b.status().Hub.Connected })
	if again, err := edge.Join(t.Context(), b.cfg.Dir, b.options(h, "used")); err != nil || again.Node != "gw-1" {
		t.Errorf("%+v, %v", again, err)
	}
	for _, f := range []string{"agent.json", "identity/node.key", "identity/age.key", "trust.root.json", "hub-ca.pem"} {
		if fi, err := os.Stat(filepath.Join(b.cfg.Dir, f)); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", f, err)
		}
	}
}

func TestJoinRefuses(t *testing.T) {
	b, h := withHub(t)
	for name, c := range map[string]struct {
		change func(*edge.JoinOptions)
		want   string
	}{
		"another CA":            {func(o *edge.JoinOptions) { o.Pin = nodestate.Digest([]byte("x")) }, "not vouched for by the one that was pinned"},
		"the system's CAs":      {func(o *edge.JoinOptions) { o.Pin = "" }, "certificate"},
		"another root":          {func(o *edge.JoinOptions) { o.Fingerprint = nodestate.Digest([]byte("x")) }, "not the one that was meant"},
		"no fingerprint":        {func(o *edge.JoinOptions) { o.Fingerprint = "sha256:1" }, "wrong setting"},
		"plain HTTP":            {func(o *edge.JoinOptions) { o.Hubs = []string{"http://hub.example"} }, "plain HTTP is for loopback only"},
		"a hub that is away":    {func(o *edge.JoinOptions) { o.Hubs = []string{"https://127.0.0.1:1"} }, "refused"},
		"a hub of another kind": {func(o *edge.JoinOptions) { o.Hubs = []string{"ftp://hub"} }, "want https://"},
	} {
		o := b.options(h, "t")
		c.change(&o)
		if _, err := edge.Join(t.Context(), b.cfg.Dir, o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(b.cfg.Dir); err == nil {
		t.Error("something was written")
	}
	if _, err := edge.Join(t.Context(), b.cfg.Dir, b.options(h, "never given")); err == nil || !strings.Contains(err.Error(), "refuses the join token") {
		t.Errorf("token: %v", err)
	}
	b.join(h) // positive control
}

// The hub heard the request, and its answer was lost; or the machine went down before it came.
func TestJoinAfterALostAnswer(t *testing.T) {
	b, h := withHub(t)
	h.Tokens["t"] = true
	lose := true
	h.Before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != wire.PathJoin || !lose {
			return false
		}
		lose = false
		h.JoinUnheard(r)
		panic(http.ErrAbortHandler)
	}
	if _, err := edge.Join(t.Context(), b.cfg.Dir, b.options(h, "t")); err == nil {
		t.Fatal("no error")
	}
	j, err := edge.Join(t.Context(), b.cfg.Dir, b.options(h, "t"))
	if err != nil || j.Code != "" || j.Node != "" || len(h.Joins) != 1 {
		t.Fatalf("%+v, %v", j, err)
	}
	h.Approve(j.PublicKey, "gw-1")
	if j, err = edge.Join(t.Context(), b.cfg.Dir, b.options(h, "t")); err != nil || j.Node != "gw-1" {
		t.Errorf("%+v, %v", j, err)
	}
}

// A key that was put into Git by hand works through the hub, too: with its CA as a file, or pinned.
func TestByHand(t *testing.T) {
	for _, pinned := range []bool{false, true} {
		t.Run(map[bool]string{false: "file", true: "pin"}[pinned], func(t *testing.T) {
			b, h := withHub(t)
			h.Images = []string{"registry.example"}
			ca := filepath.Join(t.TempDir(), "ca.pem")
			os.WriteFile(ca, h.CA, 0o600)
			s := edge.Settings{Node: "gw-1", Hubs: []string{h.URL}, HubCA: ca}
			if pinned {
				s.HubCA, s.HubPin, ca = "", h.Pin, filepath.Join(b.cfg.Dir, "hub-ca.pem")
			}
			public, err := edge.Init(b.cfg.Dir, s, b.cloud.Docs[0])
			if err != nil {
				t.Fatal(err)
			}
			b.key = public
			b.start()
			b.until("it to be told", func() bool { return strings.Contains(b.status().Hub.Error, "no node in Git") })
			h.Approve(public, "gw-1")
			b.publish(1, app("a", "1"))
			b.good(1)
			b.until("images to come through the hub, whose CA containerd reads from a file", func() bool {
				c, err := os.ReadFile(filepath.Join(b.cfg.HostsDir, "registry.example", "hosts.toml"))
				kept, _ := os.ReadFile(ca)
				return err == nil && strings.Contains(string(c), ca) && string(kept) == string(h.CA)
			})
		})
	}
	b, h := withHub(t)
	if _, err := edge.Init(b.cfg.Dir, edge.Settings{Node: "gw-1", Hubs: []string{h.URL}, HubPin: "sha256:1"}, b.cloud.Docs[0]); !errors.Is(err, edge.ErrSettings) {
		t.Errorf("a pin that is none: %v", err)
	}
}

// A hub tells of changes: nothing is polled between, and nothing waits for a poll.
func TestNotice(t *testing.T) {
	b, h := joined(t)
	b.cfg.Fallback = time.Hour
	b.publish(1, app("a", "1"))
	b.start()
	b.good(1)
	b.until("the live connection", func() bool { return b.status().Hub.Connected })
	b.publish(2, app("a", "2"))
	h.Conn.Publish(wire.RequestSubject("gw-1", wire.VerbNotice), []byte(`{"generation":2}`))
	b.good(2)
	// the notice is lost with the connection: the next one brings it
	b.publish(3, app("a", "3"))
	h.Cut()
	b.good(3)
}

// A million notices of nothing make few pulls.
func TestNoticesAreLimited(t *testing.T) {
	b, h := joined(t)
	b.cfg.Fallback = time.Hour
	b.publish(1, app("a", "1"))
	b.start()
	b.good(1)
	b.until("the live connection", func() bool { return b.status().Hub.Connected })
	path := "/v2/eu/nodes/gw-1/manifests/signed"
	before := h.Count(path)
	stop := time.Now().Add(time.Second)
	for time.Now().Before(stop) {
		for range 1000 {
			h.Conn.Publish(wire.RequestSubject("gw-1", wire.VerbNotice), []byte(`{"generation":99}`))
		}
		h.Conn.Flush()
	}
	if n := h.Count(path) - before; n > 4 {
		t.Errorf("%d pulls", n)
	}
	if !b.runs("a", "1") {
		t.Error("it does not run")
	}
}

// Without a bus, the registry behind the hub is enough.
func TestWithoutABus(t *testing.T) {
	b, h := joined(t)
	h.Before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == wire.PathBus {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	}
	b.publish(1, app("a", "1"))
	b.start()
	b.good(1)
	b.publish(2, app("a", "2"))
	b.good(2)
}

// A bearer that the hub forgot is renewed at once, and once.
func TestBearerIsRefused(t *testing.T) {
	b, h := joined(t)
	b.publish(1, app("a", "1"))
	b.start()
	b.good(1)
	h.Lock()
	clear(h.Bearers)
	h.Unlock()
	b.publish(2, app("a", "2"))
	h.Conn.Publish(wire.RequestSubject("gw-1", wire.VerbNotice), []byte(`{"generation":2}`))
	b.until("another token, or another poll", func() bool { b.wake(); return b.runs("a", "2") })
}

func TestReport(t *testing.T) {
	b, h := joined(t)
	sub, err := h.Conn.SubscribeSync("n.gw-1.st")
	if err != nil {
		t.Fatal(err)
	}
	events, _ := h.Conn.SubscribeSync("n.gw-1.ev")
	h.Conn.Flush()
	b.sign1(nodestate.Remote{Logs: true}, 1, app("a", "1"))
	b.start()
	b.good(1)
	var s wire.Status
	for s.State.LastGood.Generation != 1 || !s.Well {
		m, err := sub.NextMsg(patience)
		if err != nil {
			t.Fatalf("%v; last: %+v", err, s)
		}
		json.Unmarshal(m.Data, &s)
	}
	if s.Node != "gw-1" || !s.Remote.Logs || s.Remote.Exec || len(s.Apps) != 1 || s.Apps[0].Containers[0].State != "running" || s.State.Pulled.Generation != 1 || s.State.Phase != "idle" {
		t.Errorf("%+v", s)
	}
	b.publish(2, app("a", "2", failing))
	h.Conn.Publish(wire.RequestSubject("gw-1", wire.VerbNotice), nil)
	h.Conn.Publish(wire.RequestSubject("gw-1", wire.VerbNotice), []byte(`{"generation":2}`))
	b.rejected(2)
	want := map[string]bool{"AgentStarted": true, "NewState": true, "Applied": true, "RolledBack": true}
	for len(want) > 0 {
		m, err := events.NextMsg(patience)
		if err != nil {
			t.Fatalf("%v: %v", err, want)
		}
		var e wire.Events
		json.Unmarshal(m.Data, &e)
		for _, x := range e.Events {
			delete(want, x.Reason)
		}
	}
	for !slices.ContainsFunc(s.Conditions, func(c wire.Condition) bool { return c.Type == wire.ConditionRejected }) || s.Well {
		m, err := sub.NextMsg(patience)
		if err != nil {
			t.Fatalf("%v; last: %+v", err, s)
		}
		s = wire.Status{}
		json.Unmarshal(m.Data, &s)
	}
}

// Before anything was verified the hub may correct the name; afterwards it is an alarm.
func TestName(t *testing.T) {
	b, h := withHub(t)
	j := b.join(h)
	h.Approve(j.PublicKey, "wrong")
	b.start()
	b.until("the wrong name", func() bool { return b.status().Node == "wrong" && b.status().Running })
	h.Approve(j.PublicKey, "gw-1")
	h.Lock()
	h.Life = time.Second // of no use: one that is refused brings the next
	clear(h.Bearers)
	h.Unlock()
	b.publish(1, app("a", "1"))
	b.until("the right one", func() bool { b.wake(); return b.status().Node == "gw-1" })
	b.good(1)
	h.Approve(j.PublicKey, "other")
	h.Lock()
	clear(h.Bearers)
	h.Unlock()
	b.until("the alarm", func() bool {
		b.wake()
		s := b.status()
		return s.Refused != nil && s.Refused.Reason == "name" && strings.Contains(s.Refused.Message, `"other"`)
	})
	if s := b.status(); s.Node != "gw-1" || !b.runs("a", "1") || s.Well() {
		t.Errorf("%+v", s)
	}
	h.Approve(j.PublicKey, "gw-1")
	b.publish(2, app("a", "2"))
	b.until("calm", func() bool { b.wake(); return b.status().Refused == nil && b.runs("a", "2") })
}

// A hub that serves another's state, an old one, or garbage without end, changes nothing.
func TestLyingRegistry(t *testing.T) {
	b, h := joined(t)
	b.publish(1, app("a", "1"))
	b.start()
	b.good(1)
	other := b.signWith(2, func(s *nodestate.State) { s.Node = "gw-2" }, app("a", "2"))
	h.Lock()
	honest := h.V2
	h.V2 = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("If-None-Match")
		if strings.HasSuffix(r.URL.Path, "/manifests/signed") {
			w.Write(other.Signed)
			return
		}
		honest.ServeHTTP(w, r)
	})
	h.Unlock()
	notice := func() {
		h.Conn.Publish(wire.RequestSubject("gw-1", wire.VerbNotice), []byte(`{"generation":9}`))
	}
	b.until("the alarm", func() bool { notice(); return b.status().Refused != nil })
	h.Lock()
	h.V2 = honest
	h.Unlock()
	b.publish(2, app("a", "2"))
	b.until("calm", func() bool { notice(); return b.status().Refused == nil && b.runs("a", "2") })
	old := b.signWith(1, func(*nodestate.State) {}, app("a", "1"))
	h.Lock()
	h.V2 = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("If-None-Match")
		if strings.HasSuffix(r.URL.Path, "/manifests/signed") {
			w.Write(old.Signed)
			return
		}
		honest.ServeHTTP(w, r)
	})
	h.Unlock()
	b.until("the alarm of an old state", func() bool { notice(); return b.status().Refused != nil })
	if !b.runs("a", "2") {
		t.Error("it went back to an old state at the word of a hub")
	}
	h.Lock()
	h.V2 = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	h.Unlock()
	b.until("it to be told", func() bool { notice(); return strings.Contains(b.status().Link.Error, "more than") })
	if !b.runs("a", "2") {
		t.Error("not what it ran")
	}
	h.Lock()
	h.V2 = honest
	h.Unlock()
	b.publish(3, app("a", "3"))
	b.until("calm", func() bool { notice(); return b.status().Refused == nil && b.runs("a", "3") })
}

// The hub's clock, or the node's, may be off by years.
func TestClocks(t *testing.T) {
	for name, now := range map[string]time.Time{"1970": time.Unix(60, 0), "an hour ahead": time.Now().Add(time.Hour), "an hour behind": time.Now().Add(-50 * time.Minute)} {
		t.Run(name, func(t *testing.T) {
			b, h := withHub(t)
			h.Behind = time.Hour
			b.cfg.Now = func() time.Time { return now }
			h.Tokens["t"] = true
			o := b.options(h, "t")
			o.Now = b.cfg.Now
			j, err := edge.Join(t.Context(), b.cfg.Dir, o)
			if err != nil {
				t.Fatal(err)
			}
			b.key = j.PublicKey
			h.Approve(j.PublicKey, "gw-1")
			b.publish(1, app("a", "1"))
			b.start()
			b.good(1)
			b.until("the live connection", func() bool { return b.status().Hub.Connected })
		})
	}
}

// Several hubs are tried in turn.
func TestSecondHub(t *testing.T) {
	b, h := withHub(t)
	h.Tokens["t"] = true
	o := b.options(h, "t")
	o.Hubs = []string{"https://127.0.0.1:1", h.URL}
	j, err := edge.Join(t.Context(), b.cfg.Dir, o)
	if err != nil {
		t.Fatal(err)
	}
	b.key = j.PublicKey
	h.Approve(j.PublicKey, "gw-1")
	b.publish(1, app("a", "1"))
	b.start()
	b.good(1)
	b.until("the live connection", func() bool { return b.status().Hub.Connected })
}

// Images come through the hub: what leads there is written, renewed, and taken away.
func TestMirrors(t *testing.T) {
	b, h := joined(t)
	h.Images = []string{"registry.example:5000", "../../etc", "mine.example"}
	mine := filepath.Join(b.cfg.HostsDir, "mine.example", "hosts.toml")
	os.MkdirAll(filepath.Dir(mine), 0o700)
	os.WriteFile(mine, []byte("server = \"https://mine.example\"\n"), 0o644)
	b.start()
	name := filepath.Join(b.cfg.HostsDir, "registry.example:5000", "hosts.toml")
	b.until("the settings", func() bool {
		c, err := os.ReadFile(name)
		return err == nil && strings.Contains(string(c), "Bearer ") && strings.Contains(string(c), h.URL)
	})
	if fi, _ := os.Stat(name); fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
	if c, _ := os.ReadFile(mine); string(c) != "server = \"https://mine.example\"\n" {
		t.Errorf("a person's file: %s", c)
	}
	entries, _ := os.ReadDir(b.cfg.HostsDir)
	if len(entries) != 2 {
		t.Errorf("%v", entries)
	}
}

func TestAskIsOfTheHub(t *testing.T) {
	b, h := withHub(t)
	b.join(h)
	var p *auth.Problem
	if _, err := edge.Ask(context.Background(), b.cfg.Dir); !errors.As(err, &p) || p.Type != wire.ProblemPending {
		t.Errorf("%v", err)
	}
}
