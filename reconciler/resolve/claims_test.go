package resolve

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"selvedge/schema/fleet"
)

// with returns a workspace with nodes given as NAME=KEY; =0 is without an identity.
func with(path string, nodes ...string) *fleet.Source {
	return ws(path, func(u *fleet.Unit) {
		for _, n := range nodes {
			name, k, _ := strings.Cut(n, "=")
			var i int
			fmt.Sscan(k, &i)
			u.Node[name] = node(i, "role", "gateway")
		}
	})
}

// broken makes a workspace one that evaluates and contradicts itself.
func broken(s *fleet.Source) *fleet.Source {
	s.Unit.Route["r"] = fleet.Route{To: fleet.RouteTo{Endpoint: "none"}}
	s.Entities["route/r"] = fleet.Origin{Position: fleet.Position{File: s.Path + "/route.cue", Line: 3, Column: 2}, Scope: s.Path}
	return s
}

// TestClaims has two commits a case: what the first one leaves decides the second.
func TestClaims(t *testing.T) {
	const next = "; every node has a key of its own: run selvedge-edge init on this one and put its public key here"
	for _, tt := range []struct {
		name          string
		first, second []*fleet.Source
		nodes         string   // NAME@WORKSPACE of rendered nodes
		held          string   // NAME@WORKSPACE
		awaiting      string   // names
		refused       string   // paths
		want          []string // problems
	}{
		{name: "moved between workspaces in one commit",
			first: []*fleet.Source{with("a", "x=1"), with("b", "y=2")}, second: []*fleet.Source{with("a"), with("b", "x=1", "y=2")},
			nodes: "x@b y@b"},
		{name: "swapped between workspaces in one commit",
			first: []*fleet.Source{with("a", "x=1"), with("b", "y=2")}, second: []*fleet.Source{with("a", "y=2"), with("b", "x=1")},
			nodes: "x@b y@a"},
		{name: "keys swapped",
			first: []*fleet.Source{with("a", "x=1"), with("b", "y=2")}, second: []*fleet.Source{with("a", "x=2"), with("b", "y=1")},
			nodes: "x@a y@b"},
		{name: "renamed with its key",
			first: []*fleet.Source{with("a", "x=1")}, second: []*fleet.Source{with("a", "z=1")},
			nodes: "z@a"},
		{name: "workspace renamed",
			first: []*fleet.Source{with("a", "x=1")}, second: []*fleet.Source{with("c", "x=1")},
			nodes: "x@c"},
		{name: "key replaced",
			first: []*fleet.Source{with("a", "x=1")}, second: []*fleet.Source{with("a", "x=7")},
			nodes: "x@a"},
		{name: "refused: nodes are held",
			first: []*fleet.Source{with("a", "x=1", "w=0"), with("b", "y=2")}, second: []*fleet.Source{refusedWS("a"), with("b", "y=2", "z=3")},
			nodes: "y@b z@b", held: "x@a", awaiting: "w", refused: "a"},
		{name: "contradiction: nodes are held",
			first: []*fleet.Source{with("a", "x=1"), with("b", "y=2")}, second: []*fleet.Source{broken(with("a", "x=1", "new=9")), with("b", "y=2")},
			nodes: "y@b", held: "x@a", refused: "a",
			want: []string{`a/route.cue:3:2: route "r": unknown endpoint "none"; declare it under endpoint: in this workspace or a folder above`}},
		{name: "newcomer with a name",
			first: []*fleet.Source{with("a", "x=1"), with("b", "y=2")}, second: []*fleet.Source{with("a", "x=1"), with("b", "y=2", "x=3")},
			nodes: "x@a", held: "y@b", refused: "b",
			want: []string{`b/node.cue:3:2: node "x": the name belongs to the node at a/node.cue:3:2; node names are unique in the whole platform: choose another one`}},
		{name: "copied whole: one problem, not two",
			first: []*fleet.Source{with("a", "x=1"), with("b", "y=2")}, second: []*fleet.Source{with("a", "x=1"), with("b", "y=2", "x=1")},
			nodes: "x@a", held: "y@b", refused: "b",
			want: []string{`b/node.cue:3:2: node "x": the name belongs to the node at a/node.cue:3:2; node names are unique in the whole platform: choose another one`}},
		{name: "newcomer with a name of a refused workspace",
			first: []*fleet.Source{with("a", "x=1"), with("b", "y=2")}, second: []*fleet.Source{refusedWS("a"), with("b", "y=2", "x=3")},
			held: "x@a y@b", refused: "a b",
			want: []string{`b/node.cue:3:2: node "x": the name still belongs to a, which is refused and keeps its nodes; mend that workspace first, or choose another name`}},
		{name: "newcomer with a key",
			first: []*fleet.Source{with("a", "x=1"), with("b", "y=2")}, second: []*fleet.Source{with("a", "x=1"), with("b", "y=2", "z=1")},
			nodes: "x@a", held: "y@b", refused: "b",
			want: []string{`b/node.cue:3:2: node "z": its public key belongs to node "x" at a/node.cue:3:2` + next}},
		{name: "newcomer with a key of a refused workspace",
			first: []*fleet.Source{with("a", "x=1"), with("b", "y=2")}, second: []*fleet.Source{refusedWS("a"), with("b", "y=2", "z=1")},
			held: "x@a y@b", refused: "a b",
			want: []string{`b/node.cue:3:2: node "z": its public key still belongs to node "x" of a, which keeps its last state because a workspace is refused; mend that first, or give this node a key of its own: run selvedge-edge init on it and put its public key here`}},
		{name: "both names new",
			second: []*fleet.Source{with("a", "x=1"), with("b", "x=2"), with("c", "y=3")},
			nodes:  "y@c", refused: "a b",
			want: []string{
				`a/node.cue:3:2: node "x": declared at b/node.cue:3:2 too; node names are unique in the whole platform: rename all but one`,
				`b/node.cue:3:2: node "x": declared at a/node.cue:3:2 too; node names are unique in the whole platform: rename all but one`}},
		{name: "both keys new",
			second: []*fleet.Source{with("a", "x=1"), with("b", "y=1"), with("c", "z=3")},
			nodes:  "z@c", refused: "a b",
			want: []string{
				`a/node.cue:3:2: node "x": node "y" at b/node.cue:3:2 has the same public key` + next,
				`b/node.cue:3:2: node "y": node "x" at a/node.cue:3:2 has the same public key` + next}},
		{name: "swap with a workspace that is refused: nobody moves",
			first: []*fleet.Source{with("a", "x=1"), with("b", "y=2")}, second: []*fleet.Source{broken(with("a", "y=2")), with("b", "x=1")},
			held: "x@a y@b", refused: "a b",
			want: []string{
				`a/node.cue:3:2: node "y": the name still belongs to b, which is refused and keeps its nodes; mend that workspace first, or choose another name`,
				`a/route.cue:3:2: route "r": unknown endpoint "none"; declare it under endpoint: in this workspace or a folder above`,
				`b/node.cue:3:2: node "x": the name still belongs to a, which is refused and keeps its nodes; mend that workspace first, or choose another name`}},
		{name: "a chain of moves behind a refused workspace",
			first:  []*fleet.Source{with("a", "x=1"), with("b", "y=2"), with("c", "z=3"), with("d", "w=4")},
			second: []*fleet.Source{refusedWS("a"), with("b", "x=1"), with("c", "y=2"), with("d", "w=4")},
			nodes:  "w@d", held: "x@a y@b z@c", refused: "a b c",
			want: []string{
				`b/node.cue:3:2: node "x": the name still belongs to a, which is refused and keeps its nodes; mend that workspace first, or choose another name`,
				`c/node.cue:3:2: node "y": the name still belongs to b, which is refused and keeps its nodes; mend that workspace first, or choose another name`}},
		{name: "moved into a workspace that contradicts itself: held",
			first: []*fleet.Source{with("a", "x=1"), with("b", "y=2")}, second: []*fleet.Source{with("a"), broken(with("b", "x=1", "y=2"))},
			held: "x@a y@b", refused: "b",
			want: []string{`b/route.cue:3:2: route "r": unknown endpoint "none"; declare it under endpoint: in this workspace or a folder above`}},
		{name: "held after a move: its key is not free",
			first:  []*fleet.Source{with("a", "x=1"), with("b", "y=2"), with("c")},
			second: []*fleet.Source{with("a"), broken(with("b", "x=1", "y=2")), with("c", "n=1")},
			held:   "x@a y@b", refused: "b c",
			want: []string{
				`b/route.cue:3:2: route "r": unknown endpoint "none"; declare it under endpoint: in this workspace or a folder above`,
				`c/node.cue:3:2: node "n": its public key belongs to node "x" at b/node.cue:3:2` + next}},
		{name: "a renamed directory that does not evaluate: held",
			first: []*fleet.Source{with("a", "x=1", "w=0"), with("b", "y=2")}, second: []*fleet.Source{refusedWS("c"), with("b", "y=2")},
			nodes: "y@b", held: "x@a", awaiting: "w", refused: "c"},
		{name: "a renamed directory that does not evaluate: its keys are held, and what moved on has moved",
			first: []*fleet.Source{with("a", "x=1", "v=3"), with("b", "y=2"), with("d")}, second: []*fleet.Source{refusedWS("c"), with("b", "y=2", "z=1"), with("d", "v=3")},
			nodes: "v@d", held: "x@a y@b", refused: "b c",
			want: []string{`b/node.cue:3:2: node "z": its public key still belongs to node "x" of a, which keeps its last state because a workspace is refused; mend that first, or give this node a key of its own: run selvedge-edge init on it and put its public key here`}},
		{name: "a workspace is removed while an older one does not evaluate",
			first: []*fleet.Source{with("a", "x=1"), with("b", "y=2")}, second: []*fleet.Source{refusedWS("b")},
			held: "y@b", refused: "b"},
		{name: "a node is removed while a new workspace does not evaluate",
			first: []*fleet.Source{with("a", "x=1", "y=2")}, second: []*fleet.Source{with("a", "y=2"), refusedWS("c")},
			nodes: "y@a", refused: "c"},
		{name: "removed",
			first: []*fleet.Source{with("a", "x=1"), with("b", "y=2")}, second: []*fleet.Source{with("b", "y=2")},
			nodes: "y@b"},
		{name: "removed and its key given on",
			first: []*fleet.Source{with("a", "x=1"), with("b", "y=2")}, second: []*fleet.Source{with("a"), with("b", "y=2", "z=1")},
			nodes: "y@b z@b"},
		{name: "identity taken away: awaiting again",
			first: []*fleet.Source{with("a", "x=1")}, second: []*fleet.Source{with("a", "x=0")},
			awaiting: "x"},
		{name: "an awaiting node has its name",
			first: []*fleet.Source{with("a", "x=0"), with("b")}, second: []*fleet.Source{with("a", "x=0"), with("b", "x=1")},
			awaiting: "x", refused: "b",
			want: []string{`b/node.cue:3:2: node "x": the name belongs to the node at a/node.cue:3:2; node names are unique in the whole platform: choose another one`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := New(Config{})
			first := r.Resolve(fleetOf(tt.first...), Accepted{})
			if len(first.Problems) > 0 {
				t.Fatalf("first commit: %s", texts(first.Problems))
			}
			// What is kept over a restart is enough.
			b, err := json.Marshal(first.Accepted)
			if err != nil {
				t.Fatal(err)
			}
			var before Accepted
			if err := json.Unmarshal(b, &before); err != nil {
				t.Fatal(err)
			}
			got := r.Resolve(fleetOf(tt.second...), before)
			if d := cmp.Diff(strings.Join(tt.want, "\n"), texts(got.Problems)); d != "" {
				t.Errorf("problems: %s", d)
			}
			for _, x := range []struct{ what, got, want string }{
				{"nodes", list(got.Nodes, func(n Rendered) string { return "@" + n.Workspace }), tt.nodes},
				{"held", list(got.Held, func(h Held) string { return "@" + h.Workspace }), tt.held},
				{"awaiting", strings.Join(got.Awaiting, " "), tt.awaiting},
				{"refused", strings.Join(got.Refused, " "), tt.refused},
			} {
				if x.got != x.want {
					t.Errorf("%s: got %q, want %q", x.what, x.got, x.want)
				}
			}
			for name, h := range got.Held {
				if h.Why == "" {
					t.Errorf("%s is held, and nothing says why", name)
				}
			}
		})
	}
}

func list[V any](m map[string]V, of func(V) string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+of(m[k]))
	}
	return strings.Join(out, " ")
}

// TestMoveCompletesLater follows a node that moves while its new workspace is refused.
func TestMoveCompletesLater(t *testing.T) {
	r := New(Config{})
	a := Accepted{}
	for i, step := range []struct {
		sources []*fleet.Source
		want    string
	}{
		{[]*fleet.Source{with("a", "x=1"), with("b")}, "x@a"},
		{[]*fleet.Source{with("a"), broken(with("b", "x=1"))}, ""},
		{[]*fleet.Source{with("a"), broken(with("b", "x=1"))}, ""},
		{[]*fleet.Source{with("a"), with("b", "x=1")}, "x@b"},
	} {
		res := r.Resolve(fleetOf(step.sources...), a)
		if got := list(res.Nodes, func(n Rendered) string { return "@" + n.Workspace }); got != step.want {
			t.Fatalf("step %d: %q, want %q: %s", i, got, step.want, texts(res.Problems))
		}
		a = res.Accepted
	}
}

func TestWhyHeld(t *testing.T) {
	r := New(Config{})
	a := r.Resolve(fleetOf(with("a", "x=1"), with("b", "y=2")), Accepted{}).Accepted
	for _, tt := range []struct {
		name    string
		sources []*fleet.Source
		want    map[string]string
	}{
		{"evaluation", []*fleet.Source{refusedWS("a"), with("b", "y=2")}, map[string]string{"x": "a/app.cue:1:1: expected '}'; close the struct"}},
		{"contradiction", []*fleet.Source{broken(with("a", "x=1")), with("b", "y=2")}, map[string]string{"x": `a/route.cue:3:2: route "r": unknown endpoint "none"; declare it under endpoint: in this workspace or a folder above`}},
		{"claim", []*fleet.Source{with("a", "x=1"), with("b", "y=1")}, map[string]string{"y": `b/node.cue:3:2: node "y": its public key belongs to node "x" at a/node.cue:3:2; every node has a key of its own: run selvedge-edge init on this one and put its public key here`}},
		{"moved", []*fleet.Source{with("a"), broken(with("b", "x=1", "y=2"))}, map[string]string{
			"x": `b/route.cue:3:2: route "r": unknown endpoint "none"; declare it under endpoint: in this workspace or a folder above`,
			"y": `b/route.cue:3:2: route "r": unknown endpoint "none"; declare it under endpoint: in this workspace or a folder above`}},
		{"nothing said", []*fleet.Source{{Path: "a"}, with("b", "y=2")}, map[string]string{"x": "a: refused"}},
	} {
		got := map[string]string{}
		for name, h := range r.Resolve(fleetOf(tt.sources...), a).Held {
			got[name] = h.Why
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

// TestStrangeAccepted shows that a damaged record harms nobody.
func TestStrangeAccepted(t *testing.T) {
	res := New(Config{}).Resolve(fleetOf(with("a", "x=1"), refusedWS("b")), Accepted{
		Nodes: map[string]string{"ghost": "gone", "h": "b"},
		Keys:  map[string]string{key(1): "nobody", key(8): "ghost", key(9): "h", key(10): "h"},
	})
	if len(res.Problems) > 0 || len(res.Nodes) != 1 || len(res.Held) != 1 || len(res.Accepted.Keys) != 3 {
		t.Errorf("%s %+v", texts(res.Problems), res.Accepted)
	}
}
