package status

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// world is a store with a clock of its own.
type world struct {
	*Store
	t   testing.TB
	cfg Config
	now time.Time
}

var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, now: start}
	w.cfg = Config{Path: filepath.Join(t.TempDir(), "status.db"), Now: func() time.Time { return w.now }, Log: slog.New(slog.DiscardHandler)}
	w.open()
	t.Cleanup(func() { w.file.close() })
	return w
}

func (w *world) open() {
	w.t.Helper()
	s, err := Open(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Store = s
}

// restart closes and opens; killed leaves out what Close would write.
func (w *world) restart(killed bool) {
	w.t.Helper()
	var err error
	if killed {
		err = w.file.close()
	} else {
		err = w.Close()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

func (w *world) pass(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(min(time.Second, end.Sub(w.now)))
		w.sweep()
	}
}

const site = "folders/munich/line-1"

func wanted(generation int64) roster.Node {
	return roster.Node{Workspace: site, PublicKey: "UABC", Generation: generation, Commit: "c0ffee", Apps: []string{"web"}, Labels: map[string]string{"region": "south", "tier": "1"}}
}

func (w *world) want(nodes map[string]roster.Node) { w.Want(true, nodes, nil) }

// good is a status of a node that runs a generation in health.
func good(node string, seq uint64, generation int64, at time.Time) *wire.Status {
	ref := wire.Ref{Generation: generation, Digest: "sha256:" + strings.Repeat("ab", 32), Commit: "c0ffee"}
	return &wire.Status{Node: node, Epoch: "e1", Seq: seq, Time: at, Well: true, Agent: wire.Agent{Version: "1.2.3", Started: at.Add(-time.Hour)},
		State: wire.State{Pulled: ref, Current: ref, LastGood: ref, Phase: "idle"},
		Usage: &wire.Usage{CPU: 0.5, Memory: 1 << 30},
		Apps: []wire.App{{Name: "web", Healthy: true, Containers: []wire.Instance{{Name: "main", Image: "registry/web@sha256:1", State: "running", Healthy: true, Restarts: 2,
			Usage: &wire.Usage{CPU: 0.25, Memory: 64 << 20}}}}}}
}

func (w *world) report(s *wire.Status) {
	w.t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Report(s.Node, b)
}

func (w *world) status(node string) string {
	w.t.Helper()
	n, ok := w.Node(node)
	if !ok {
		return "none"
	}
	return string(n.Status)
}

// reasons lists the reasons of a node's events, oldest first.
func (w *world) reasons(node string) string {
	w.t.Helper()
	l, err := w.EventList(EventQuery{Node: node, After: "0", Limit: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, e := range l.Items {
		out = append(out, e.Reason)
	}
	return strings.Join(out, " ")
}

// typical is a status of about 3 KB: six containers.
func typical(node string, seq uint64, at time.Time) []byte {
	s := good(node, seq, 7, at)
	s.Machine = wire.Machine{Hostname: node, OS: "Debian GNU/Linux 12 (bookworm)", Kernel: "6.1.0-28-amd64", Arch: "amd64", CPUs: 4, Memory: 8 << 30, Booted: at.Add(-100 * time.Hour)}
	s.Apps = nil
	for i := range 6 {
		s.Apps = append(s.Apps, wire.App{Name: fmt.Sprintf("app-%d", i), Healthy: true, Containers: []wire.Instance{{Name: "main", ID: fmt.Sprintf("%s%x", strings.Repeat("0123456789abcdef", 3), 1<<40+i),
			Image: fmt.Sprintf("registry.example.com/plant/app-%d@sha256:%s", i, strings.Repeat("ab", 32)), State: "running", Healthy: true, Since: at.Add(-time.Hour).Truncate(time.Second),
			Usage: &wire.Usage{CPU: 0.01 * float64(seq%10), Memory: int64(10+seq%5) << 20, MemoryLimit: 64 << 20, NetRx: int64(seq) * 1000, NetTx: int64(seq) * 1000}}}})
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return b
}
