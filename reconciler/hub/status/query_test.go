package status

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

func (w *world) names(q Query) string {
	w.t.Helper()
	l, err := w.Nodes(q)
	if err != nil {
		w.t.Fatalf("%+v: %v", q, err)
	}
	var out []string
	for _, n := range l.Items {
		out = append(out, n.Name)
	}
	if l.Total < len(out) || l.Items == nil {
		w.t.Errorf("%d items, total %d", len(out), l.Total)
	}
	return strings.Join(out, " ")
}

// five nodes: a, b in munich/line-1; c in munich/line-10; d in oslo, never heard; e without a key.
func five(t *testing.T) *world {
	w := newWorld(t)
	node := func(workspace, region string, apps ...string) roster.Node {
		n := wanted(7)
		n.Workspace, n.Apps, n.Labels = workspace, apps, map[string]string{"region": region, "cores": fmt.Sprint(len(apps))}
		return n
	}
	e := node("folders/oslo", "north")
	e.PublicKey = ""
	w.Fleet(roster.Fleet{Platform: "plants", Scopes: map[string]roster.Scope{"": {Kind: "platform"}, "folders/munich": {Kind: "folder"}, site: {Kind: "workspace", Title: "Line 1"}, "folders/empty": {Kind: "workspace"}},
		Apps:     map[string][]roster.App{site: {{Name: "web", Scope: "folders/munich"}, {Name: "spare", Scope: site}}, "folders/empty": {{Name: "none", Scope: ""}}},
		Problems: []roster.Problem{{Workspace: "folders/oslo", Text: "x"}, {Text: "platform"}}})
	w.want(map[string]roster.Node{"a": node(site, "south", "web", "db"), "b": node(site, "south", "web"), "c": node("folders/munich/line-10", "south", "web"),
		"d": node("folders/oslo", "north", "db"), "e": e})
	a, b, c := good("a", 1, 7, w.now), good("b", 1, 7, w.now), good("c", 1, 7, w.now)
	a.Usage.CPU, b.Usage.CPU, c.Usage.CPU = 1, 3, 2
	b.Apps[0].Healthy, b.Well, b.Why = false, false, "web: unhealthy"
	b.Conditions = []wire.Condition{{Type: "DiskPressure", Message: "full"}}
	b.Apps[0].Containers[0].Restarts = 9
	for _, s := range []*wire.Status{a, b, c} {
		w.now = w.now.Add(time.Second)
		w.report(s)
	}
	return w
}

func TestQueries(t *testing.T) {
	w := five(t)
	for _, c := range []struct {
		q    Query
		want string
	}{
		{Query{}, "a b c d e"},
		{Query{Node: "c"}, "c"},
		{Query{Workspace: site}, "a b"},
		{Query{Folder: "folders/munich"}, "a b c"},
		{Query{Folder: "folders/munich/line-1"}, "a b"}, // and not line-10
		{Query{Folder: "folders/munich/"}, "a b c"},
		{Query{Folder: "folders/mun"}, ""},
		{Query{Labels: "region=south"}, "a b c"},
		{Query{Labels: "region!=south"}, "d e"},
		{Query{Labels: "region in (north, west),cores"}, "d e"},
		{Query{Labels: "!missing,cores>1"}, "a"},
		{Query{Labels: "region notin (south)"}, "d e"},
		{Query{Status: []hubapi.Readiness{hubapi.Unknown, hubapi.Waiting}}, "d e"},
		{Query{Status: []hubapi.Readiness{hubapi.Ready}}, "a c"},
		{Query{App: "db"}, "a d"},
		{Query{Search: "NORTH"}, "d e"},
		{Query{Search: "line-10"}, "c"},
		{Query{Condition: "DiskPressure"}, "b"},
		{Query{Sort: "cpu"}, "b c a d e"},
		{Query{Sort: "-cpu"}, "d e a c b"},
		{Query{Sort: "-name"}, "e d c b a"},
		{Query{Sort: "status"}, "b d e a c"},
		{Query{Sort: "restarts", Limit: 1}, "b"},
		{Query{Sort: "lastSeen"}, "d e a b c"},
		{Query{Sort: "workspace"}, "a b c d e"},
		{Query{Visible: func(w string) bool { return w == "folders/oslo" }}, "d e"},
		{Query{Visible: func(string) bool { return false }}, ""},
	} {
		if got := w.names(c.q); got != c.want {
			t.Errorf("%+v: %s, want %s", c.q, got, c.want)
		}
	}
	for name, q := range map[string]Query{
		"selector": {Labels: "a in ("}, "long": {Labels: strings.Repeat("a", 5000)}, "sort": {Sort: "colour"}, "status": {Status: []hubapi.Readiness{"Fine"}},
		"token": {Continue: "???"}, "another order's token": {Sort: "cpu", Continue: key{Name: "a"}.token()},
	} {
		if _, err := w.Nodes(q); !errors.Is(err, ErrQuery) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPages reads all pages in each order while nodes come and go.
func TestPages(t *testing.T) {
	w := newWorld(t)
	nodes := map[string]roster.Node{}
	for i := range 95 {
		nodes[fmt.Sprintf("gw-%02d", i)] = wanted(7)
	}
	w.want(nodes)
	for i := range 95 {
		s := good(fmt.Sprintf("gw-%02d", i), 1, 7, w.now)
		s.Usage.CPU = float64(i % 7)
		w.report(s)
	}
	for _, order := range []string{"", "name", "-name", "cpu", "-cpu", "memory", "-memory", "status", "lastSeen", "-restarts", "workspace"} {
		var got []string
		q := Query{Sort: order, Limit: 10}
		for {
			l, err := w.Nodes(q)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range l.Items {
				got = append(got, n.Name)
			}
			if len(got) == 50 { // in the middle
				w.Want(false, map[string]roster.Node{"gw-new": wanted(7)}, []string{got[49], got[3]})
			}
			if q.Continue = l.Continue; q.Continue == "" {
				break
			}
		}
		slices.Sort(got)
		old := slices.DeleteFunc(got, func(n string) bool { return n == "gw-new" })
		if len(slices.Compact(old)) != 95 {
			t.Errorf("sort %q: %d nodes", order, len(old))
		}
		w.Want(false, nodes, []string{"gw-new"})
		for i := range 95 {
			s := good(fmt.Sprintf("gw-%02d", i), 2, 7, w.now)
			s.Usage.CPU = float64(i % 7)
			w.now = w.now.Add(time.Second)
			w.report(s)
		}
	}
}

func TestInstancesAndApps(t *testing.T) {
	w := five(t)
	list := func(q Query) string {
		t.Helper()
		l, err := w.Instances(q)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, i := range l.Items {
			out = append(out, fmt.Sprintf("%s/%s/%s:%d:%v", i.Node, i.App, i.Name, i.Restarts, i.Stale))
		}
		return strings.Join(out, " ")
	}
	if got := list(Query{}); got != "a/web/main:2:false b/web/main:9:false c/web/main:2:false" {
		t.Error(got)
	}
	if got := list(Query{Sort: "restarts", Limit: 1}); got != "b/web/main:9:false" {
		t.Error(got)
	}
	if got := list(Query{App: "db"}) + list(Query{Search: "nope"}) + list(Query{Visible: func(string) bool { return false }}); got != "" {
		t.Error(got)
	}
	if got := list(Query{Search: "REGISTRY/", Workspace: site, Sort: "-name", Limit: 1}); got != "b/web/main:9:false" {
		t.Error(got)
	}
	for _, order := range []string{"", "-name", "cpu"} { // page by page
		var got []string
		for q := (Query{Sort: order, Limit: 1}); ; {
			l, err := w.Instances(q)
			if err != nil || l.Total != 3 {
				t.Fatal(err, l.Total)
			}
			got = append(got, l.Items[0].Node)
			if q.Continue = l.Continue; q.Continue == "" {
				break
			}
		}
		if len(got) != 3 || got[0] == got[1] || got[1] == got[2] {
			t.Errorf("sort %q: %v", order, got)
		}
	}
	apps, err := w.Apps(Query{})
	if err != nil {
		t.Fatal(err)
	}
	want := []hubapi.App{{Name: "none", Workspace: "folders/empty"}, {Name: "db", Workspace: site, Nodes: 1}, {Name: "spare", Workspace: site, Scope: site}, {Name: "web", Workspace: site, Scope: "folders/munich", Nodes: 2, Healthy: 1},
		{Name: "web", Workspace: "folders/munich/line-10", Nodes: 1, Healthy: 1}, {Name: "db", Workspace: "folders/oslo", Nodes: 1, Unknown: 1}}
	if !slices.Equal(apps.Items, want) || apps.Total != len(want) {
		t.Errorf("%+v", apps)
	}
	if l, _ := w.Apps(Query{Workspace: site, Labels: "cores=1"}); len(l.Items) != 1 || l.Items[0].Nodes != 1 {
		t.Errorf("%+v", l)
	}
	w.pass(time.Minute)
	if got := list(Query{Node: "a"}); got != "a/web/main:2:true" {
		t.Error(got)
	}
}

func TestSummary(t *testing.T) {
	w := five(t)
	s := w.Summary(nil)
	if s.Platform != "plants" || s.Nodes != 5 || s.Converged != 3 || s.Status[hubapi.Ready] != 2 || s.Status[hubapi.NotReady] != 1 || s.Status[hubapi.Unknown] != 1 || s.Status[hubapi.Waiting] != 1 ||
		s.Conditions["DiskPressure"] != 1 || len(s.Workspaces) != 4 || len(s.Problems) != 2 {
		t.Errorf("%+v", s)
	}
	s = w.Summary(func(w string) bool { return strings.HasPrefix(w, "folders/munich") })
	if s.Nodes != 3 || len(s.Workspaces) != 2 || s.Workspaces[0].Title != "Line 1" || len(s.Problems) != 0 || s.Status[hubapi.Unknown] != 0 {
		t.Errorf("%+v", s)
	}
}

func TestCollectors(t *testing.T) {
	w := newWorld(t)
	nodes := map[string]roster.Node{}
	for i := range 500 {
		n := wanted(7)
		n.Workspace = fmt.Sprintf("folders/w-%03d", i/2)
		nodes[fmt.Sprintf("gw-%03d", i)] = n
	}
	w.want(nodes)
	for i := range uint64(60) {
		s := good("gw-001", i, 6, w.now) // a node that invents conditions and states
		s.Apps[0].Containers[0].State = fmt.Sprint("state", i)
		s.Conditions = []wire.Condition{{Type: fmt.Sprint("C", i)}}
		w.pass(10 * time.Second)
		w.report(s)
	}
	all := families(t, w)
	series := 0
	for _, f := range all {
		series += len(f.GetMetric())
	}
	if series > 700 {
		t.Errorf("%d series", series)
	}
	for _, c := range []struct {
		name, label string
		want        float64
	}{
		{"selvedge_fleet_nodes", "Unknown", 499}, {"selvedge_fleet_nodes", "NotReady", 1}, {"selvedge_fleet_nodes_converged", "", 0},
		{"selvedge_fleet_instances", "other", 1}, {"selvedge_fleet_instances", "running", 0}, {"selvedge_fleet_generation_lag_seconds", "", 600},
		{"selvedge_fleet_nodes_by_condition", "Behind", 1}, {"selvedge_fleet_nodes_by_condition", "other", 1}, {"selvedge_fleet_nodes_by_condition", "C59", -1},
		{"selvedge_fleet_instance_restarts_total", "", 0}, {"selvedge_fleet_nodes_silent", "", 0},
	} {
		if got := metric(all, c.name, c.label); got != c.want {
			t.Errorf("%s{%s} is %v, want %v", c.name, c.label, got, c.want)
		}
	}
}
