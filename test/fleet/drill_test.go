package fleet

import (
	"context"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
	"selvedge/schema/nodestate"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
	"selvedge/test/swarm"
)

func crowd(t *testing.T) int {
	if testing.Short() {
		return 20
	}
	return 300 / patience
}

// ready counts nodes that are connected and heard of since a time.
func (b *bed) ready(since time.Time) (n int) {
	c := b.client("ana")
	all, err := c.Nodes(b.t.Context(), client.Query{})
	if err != nil {
		return 0
	}
	for _, x := range all.Items {
		if x.Connected && x.LastSeen.After(since) {
			n++
		}
	}
	return n
}

// TestHubKilled kills the hub while nodes report, and needs all of them back, with what was
// known, and changes noticed that were made meanwhile.
func TestHubKilled(t *testing.T) {
	n := crowd(t)
	b := newBed(t, n)
	var noticed atomic.Int64
	b.swarm(swarm.Config{Interval: 500 * time.Millisecond, Retry: 2 * time.Second, Rate: 2000, Notice: func(_ string, w wire.Notice, _ time.Time) {
		if w.Generation == 2 {
			noticed.Add(1)
		}
	}})
	b.until(time.Minute, "all to be heard of", func() bool { return b.ready(time.Time{}) == n })
	rounds := 3
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		b.end(syscall.SIGKILL)
		if round == 1 { // away, and a commit takes effect
			b.change("node-1", func(x *roster.Node) { x.Generation = 2 })
		}
		b.start()
		began := time.Now()
		b.until(time.Minute, "all to be back", func() bool { return b.ready(began) == n })
	}
	if got := b.node("node-1").Wanted.Generation; got != 2 {
		t.Errorf("the hub wants generation %d of node-1, which Git has at 2", got)
	}
	b.change("node-2", func(x *roster.Node) { x.Generation = 2 })
	b.until(10*time.Second, "a notice after all of it", func() bool { return noticed.Load() > 0 })
}

// change tells one node's change, as a commit would.
func (b *bed) change(name string, change func(*roster.Node)) {
	n := b.nodes[name]
	change(&n)
	b.nodes[name] = n
	b.tell(roster.Event{Nodes: map[string]roster.Node{name: n}})
}

// TestRemoved takes a node out of Git: its connection ends, its tokens open nothing, and when
// it is put back it is there again by itself.
func TestRemoved(t *testing.T) {
	b := newBed(t, 3)
	s := b.swarm(swarm.Config{Interval: 500 * time.Millisecond, Retry: 500 * time.Millisecond})
	bearer := b.bearer("node-1")
	if code, text := b.ask("GET", "/v2/", bearer, nil); code != 200 {
		t.Fatalf("before: %d %s", code, text)
	}
	gone := b.nodes["node-1"]
	b.tell(roster.Event{Removed: []string{"node-1"}})
	b.until(10*time.Second, "its connection to end", func() bool { return s.Connected() == 2 })
	if code, _ := b.ask("GET", "/v2/", bearer, nil); code != 401 && code != 403 {
		t.Errorf("the bearer of a node that Git does not list: %d", code)
	}
	if _, err := b.client("ana").Node(t.Context(), "node-1"); client.Reason(err) != hubapi.ReasonNotFound {
		t.Errorf("it is listed still: %v", err)
	}
	time.Sleep(2 * time.Second)
	if s.Connected() != 2 {
		t.Errorf("%d are connected; it came back though Git does not list it", s.Connected())
	}
	b.tell(roster.Event{Nodes: map[string]roster.Node{"node-1": gone}})
	b.until(90*time.Second, "it to be back", func() bool { return s.Connected() == 3 })
}

// TestNewKey changes a node's key in Git: who has the old one is out at once.
func TestNewKey(t *testing.T) {
	b := newBed(t, 2)
	old := b.members("node-0")
	s := b.swarm(swarm.Config{Members: old})
	b.newNode("node-0")
	b.tell(roster.Event{Nodes: map[string]roster.Node{"node-0": b.nodes["node-0"]}})
	b.until(10*time.Second, "the old key to be out", func() bool { return s.Connected() == 0 })
	b.swarm(swarm.Config{Members: b.members("node-0")})
	if n := b.node("node-0"); !n.Connected {
		t.Errorf("the new key does not open: %+v", n)
	}
}

// TestToken takes a person's token out of Git while a log is open.
func TestToken(t *testing.T) {
	b := newBed(t, 1)
	b.swarm(swarm.Config{Granted: nodestate.Remote{Logs: true}, Logs: func(ctx context.Context, _ wire.LogsRequest, w io.Writer) error {
		for ctx.Err() == nil {
			if _, err := io.WriteString(w, "a line\n"); err != nil {
				return err
			}
			time.Sleep(10 * time.Millisecond)
		}
		return ctx.Err()
	}})
	ended := make(chan error, 1)
	lines := make(chan struct{}, 1)
	go func() {
		ended <- b.client("ana").Logs(t.Context(), "node-0", client.LogOptions{Agent: true, Follow: true}, writer(func(p []byte) (int, error) {
			select {
			case lines <- struct{}{}:
			default:
			}
			return len(p), nil
		}), nil)
	}()
	<-lines
	fleet := b.fleet
	fleet.Identities = maps.Clone(fleet.Identities)
	delete(fleet.Identities, "ana")
	b.tell(roster.Event{Fleet: &fleet})
	select {
	case err := <-ended:
		if client.Reason(err) != hubapi.ReasonUnauthorized {
			t.Errorf("the log ended with %v, not for the token", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the log of somebody whose token was taken away goes on")
	}
	if code, _ := b.ask("GET", "/api/v1/nodes", b.tokens["ana"], nil); code != 401 {
		t.Errorf("a token that Git does not list: %d", code)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// TestSlowReader opens a large log and reads nothing: the hub's memory stays, and others are served.
func TestSlowReader(t *testing.T) {
	b := newBed(t, 2)
	var poured atomic.Int64
	b.swarm(swarm.Config{Granted: nodestate.Remote{Logs: true}, Logs: func(ctx context.Context, r wire.LogsRequest, w io.Writer) error {
		chunk := []byte(strings.Repeat("a line of a log\n", 4096))
		for n := 0; n < 100<<20; n += len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return err
			}
			poured.Add(int64(len(chunk)))
		}
		return nil
	}})
	before := rss(t, b.hub.Process.Pid)
	stop, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 10 {
		go b.client("ana").Logs(stop, "node-0", client.LogOptions{Agent: true}, writer(func(p []byte) (int, error) { // it is cut off
			<-stop.Done()
			return 0, stop.Err()
		}), nil)
	}
	b.until(20*time.Second, "the logs to begin", func() bool { return poured.Load() > 1<<20 })
	time.Sleep(2 * time.Second)
	if got := poured.Load(); got > 200<<20 {
		t.Errorf("nodes sent %d MB to readers that take nothing", got>>20)
	}
	if grown := rss(t, b.hub.Process.Pid) - before; grown > 150<<20 {
		t.Errorf("the hub grew by %d MB for readers that take nothing", grown>>20)
	}
	var size int64
	must(t, b.client("ana").Logs(t.Context(), "node-1", client.LogOptions{Agent: true}, writer(func(p []byte) (int, error) {
		size += int64(len(p))
		return len(p), nil
	}), nil))
	if size < 100<<20 {
		t.Errorf("%d bytes of 100 MB came beside them", size)
	}
}

// TestDenied asks a node for what its state does not grant.
func TestDenied(t *testing.T) {
	b := newBed(t, 2)
	b.swarm(swarm.Config{}) // the signed states grant nothing, whatever the roster says
	c := b.client("ana")
	err := c.Logs(t.Context(), "node-0", client.LogOptions{Agent: true}, io.Discard, nil)
	if client.Reason(err) != hubapi.ReasonDenied {
		t.Errorf("logs: %v", err)
	}
	if err := c.Restart(t.Context(), "node-0", hubapi.RestartRequest{App: "app-0"}); client.Reason(err) != hubapi.ReasonDenied {
		t.Errorf("restart: %v", err)
	}
	if _, err := c.Exec(t.Context(), "node-0", client.ExecOptions{App: "app-0", Command: []string{"true"}}, client.Streams{}); client.Reason(err) != hubapi.ReasonDenied {
		t.Errorf("exec: %v", err)
	}
	b.change("node-1", func(n *roster.Node) { n.Remote = nodestate.Remote{} })
	b.until(10*time.Second, "the hub to know", func() bool {
		err := c.Restart(t.Context(), "node-1", hubapi.RestartRequest{App: "app-0"})
		return client.Reason(err) == hubapi.ReasonDenied && strings.Contains(err.Error(), "remote")
	})
}

// TestStrangers sees nothing of others' scopes, and acts nowhere without the role.
func TestStrangers(t *testing.T) {
	b := newBed(t, 2)
	b.swarm(swarm.Config{Granted: nodestate.Remote{Restart: true}})
	vic := b.client("vic") // viewer elsewhere
	all, err := vic.Nodes(t.Context(), client.Query{})
	must(t, err)
	if len(all.Items) != 0 {
		t.Errorf("vic sees %d nodes of others", len(all.Items))
	}
	if _, err := vic.Node(t.Context(), "node-0"); client.Reason(err) != hubapi.ReasonNotFound {
		t.Errorf("vic, a node of others: %v", err)
	}
	vera := b.client("vera") // viewer here
	if _, err := vera.Node(t.Context(), "node-0"); err != nil {
		t.Errorf("vera, who may see it: %v", err)
	}
	err = vera.Restart(t.Context(), "node-0", hubapi.RestartRequest{App: "app-0"})
	if client.Reason(err) != hubapi.ReasonForbidden {
		t.Errorf("vera restarts: %v", err)
	}
	for _, path := range []string{"/metrics", "/api/v1/audit", "/api/v1/pending"} {
		for who, token := range map[string]string{"nobody": "", "a liar": "selvedge_" + strings.Repeat("x", 43), "a node": b.bearer("node-0")} {
			if code, text := b.ask("GET", path, token, nil); code != 401 {
				t.Errorf("%s at %s: %d %.200s", who, path, code, text)
			}
		}
	}
	if code, _ := b.ask("GET", "/metrics", b.tokens["vera"], nil); code != 403 {
		t.Errorf("the fleet's metrics for a viewer of a part: %d", code)
	}
	if code, text := b.ask("GET", "/metrics", b.tokens["ana"], nil); code != 200 || !strings.Contains(text, "selvedge_fleet_nodes") {
		t.Errorf("metrics: %d %.200s", code, text)
	}
}

// TestFleetChange needs every node to hear of a change of all.
func TestFleetChange(t *testing.T) {
	n := crowd(t)
	b := newBed(t, n)
	var noticed atomic.Int64
	b.swarm(swarm.Config{Rate: 2000, Notice: func(_ string, w wire.Notice, _ time.Time) {
		if w.Generation == 7 {
			noticed.Add(1)
		}
	}})
	e := roster.Event{Nodes: map[string]roster.Node{}, Changes: []roster.Change{{Commit: commit(2), At: time.Now(), Nodes: map[string]int64{}}}}
	for name, x := range b.nodes {
		x.Generation = 7
		e.Nodes[name] = x
		e.Changes[0].Nodes[name] = 7
	}
	b.tell(e)
	b.until(30*time.Second, "all to hear of it", func() bool { return int(noticed.Load()) == n })
	b.until(30*time.Second, "all to report it", func() bool {
		c, err := b.client("ana").Change(t.Context(), commit(2).Hash)
		return err == nil && c.Touched == n && c.Done == n
	})
	s, err := b.client("ana").Summary(t.Context())
	must(t, err)
	if s.Converged != n {
		t.Errorf("%d of %d converged: %s", s.Converged, n, fmt.Sprint(s.Status))
	}
}
