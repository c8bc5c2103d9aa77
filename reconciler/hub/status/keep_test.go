package status

import (
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

func TestRestart(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprint("killed ", killed), func(t *testing.T) {
			w := newWorld(t)
			nodes := map[string]roster.Node{"gw-1": wanted(7), "gw-2": wanted(7), "gw-3": wanted(7)}
			w.want(nodes)
			w.report(good("gw-2", 1, 7, w.now))
			w.pass(time.Hour)
			for i := range uint64(100) {
				w.pass(9 * time.Second)
				w.report(good("gw-1", i+1, 7, w.now))
				w.pass(time.Second)
				w.Presence("gw-1", true)
				if err := w.save(false); err != nil {
					t.Fatal(err)
				}
			}
			w.Events("gw-1", []byte(`{"node":"gw-1","epoch":"x","events":[{"seq":1,"reason":"Started","severity":"info","message":"m"}]}`))
			if err := w.save(false); err != nil {
				t.Fatal(err)
			}
			before, _ := w.Node("gw-1")
			last, _ := w.EventList(EventQuery{Limit: 1})
			w.restart(killed)
			w.pass(20 * time.Second)
			w.want(nodes)

			n, _ := w.Node("gw-1")
			if n.Status != hubapi.Ready || n.LastSeen.Sub(before.LastSeen).Abs() > time.Second || n.Report.Seq+6 < before.Report.Seq || n.Connected {
				t.Errorf("gw-1 is %s (%s), last seen %v, then %v; seq %d, then %d", n.Status, n.Why, before.LastSeen, n.LastSeen, before.Report.Seq, n.Report.Seq)
			}
			if w.status("gw-2") != "Unknown" || w.status("gw-3") != "Unknown" {
				t.Error("those that were silent before:", w.status("gw-2"), w.status("gw-3"))
			}
			if m, _ := w.Metrics("gw-1", time.Time{}); len(m.Node) < 13 || len(m.Instances["web/main"]) < 13 || !killed && len(m.Node) < 60 {
				t.Errorf("history: %d and %d samples", len(m.Node), len(m.Instances["web/main"]))
			}
			w.Events("gw-1", []byte(`{"node":"gw-1","epoch":"x","events":[{"seq":1,"reason":"Started","message":"m"},{"seq":2,"reason":"Stopped","message":"m"}]}`))
			w.Presence("gw-1", true)
			if got := w.reasons("gw-1"); got != "Connected Started Stopped" {
				t.Error("events:", got)
			}
			if l, _ := w.EventList(EventQuery{Limit: 1}); l.Items[0].ID <= last.Items[0].ID || len(l.Items[0].ID) != len(last.Items[0].ID) {
				t.Error("IDs do not grow:", last.Items[0].ID, l.Items[0].ID)
			}
			w.report(good("gw-1", 101, 7, w.now))
			w.pass(2 * time.Minute)
			if got := w.reasons("gw-1"); got != "Connected Started Stopped Unknown" {
				t.Error("events:", got)
			}
		})
	}
}

func TestRemovedWhileDown(t *testing.T) {
	w := newWorld(t)
	w.want(map[string]roster.Node{"gw-1": wanted(7), "gw-2": wanted(7)})
	w.report(good("gw-1", 1, 7, w.now))
	w.restart(false)
	w.want(map[string]roster.Node{"gw-2": wanted(7)})
	w.restart(false)
	w.want(map[string]roster.Node{"gw-1": wanted(7)})
	if n, _ := w.Node("gw-1"); n.Report != nil {
		t.Error("what Git removed was kept")
	}
}

// TestDiskFull lets writing fail for a while.
func TestDiskFull(t *testing.T) {
	w := newWorld(t)
	w.want(map[string]roster.Node{"gw-1": wanted(7)})
	w.Note("gw-1", wire.Event{Reason: "One"})
	b := w.collect(false)
	w.restore(b, false) // as save does when the disk takes nothing
	w.Note("gw-1", wire.Event{Reason: "Two"})
	w.report(good("gw-1", 1, 7, w.now))
	if err := w.save(false); err != nil {
		t.Fatal(err)
	}
	w.restart(true)
	w.want(map[string]roster.Node{"gw-1": wanted(7)})
	if w.reasons("gw-1") != "One Two" || w.status("gw-1") != "Ready" {
		t.Error(w.reasons("gw-1"), w.status("gw-1"))
	}
}

func TestOpenTwice(t *testing.T) {
	w := newWorld(t)
	if _, err := Open(w.cfg); err == nil {
		t.Error("two have it open")
	}
	if _, err := Open(Config{Path: t.TempDir() + "/none/x"}); err == nil {
		t.Error("no folder")
	}
	if info, err := os.Stat(w.cfg.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
}

func TestKnown(t *testing.T) {
	var k known
	for _, c := range []struct {
		seq uint64
		is  bool
	}{{5, true}, {5, false}, {3, true}, {3, false}, {4, true}, {69, true}, {5, false}, {70, true}, {6, true}, {6, false}, {260, true}, {5, false}, {4, false}, {7, true}, {7, false},
		{1000, true}, {999, true}, {700, false}, {744, false}, {745, true}, {math.MaxUint64, true}, {math.MaxUint64, false}, {1001, false}} {
		if got := k.take(c.seq); got != c.is {
			t.Errorf("%d is new: %v", c.seq, got)
		}
	}
	// against a map
	k, seen := known{}, map[uint64]bool{}
	x := uint64(1)
	for range 20000 {
		x = x*6364136223846793005 + 1442695040888963407
		seq := k.High + 1 - min(k.High, x>>32%200) + x>>60
		if got := k.take(seq); got == seen[seq] {
			t.Fatalf("%d is new: %v", seq, got)
		}
		seen[seq] = true
	}
}

func TestEventBounds(t *testing.T) {
	w := newWorld(t)
	w.want(map[string]roster.Node{"gw-1": wanted(7)})
	for i := range eventsEach + 50 {
		w.Note("gw-1", wire.Event{Severity: "info", Reason: "Tick", Message: fmt.Sprint(i)})
	}
	l, err := w.EventList(EventQuery{Node: "gw-1", Limit: 10})
	if err != nil || l.Total != eventsEach || l.Items[0].Message != fmt.Sprint(eventsEach+49) {
		t.Fatal(err, l.Total, l.Items[0].Message)
	}
	seen := 0
	for q := (EventQuery{Limit: 30}); ; {
		l, err := w.EventList(q)
		if err != nil {
			t.Fatal(err)
		}
		seen += len(l.Items)
		if q.Continue = l.Continue; q.Continue == "" {
			break
		}
	}
	if seen != eventsEach {
		t.Error("pages hold", seen)
	}
	if testing.Short() {
		return
	}
	for i := range eventsAll + 3000 {
		w.Note(fmt.Sprint("other-", i%5000), wire.Event{Severity: "error", Reason: "Tick"})
	}
	if w.journal.live > eventsAll || len(w.journal.all) > 2*eventsAll {
		t.Error(w.journal.live, len(w.journal.all))
	}
	if err := w.save(false); err != nil {
		t.Fatal(err)
	}
	w.restart(true)
	if w.journal.live < eventsAll-5 || w.journal.live > eventsAll {
		t.Error("after a restart:", w.journal.live)
	}
	if l, _ := w.EventList(EventQuery{Severity: "error"}); l.Total < eventsAll-1000 {
		t.Error(l.Total)
	}
	for _, q := range []EventQuery{{Severity: "loud"}, {After: "x"}, {Continue: "-1"}} {
		if _, err := w.EventList(q); err == nil {
			t.Errorf("%+v", q)
		}
	}
}

func TestLargeEvents(t *testing.T) {
	w := newWorld(t)
	nodes := map[string]roster.Node{}
	for i := range 400 {
		nodes[fmt.Sprint("gw-", i)] = wanted(7)
	}
	w.want(nodes)
	long := strings.Repeat("x", wire.MaxText)
	for n := range nodes {
		for range 80 {
			w.Note(n, wire.Event{Reason: "Long", Message: long})
		}
	}
	if l, _ := w.EventList(EventQuery{}); w.journal.size > bytesAll || l.Total*wire.MaxText > bytesAll || l.Total < 10000 {
		t.Error(w.journal.size, l.Total)
	}
	size := 0
	for _, l := range w.journal.nodes {
		if size += l.size; l.size > bytesEach {
			t.Error(l.size)
		}
	}
	if size != w.journal.size {
		t.Error("the sum is", size, "and not", w.journal.size)
	}
}

func TestShort(t *testing.T) {
	for _, lowest := range []int{cpuLowest, memoryLowest} {
		for f := math.Ldexp(1.01, lowest); f < math.Ldexp(1, lowest+31); f *= 1.0173 {
			if got := pack(f, lowest).unpack(lowest); math.Abs(got-f)/f > 0.0003 {
				t.Fatalf("%v becomes %v", f, got)
			}
		}
	}
	for f, want := range map[float64]float64{0: 0, -1: 0, math.NaN(): 0, 1e-9: 0, 0.25: 0.25, 1: 1, 3: 3, 4095: 4095, 1.99999: 2} {
		if got := pack(f, cpuLowest).unpack(cpuLowest); got != want {
			t.Errorf("%v becomes %v", f, got)
		}
	}
	for _, f := range []float64{1e300, math.Inf(1), math.Ldexp(1.9999999, 16)} {
		if got := pack(f, cpuLowest); got != 0xfffe {
			t.Errorf("%v becomes %x", f, got)
		}
	}
}

func TestHistory(t *testing.T) {
	w := newWorld(t)
	w.want(map[string]roster.Node{"gw-1": wanted(7)})
	for i := range uint64(700) { // nearly two hours
		w.now = w.now.Add(10 * time.Second)
		s := good("gw-1", i+1, 7, w.now)
		s.Usage.CPU = float64(i)
		for j := range 40 { // as many as a new container each second
			s.Apps[0].Containers = append(s.Apps[0].Containers, wire.Instance{Name: fmt.Sprint("c", (int(i)*7+j)%1000), Usage: &wire.Usage{CPU: 1}})
		}
		w.report(s)
	}
	m, ok := w.Metrics("gw-1", time.Time{})
	if !ok || len(m.Node) < 60+45 || len(m.Node) > 120 || len(m.Instances) > maxSeries {
		t.Fatal(ok, len(m.Node), len(m.Instances))
	}
	for i, p := range m.Node {
		if i > 0 && !p.Time.After(m.Node[i-1].Time) || i > 0 && p.CPU <= m.Node[i-1].CPU {
			t.Fatalf("sample %d: %v after %v", i, p, m.Node[i-1])
		}
	}
	if first, end := m.Node[0], m.Node[len(m.Node)-1]; w.now.Sub(first.Time) < 55*time.Minute || end.CPU != 699 || end.Memory != 1<<30 {
		t.Error(first, end)
	}
	if m, _ := w.Metrics("gw-1", w.now.Add(-5*time.Minute)); len(m.Node) < 29 || len(m.Node) > 31 {
		t.Error("of five minutes:", len(m.Node))
	}
	w.now = w.now.Add(-3 * time.Hour) // the hub's clock is set back
	w.report(good("gw-1", 1000, 7, w.now))
	if m, _ := w.Metrics("gw-1", time.Time{}); len(m.Node) != 1 {
		t.Error(len(m.Node))
	}
	if _, ok := w.Metrics("gw-9", time.Time{}); ok {
		t.Error("an unknown node has a history")
	}
}

// TestClockBackOverRestart: the hub's clock was an hour ahead, and is right when it starts again. A
// node that says nothing then is not heard of in an hour.
func TestClockBackOverRestart(t *testing.T) {
	for _, killed := range []bool{false, true} {
		w := newWorld(t)
		right := w.now
		w.now = right.Add(time.Hour)
		w.want(map[string]roster.Node{"gw-1": wanted(7)})
		w.Presence("gw-1", true)
		w.report(good("gw-1", 1, 7, w.now))
		if err := w.save(true); err != nil {
			t.Fatal(err)
		}
		if !killed {
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		} else if err := w.file.close(); err != nil {
			t.Fatal(err)
		}
		w.now = right
		w.open()
		w.want(map[string]roster.Node{"gw-1": wanted(7)})
		w.pass(10 * time.Minute)
		n, _ := w.Node("gw-1")
		if n.Status != hubapi.Unknown || n.LastSeen.After(right) {
			t.Errorf("killed %v: a node that is off is %s, last seen %v after the start", killed, n.Status, n.LastSeen.Sub(right))
		}
	}
}
