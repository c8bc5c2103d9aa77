package status

import (
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// TestConditionLabels holds that each condition that both sides know has a series, before it
// is ever reported, and nothing else has.
func TestConditionLabels(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../../schema/wire/status.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{other}
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Condition") {
			value, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, value)
		}
		return true
	})
	w := newWorld(t)
	w.want(map[string]roster.Node{"gw-1": wanted(7)})
	s := good("gw-1", 1, 7, w.now)
	s.Conditions = []wire.Condition{{Type: "Mine"}, {Type: "MineToo"}, {Type: wire.ConditionDiskPressure}}
	w.report(s)
	values := map[string]float64{}
	var got []string
	for _, f := range families(t, w) {
		for _, m := range f.GetMetric() {
			if f.GetName() == "selvedge_fleet_nodes_by_condition" {
				label := m.GetLabel()[0].GetValue()
				got, values[label] = append(got, label), m.GetGauge().GetValue()
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("series for %v, want %v", got, want)
	}
	if values[other] != 1 || values[wire.ConditionDiskPressure] != 1 || values[wire.ConditionBehind] != 0 {
		t.Error(values)
	}
}

// TestRestartsCounted holds that the counter grows by what happens, and by nothing else: not
// when a node comes back, when an agent counts anew, or when the hub starts.
func TestRestartsCounted(t *testing.T) {
	w := newWorld(t)
	w.want(map[string]roster.Node{"gw-1": wanted(7), "gw-2": wanted(7)})
	seq := uint64(0)
	send := func(what, node, epoch string, counted float64, restarts ...int) {
		t.Helper()
		w.pass(10 * time.Second)
		seq++
		s := good(node, seq, 7, w.now)
		s.Epoch = epoch
		for i, n := range restarts {
			c := s.Apps[0].Containers[0]
			c.Name, c.Restarts = "c"+strconv.Itoa(i), n
			s.Apps[0].Containers = append(s.Apps[0].Containers, c)
		}
		s.Apps[0].Containers = s.Apps[0].Containers[1:]
		w.report(s)
		if got := value(t, w, "selvedge_fleet_instance_restarts_total", ""); got != counted {
			t.Errorf("%s: counted %v, want %v", what, got, counted)
		}
	}
	send("the first status", "gw-1", "a", 0, 40)
	send("the same", "gw-1", "a", 0, 40)
	send("two more", "gw-1", "a", 2, 42)
	send("a new container", "gw-1", "a", 2, 42, 7)
	send("both", "gw-1", "a", 5, 43, 9)
	send("another node", "gw-2", "x", 5, 100)
	w.pass(time.Hour)
	if w.status("gw-1") != "Unknown" {
		t.Fatal(w.status("gw-1"))
	}
	send("back, with one more", "gw-1", "a", 6, 44, 9)
	send("the agent started anew", "gw-1", "b", 6, 0, 0)
	send("and restarted one", "gw-1", "b", 7, 0, 1)
	send("another version of one", "gw-1", "b", 7, 0, 0)
	w.restart(false)
	w.want(map[string]roster.Node{"gw-1": wanted(7), "gw-2": wanted(7)})
	send("the hub started anew", "gw-1", "b", 0, 0, 0)
	send("and one restarts", "gw-1", "b", 1, 1, 0)
	send("another node, too", "gw-2", "x", 3, 102)
	send("a node that lies", "gw-2", "x", 3+maxRestarted, math.MaxInt32)
	send("which begins anew", "gw-2", "x", 3+maxRestarted, 0)
	send("and lies again, of two", "gw-2", "x", 3+2*maxRestarted, math.MaxInt32, math.MaxInt32)
}

// TestSilent holds that a node that never reported is none that is missed.
func TestSilent(t *testing.T) {
	w := newWorld(t)
	w.want(map[string]roster.Node{"gw-1": wanted(7), "gw-2": wanted(7), "gw-3": {Workspace: site}})
	silent := func(want float64) {
		t.Helper()
		if got := value(t, w, "selvedge_fleet_nodes_silent", ""); got != want {
			t.Errorf("%v are silent, want %v", got, want)
		}
	}
	w.pass(time.Hour)
	silent(0)
	w.report(good("gw-1", 1, 7, w.now))
	silent(0)
	w.pass(time.Hour)
	silent(1)
	w.restart(false)
	w.want(map[string]roster.Node{"gw-1": wanted(7), "gw-2": wanted(7)})
	silent(1)
	w.report(good("gw-1", 2, 7, w.now))
	silent(0)
}
