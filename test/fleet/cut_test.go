package fleet

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
	"selvedge/test/swarm"
)

// shift moves the hub's clock.
func (b *bed) shift(d time.Duration) {
	b.t.Helper()
	name := filepath.Join(b.dir, "clock")
	must(b.t, os.WriteFile(name+".new", []byte(d.String()), 0o600))
	must(b.t, os.Rename(name+".new", name))
}

// figure is one of the hub's metrics; labels may follow the name.
func (b *bed) figure(name string) float64 {
	b.t.Helper()
	code, text := b.ask("GET", "/metrics", b.tokens["ana"], nil)
	if code != 200 {
		b.t.Fatalf("metrics: %d %.200s", code, text)
	}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			must(b.t, err)
			return v
		}
	}
	b.t.Fatalf("no metric %s", name)
	return 0
}

// are counts nodes in a state; -1: the hub did not tell.
func (b *bed) are(r hubapi.Readiness) int {
	s, err := b.client("ana").Summary(b.t.Context())
	if err != nil {
		return -1
	}
	return s.Status[r]
}

// pour writes lines until the reader leaves.
func pour(ctx context.Context, _ wire.LogsRequest, w io.Writer) error {
	for ctx.Err() == nil {
		if _, err := io.WriteString(w, "a line\n"); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return ctx.Err()
}

// TestLink cuts the link of all nodes, makes it flap, half-open and slow. Nodes come back by
// themselves, the hub says since when it knows nothing of them, streams end with an error,
// and nothing of all that stays in the hub.
func TestLink(t *testing.T) {
	n := crowd(t) / 10
	b := newBed(t, n)
	s := b.swarm(swarm.Config{Hubs: []string{b.link.url}, Runs: 1, Interval: 300 * time.Millisecond, Retry: 300 * time.Millisecond, Ping: 500 * time.Millisecond, Rate: 2000,
		Granted: nodestate.Remote{Logs: true, Restart: true, Exec: true}, Logs: pour})
	b.until(20*time.Second, "all to be ready", func() bool { return b.are(hubapi.Ready) == n })
	files, routines := b.figure("process_open_fds"), b.figure("go_goroutines")
	back := func(after string) {
		t.Helper()
		b.link.set(through)
		began := time.Now()
		b.until(30*time.Second, "all to be back after "+after, func() bool { return s.Connected() == n && b.ready(began) == n && b.are(hubapi.Ready) == n })
		t.Logf("all are back %v after %s", time.Since(began).Round(10*time.Millisecond), after)
	}

	// cut, with a log open
	ended := make(chan error, 1)
	began := make(chan struct{}, 1)
	go func() {
		ended <- b.client("ana").Logs(t.Context(), "node-0", client.LogOptions{Agent: true}, writer(func(p []byte) (int, error) {
			select {
			case began <- struct{}{}:
			default:
			}
			return len(p), nil
		}), nil)
	}()
	<-began
	seen := time.Now()
	b.link.set(gone)
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a log whose node was cut off ended as if it were whole")
		}
	case <-time.After(patience * 10 * time.Second):
		t.Error("a log whose node was cut off goes on")
	}
	if err := b.client("ana").Restart(t.Context(), "node-0", hubapi.RestartRequest{App: "app-0"}); client.Reason(err) != hubapi.ReasonOffline {
		t.Errorf("a restart on a node that is cut off: %v", err)
	}
	if got := b.node("node-0"); got.Connected || got.Status != hubapi.Ready {
		t.Errorf("just cut off: %s, connected %v", got.Status, got.Connected)
	}
	b.shift(wire.UnknownAfter) // as if the cut had lasted
	b.until(10*time.Second, "all to be unknown", func() bool { return b.are(hubapi.Unknown) == n })
	got := b.node("node-0")
	if d := got.LastSeen.Sub(seen); d > patience*5*time.Second || d < -patience*5*time.Second {
		t.Errorf("last seen %v after the cut", d)
	}
	if want := "no status since " + got.LastSeen.UTC().Format("2006-01-02 15:04:05"); !strings.Contains(got.Why, want) {
		t.Errorf("why is %q, not %q", got.Why, want)
	}
	b.shift(0) // or each clock would be off
	back("a cut")

	for range 15 {
		b.link.set(gone)
		time.Sleep(100 * time.Millisecond)
		b.link.set(through)
		time.Sleep(100 * time.Millisecond)
	}
	back("flapping")

	b.link.set(mute)
	b.until(10*time.Second, "nodes to notice a half-open link", func() bool { return s.Connected() == 0 })
	b.link.set(gone) // what a NAT does in the end
	back("a half-open link")

	b.link.set(drip)
	slow := time.Now()
	b.until(20*time.Second, "statuses over a slow link", func() bool { return b.ready(slow) == n })
	back("a slow link")

	b.until(30*time.Second, "files and goroutines to be as before", func() bool {
		return b.figure("process_open_fds") <= files+5 && b.figure("go_goroutines") <= routines*1.1+10
	})
	t.Logf("files %v → %v, goroutines %v → %v", files, b.figure("process_open_fds"), routines, b.figure("go_goroutines"))
}

// TestNodesClocks has nodes whose clocks are an hour off: they are let in, they report, and
// the hub names it.
func TestNodesClocks(t *testing.T) {
	b := newBed(t, 3)
	for i, ahead := range []time.Duration{time.Hour, -time.Hour, 0} {
		b.swarm(swarm.Config{Members: b.members(fmt.Sprint("node-", i)), Clock: ahead, Interval: 200 * time.Millisecond, Runs: 1})
	}
	b.until(20*time.Second, "two to be noticed", func() bool {
		return b.clockOff("node-0") != "" && b.clockOff("node-1") != ""
	})
	for node, want := range map[string]string{"node-0": "ahead", "node-1": "behind"} {
		n := b.node(node)
		if !strings.Contains(b.clockOff(node), want) || !strings.Contains(strings.TrimPrefix(n.ClockSkew, "-"), "h") && !strings.Contains(n.ClockSkew, "59m") {
			t.Errorf("%s: %q, skew %s", node, b.clockOff(node), n.ClockSkew)
		}
		if n.Status == hubapi.Unknown || !n.Connected {
			t.Errorf("%s: %s, last seen %v", node, n.Status, n.LastSeen)
		}
		since := time.Now()
		b.until(10*time.Second, "it to go on", func() bool { return b.node(node).LastSeen.After(since) })
	}
	if off := b.clockOff("node-2"); off != "" {
		t.Error("a clock that is right:", off)
	}
}

// clockOff is what the hub says of a node's clock.
func (b *bed) clockOff(node string) string {
	for _, c := range b.node(node).Conditions {
		if c.Type == wire.ConditionClockOff {
			return c.Message
		}
	}
	return ""
}

// TestHubsClock sets the hub's clock an hour off, both ways, while nodes report.
func TestHubsClock(t *testing.T) {
	b := newBed(t, 2)
	b.swarm(swarm.Config{Interval: 200 * time.Millisecond, Runs: 1})
	b.until(20*time.Second, "both to be ready", func() bool { return b.are(hubapi.Ready) == 2 })
	for _, d := range []time.Duration{time.Hour, -time.Hour} {
		b.shift(d)
		b.until(20*time.Second, "the clocks to differ", func() bool { return b.clockOff("node-0") != "" && b.clockOff("node-1") != "" })
		if n := b.node("node-0"); !n.Connected || n.Status == hubapi.Unknown {
			t.Errorf("the hub's clock is off by %v: %s, %s", d, n.Status, n.Why)
		}
		bearer := b.bearer("node-0") // nodes are let in, as are people
		if code, text := b.ask("GET", "/v2/", bearer, nil); code != 200 {
			t.Errorf("off by %v: %d %s", d, code, text)
		}
		b.shift(0)
		b.until(20*time.Second, "all to be well again", func() bool {
			return b.clockOff("node-0") == "" && b.clockOff("node-1") == "" && b.are(hubapi.Ready) == 2
		})
	}
}
