package console

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"selvedge/reconciler/access"
	"selvedge/reconciler/feed"
	"selvedge/reconciler/hub/client"
	"selvedge/schema/nodestate"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
	"selvedge/test/hubproc"
)

// TestMain is the hub's process, too.
func TestMain(m *testing.M) {
	hubproc.Be()
	code := m.Run()
	if shared != nil {
		shared.stop()
	}
	os.Exit(code)
}

// bed is a hub with its roster.
type bed struct {
	t     testing.TB
	dir   string
	feed  *feed.Feed
	door  *door
	from  string // the feed
	url   string
	pin   string
	hub   *exec.Cmd
	log   *hubproc.Log
	fleet roster.Fleet
	nodes map[string]roster.Node
	keys  map[string]nkeys.KeyPair
}

const (
	line1 = "folders/munich/line-1"
	line2 = "folders/munich/line-2"
	lab   = "folders/berlin/lab"
)

func token(who string) string { return access.TokenPrefix + (who + strings.Repeat("0", 43))[:43] }

// newBed starts a hub that knows nodes, with ana, who is admin, and vera, who looks on.
func newBed(t testing.TB, nodes map[string]roster.Node) *bed {
	t.Helper()
	dir, err := os.MkdirTemp("", "svc") // a socket's path is short
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bed{t: t, dir: dir, nodes: nodes, keys: map[string]nkeys.KeyPair{}, log: &hubproc.Log{}}
	for name, n := range nodes {
		if n.PublicKey == "none" {
			n.PublicKey = ""
			nodes[name] = n
			continue
		}
		key, err := nkeys.CreateUser()
		must(t, err)
		n.PublicKey, err = key.PublicKey()
		must(t, err)
		b.keys[name], nodes[name] = key, n
	}
	b.fleet = roster.Fleet{
		Platform: "Acme Robotics", Fingerprint: nodestate.Digest([]byte("root")), Seen: commit(4, "Limit the camera's memory"), InForce: commit(4, "Limit the camera's memory"),
		Scopes: map[string]roster.Scope{"": {Kind: "platform"}, "folders/munich": {Kind: "folder"}, "folders/berlin": {Kind: "folder"}},
		Bindings: []roster.Binding{
			{Name: "admins", Role: access.Admin, Subjects: []string{"user:ana"}},
			{Name: "watchers", Scope: "folders/munich", Role: access.Viewer, Subjects: []string{"user:vera"}},
		},
		Identities: map[string]roster.Identity{},
	}
	for who, end := range map[string]time.Duration{"ana": 90 * 24 * time.Hour, "vera": 24 * time.Hour, "old": -time.Hour} {
		b.fleet.Identities[who] = roster.Identity{Kind: "user", Tokens: map[string]roster.Token{"laptop": {Hash: access.Hash(token(who)), Expires: time.Now().Add(end)}}}
	}
	if len(nodes) > 0 {
		b.fleet.Scopes[line1] = roster.Scope{Kind: "workspace", Title: "Line 1"}
		b.fleet.Scopes[line2] = roster.Scope{Kind: "workspace", Title: "Line 2"}
		b.fleet.Scopes[lab] = roster.Scope{Kind: "workspace"}
		b.fleet.Guides = map[string]roster.Guide{lab + "/lab-box": {Name: "lab-box", Scope: lab, Prefix: "lab-", Labels: map[string]string{"site": "berlin"}, MaxNodes: 20}}
		b.fleet.Apps = map[string][]roster.App{line1: {{Name: "camera", Scope: "folders/munich"}, {Name: "mqtt", Scope: line1}}}
	}
	b.feed, b.from = hubproc.Feed(t, dir, http.NotFoundHandler())
	must(t, b.feed.Tell(roster.Event{Reset: true, Fleet: &b.fleet, Nodes: maps.Clone(b.nodes), Trust: nodestate.Digest([]byte("trust"))}))

	b.door = newDoor(t)
	b.url = "https://" + b.door.addr
	t.Cleanup(func() {
		b.end(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("the hub's log ends with:\n%s", b.log.Tail(6000))
		}
	})
	b.start()
	return b
}

func commit(n int, subject string) roster.Commit {
	return roster.Commit{Hash: fmt.Sprintf("%x", n*2654435761) + strings.Repeat(fmt.Sprint(n), 30), Subject: subject, Author: "Ana Kern <ana@acme.example>", Time: time.Now().Add(-time.Duration(10-n) * time.Minute)}
}

func (b *bed) start() {
	b.t.Helper()
	addr := hubproc.FreeAddr(b.t)
	b.hub, b.pin = hubproc.Start(b.t, hubproc.Settings{DataDir: filepath.Join(b.dir, "hub"), Listen: addr, URLs: []string{b.url}, Reconciler: b.from}, b.log, time.Minute)
	b.door.lead(addr)
	b.until(time.Minute, "ana to be known", func() bool {
		_, err := b.client().Whoami(b.t.Context())
		return err == nil
	})
}

func (b *bed) end(s syscall.Signal) {
	b.door.lead("")
	hubproc.End(b.hub, s)
	b.hub = nil
}

// tell changes the fleet in Git.
func (b *bed) tell(e roster.Event) {
	b.t.Helper()
	must(b.t, b.feed.Tell(e))
}

func (b *bed) client() *client.Client {
	b.t.Helper()
	c, err := client.New(client.Config{URL: b.url, Token: token("ana"), CA: b.pin, Attempts: 1, Timeout: 10 * time.Second})
	must(b.t, err)
	b.t.Cleanup(c.Close)
	return c
}

func (b *bed) until(most time.Duration, what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(most); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("waited %v for %s in vain", most, what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// granted is what nodes let the cloud do.
var granted = nodestate.Remote{Logs: true, Restart: true, Exec: true}

// plant is a fleet in which something of everything is the case.
func plant() map[string]roster.Node {
	nodes := map[string]roster.Node{}
	put := func(name, workspace string, labels map[string]string) {
		nodes[name] = roster.Node{Workspace: workspace, Labels: labels, Generation: 12, Digest: nodestate.Digest([]byte(name)), Commit: commit(4, "").Hash, Apps: []string{"camera", "mqtt"}, Remote: granted}
	}
	for i := range 6 {
		put(fmt.Sprintf("line1-gw-%02d", i+1), line1, map[string]string{"site": "munich", "role": "gateway", "line": "1"})
	}
	for i := range 4 {
		put(fmt.Sprintf("line2-gw-%02d", i+1), line2, map[string]string{"site": "munich", "role": "gateway", "line": "2"})
	}
	put("lab-7kq2m9", lab, map[string]string{"site": "berlin"})
	put("lab-new", lab, nil)
	n := nodes["lab-new"]
	n.PublicKey = "none"
	nodes["lab-new"] = n
	return nodes
}

// hostile is a text as somebody who owns a node would write it.
var hostile = `<script>document.title="owned"</script><img src=x onerror="document.title='owned'"> &quot;` + "\x1b[31mred\x07\u202egnp.exe " + strings.Repeat("W", 3000)

// story is what the nodes of plant report.
func story(name string, now time.Time) wire.Status {
	gen := int64(12)
	ref := func(g int64) wire.Ref {
		return wire.Ref{Generation: g, Digest: nodestate.Digest([]byte(name)), Commit: commit(4, "").Hash}
	}
	cpu := 0.35 + float64(len(name)%5)/10 + float64(now.Unix()%7)/50
	s := wire.Status{
		Well: true, Remote: granted, Agent: wire.Agent{Version: "v0.3.0", Started: now.Add(-50 * time.Hour).Truncate(time.Hour), Runtime: "containerd 1.7.24", Memory: 31 << 20},
		Machine: wire.Machine{Hostname: name, OS: "Debian GNU/Linux 12 (bookworm)", Kernel: "6.1.0-28-amd64", Arch: "amd64", CPUs: 4, Memory: 8 << 30, Booted: now.Add(-400 * time.Hour).Truncate(time.Hour)},
		State:   wire.State{Pulled: ref(gen), Current: ref(gen), LastGood: ref(gen), Phase: "idle", Contact: now},
		Usage:   &wire.Usage{CPU: cpu, Load: 0.5, Memory: 2<<30 + now.Unix()%9<<26, MemoryLimit: 8 << 30, Disk: 5 << 30, DiskLimit: 30 << 30, NetRx: 12345678, NetTx: 87654321},
		Apps: []wire.App{
			{Name: "camera", Healthy: true, Containers: []wire.Instance{
				{Name: "camera", State: "running", Healthy: true, Since: now.Add(-26 * time.Hour).Truncate(time.Hour), Image: "registry.internal.acme.example:5000/vision/pipelines/camera-inference-server:2026.11.4@" + nodestate.Digest([]byte("c")), Usage: &wire.Usage{CPU: cpu / 2, Memory: 310 << 20, MemoryLimit: 512 << 20}},
				{Name: "uploader", State: "running", Healthy: true, Since: now.Add(-3 * time.Hour).Truncate(time.Hour), Restarts: 2, Image: "registry.acme.example/uploader@" + nodestate.Digest([]byte("u")), Usage: &wire.Usage{CPU: 0.03, Memory: 48 << 20, MemoryLimit: 64 << 20}},
			}},
			{Name: "mqtt", Healthy: true, Containers: []wire.Instance{{Name: "mqtt", State: "running", Healthy: true, Since: now.Add(-400 * time.Hour).Truncate(time.Hour), Image: "docker.io/library/eclipse-mosquitto@" + nodestate.Digest([]byte("m")), Usage: &wire.Usage{CPU: 0.01, Memory: 9 << 20, MemoryLimit: 64 << 20}}}},
		},
	}
	switch name {
	case "line1-gw-03": // the newest generation failed
		s.Well, s.Why = false, "generation 12 was rejected: camera was not healthy within 60s; generation 11 runs"
		s.State.Current, s.State.LastGood, s.State.Phase = ref(11), ref(11), "rolledback"
		s.State.Rejected = []wire.Rejected{{Generation: 12, At: now.Add(-4 * time.Minute).Truncate(time.Minute), Reason: "camera was not healthy within 60s: probe GET /healthz: connection refused"}}
		s.Conditions = []wire.Condition{{Type: wire.ConditionRejected, Message: "generation 12 failed here", Since: now.Add(-4 * time.Minute).Truncate(time.Minute)}}
	case "line1-gw-05":
		s.Well, s.Why = false, "camera/uploader: exited with code 137"
		c := &s.Apps[0].Containers[1]
		s.Apps[0].Healthy, c.State, c.Healthy, c.ExitCode, c.Restarts, c.Problem, c.Usage = false, "exited", false, 137, 14, "killed: out of memory (64 MiB)", nil
		s.Conditions = []wire.Condition{{Type: wire.ConditionDiskPressure, Message: "94% of the agent's file system is in use", Since: now.Add(-3 * time.Hour).Truncate(time.Hour)}}
	case "line2-gw-04": // taken over
		s.Well, s.Why = false, hostile
		s.Machine.Hostname, s.Agent.Version = hostile[:200], hostile[:90]
		s.Apps[0].Name, s.Apps[0].Containers[0].Name, s.Apps[0].Containers[0].Problem = hostile[:60], hostile[:80], hostile
	}
	return s
}
