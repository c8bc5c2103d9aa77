package status

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// value reads a metric whose labels have this value, or that has none.
func value(t *testing.T, w *world, name, label string) float64 {
	t.Helper()
	return metric(families(t, w), name, label)
}

func families(t *testing.T, w *world) []*dto.MetricFamily {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(w.Collectors()...)
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func metric(all []*dto.MetricFamily, name, label string) float64 {
	for _, f := range all {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (label == "" && len(m.GetLabel()) == 0 || len(m.GetLabel()) > 0 && m.GetLabel()[0].GetValue() == label) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return -1
}

func TestOrder(t *testing.T) {
	w := newWorld(t)
	w.want(map[string]roster.Node{"gw-1": wanted(7)})
	send := func(epoch string, seq uint64, cpu float64) {
		t.Helper()
		w.pass(time.Second)
		s := good("gw-1", seq, 7, w.now)
		s.Epoch, s.Usage.CPU = epoch, cpu
		w.report(s)
	}
	shows := func(what string, cpu float64) {
		t.Helper()
		if n, _ := w.Node("gw-1"); n.Usage.CPU != cpu {
			t.Errorf("%s: shows the status %v", what, n.Usage.CPU)
		}
	}
	send("a", 5, 1)
	send("a", 4, 2)
	send("a", 5, 3)
	shows("older and repeated", 1)
	send("a", 6, 4)
	shows("newer", 4)
	send("b", 1, 5)
	shows("a new start", 5)
	send("a", 7, 6)
	shows("late, of the start before", 5)
	send("b", 2, 7)
	send("b", 3, 8)
	if got := w.reasons("gw-1"); got != "AgentRestarted" {
		t.Error("events:", got)
	}
	for i := range uint64(10) { // two machines with one key
		w.pass(8 * time.Second)
		send("b", 10+i, 9)
		send("a", 10+i, 10)
	}
	shows("two agents", 9)
	if got := w.reasons("gw-1"); got != "AgentRestarted TwoAgents" {
		t.Error("events:", got)
	}
	w.pass(time.Minute) // the newer one dies: the older one is heard again
	send("a", 50, 11)
	shows("the other is gone", 11)
}

func TestFlood(t *testing.T) {
	w := newWorld(t)
	w.want(map[string]roster.Node{"gw-1": wanted(7), "gw-2": wanted(7)})
	for i := range uint64(10000) {
		w.report(good("gw-1", i+1, 7, w.now))
		if i%1000 == 0 {
			w.pass(100 * time.Millisecond)
		}
	}
	w.report(good("gw-2", 1, 7, w.now)) // the positive control
	if got := value(t, w, "selvedge_fleet_reports_total", ""); got > 30 || w.status("gw-2") != "Ready" || w.status("gw-1") != "Ready" {
		t.Errorf("%v statuses were taken; %s %s", got, w.status("gw-1"), w.status("gw-2"))
	}
	if got := w.reasons("gw-1"); got != "ReportRefused" {
		t.Error(got)
	}
	// events
	for i := range 100 {
		var l []string
		for j := range 200 {
			l = append(l, fmt.Sprintf(`{"seq":%d,"severity":"info","reason":"Spam","message":"m"}`, i*200+j+1))
		}
		w.Events("gw-1", []byte(`{"node":"gw-1","epoch":"e","events":[`+strings.Join(l, ",")+`]}`))
	}
	w.Note("gw-2", wire.Event{Severity: "info", Reason: "Quiet", Message: "one"})
	if l, _ := w.EventList(EventQuery{Limit: 1000}); l.Total > eventsEach+1 || value(t, w, "selvedge_fleet_events_total", "") > eventBurst || w.reasons("gw-2") != "Quiet" {
		t.Error(l.Total, w.reasons("gw-2"))
	}
}

// TestRoom lets nodes send as much as they may.
func TestRoom(t *testing.T) {
	w := newWorld(t)
	nodes := map[string]roster.Node{}
	for i := range 250 {
		nodes[fmt.Sprintf("gw-%03d", i)] = wanted(7)
	}
	w.want(nodes)
	empty := fmt.Sprintf(`"apps":[{"containers":[{"name":%q}%s]}]}`, strings.Repeat("x", 200<<10), strings.Repeat(",{}", wire.MaxInstance-1))
	for name := range nodes {
		w.Report(name, fmt.Appendf(nil, `{"node":%q,"epoch":"e1","seq":1,%s`, name, empty))
	}
	if w.size > leastRoom || value(t, w, "selvedge_fleet_reports_dropped_total", "full") < 20 {
		t.Error(w.size, value(t, w, "selvedge_fleet_reports_dropped_total", "full"))
	}
	for name := range nodes {
		w.report(good(name, 2, 7, w.now))
		if w.status(name) != "Ready" {
			t.Fatal("a small status was refused too")
		}
	}
}

func TestUnlisted(t *testing.T) {
	w := newWorld(t)
	w.report(good("gw-1", 1, 7, w.now)) // before the roster
	w.want(map[string]roster.Node{"gw-1": wanted(7), "gw-2": wanted(7)})
	w.report(good("gw-9", 1, 7, w.now))
	w.Events("gw-9", []byte(`{"node":"gw-9","epoch":"e","events":[{"seq":1,"reason":"X"}]}`))
	w.Presence("gw-9", true)
	if w.status("gw-9") != "none" || value(t, w, "selvedge_fleet_reports_dropped_total", "unlisted") != 3 || w.reasons("gw-9") != "" {
		t.Error("a node that Git does not have is kept")
	}
	w.report(good("gw-1", 1, 7, w.now))
	w.Presence("gw-1", true)
	w.Want(false, nil, []string{"gw-1"})
	w.Note("gw-1", wire.Event{Severity: "warning", Reason: "Revoked", Message: "removed from Git"})
	if l, _ := w.Nodes(Query{}); l.Total != 1 || w.status("gw-1") != "none" || w.reasons("gw-1") != "Connected Revoked" {
		t.Error(l.Total, w.status("gw-1"), w.reasons("gw-1"))
	}
	if l, _ := w.EventList(EventQuery{Workspace: site, Node: "gw-1"}); l.Total != 2 {
		t.Error("events of a removed node are of no workspace")
	}
	w.restart(false)
	w.want(map[string]roster.Node{"gw-2": wanted(7)})
	if w.reasons("gw-1") == "" {
		t.Error("its events went with a restart")
	}
	w.now = w.now.Add(25 * time.Hour)
	w.sweep()
	if w.reasons("gw-1") != "" {
		t.Error("its events stay for ever")
	}
	// the same name later, with another key: nothing of the one before
	w.Want(false, map[string]roster.Node{"gw-1": wanted(7)}, nil)
	if n, _ := w.Node("gw-1"); n.Report != nil {
		t.Error("a new node of an old name has a past")
	}
}

// A node may connect before the hub knows that Git has it, as after a hub's start.
func TestConnectedBeforeListed(t *testing.T) {
	w := newWorld(t)
	for range 2 {
		w.Presence("gw-1", true)
		w.Presence("gw-2", true)
		w.Presence("gw-2", false)
		both := map[string]roster.Node{"gw-1": wanted(7), "gw-2": wanted(7)}
		if unheard := w.Want(true, both, nil); fmt.Sprint(unheard) != "[gw-1]" {
			t.Error("said something that was lost:", unheard)
		}
		if unheard := w.Want(true, both, nil); len(unheard) > 0 {
			t.Error("known already:", unheard)
		}
		for name, want := range map[string]bool{"gw-1": true, "gw-2": false} {
			if n, _ := w.Node(name); n.Connected != want {
				t.Errorf("%s: connected is %v", name, n.Connected)
			}
		}
		if w.reasons("gw-1") != "Connected" || w.reasons("gw-2") != "" {
			t.Error(w.reasons("gw-1"), w.reasons("gw-2"))
		}
		w.restart(true)
	}
	w.want(map[string]roster.Node{"gw-1": wanted(7)})
	w.Presence("gw-1", true)
	w.Want(false, nil, []string{"gw-1"}) // and back before its connection has ended
	w.Want(false, map[string]roster.Node{"gw-1": wanted(7)}, nil)
	if n, _ := w.Node("gw-1"); !n.Connected {
		t.Error("it is connected all the time")
	}
}

func TestAnotherKey(t *testing.T) {
	w := newWorld(t)
	w.want(map[string]roster.Node{"gw-1": wanted(7)})
	w.report(good("gw-1", 1, 7, w.now))
	other := wanted(7)
	other.PublicKey = "UXYZ"
	w.Want(false, map[string]roster.Node{"gw-1": other}, nil)
	if w.status("gw-1") != "Unknown" {
		t.Error("a new machine has the status of the one before")
	}
	w.report(good("gw-1", 2, 7, w.now))
	w.restart(false)
	w.want(map[string]roster.Node{"gw-1": wanted(7)})
	if n, _ := w.Node("gw-1"); n.Report != nil {
		t.Error("and after a restart")
	}
}

func TestFlapping(t *testing.T) {
	w := newWorld(t)
	w.want(map[string]roster.Node{"gw-1": wanted(7)})
	for range 100 {
		w.Presence("gw-1", true)
		w.pass(5 * time.Second)
		w.Presence("gw-1", false)
		w.pass(5 * time.Second)
	}
	if got := w.reasons("gw-1"); got != "Connected" {
		t.Error("breaks of seconds:", got)
	}
	w.pass(time.Minute)
	if got := w.reasons("gw-1"); got != "Connected Disconnected" {
		t.Error("a real one:", got)
	}
	for range 20 { // 20 s up, 20 s down
		w.Presence("gw-1", true)
		w.pass(20 * time.Second)
		w.Presence("gw-1", false)
		w.pass(20 * time.Second)
	}
	if got := w.reasons("gw-1"); strings.Count(got, "Disconnected") > 3 {
		t.Error("slow flapping:", got)
	}
}

func TestDamagedFile(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"no database": func([]byte) []byte { return []byte("hello") },
		"cut":         func(b []byte) []byte { return b[:10000] },
		"zeroes":      func(b []byte) []byte { return make([]byte, len(b)) },
		"pages": func(b []byte) []byte {
			for i := 8192; i < len(b); i++ {
				b[i] = 0xff
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.want(map[string]roster.Node{"gw-1": wanted(7)})
			w.report(good("gw-1", 1, 7, w.now))
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(w.cfg.Path)
			if err == nil {
				err = os.WriteFile(w.cfg.Path, damage(b), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			w.open()
			w.want(map[string]roster.Node{"gw-1": wanted(7)})
			w.report(good("gw-1", 2, 7, w.now))
			err = w.save(false) // may find the damage
			if err == nil {
				err = w.save(true)
			}
			if err != nil {
				if err := w.save(true); err != nil {
					t.Fatal(err)
				}
			}
			if aside, _ := filepath.Glob(w.cfg.Path + ".damaged-*"); len(aside) != 1 {
				t.Error("moved aside:", aside)
			}
			w.restart(false)
			w.want(map[string]roster.Node{"gw-1": wanted(7)})
			if w.status("gw-1") != "Ready" {
				t.Error(w.status("gw-1"))
			}
		})
	}
}
