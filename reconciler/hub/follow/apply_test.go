package follow

import (
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"selvedge/schema/roster"
)

// view makes one of "name=KEY …".
func view(t testing.TB, text string) *View {
	t.Helper()
	v, _, err := new(View).with(&group{reset: true, Event: roster.Event{Nodes: parse(text), Fleet: &roster.Fleet{Platform: "old"}, Trust: "t1"}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func parse(text string) map[string]roster.Node {
	out := map[string]roster.Node{}
	for f := range strings.FieldsSeq(text) {
		name, key, _ := strings.Cut(f, "=")
		out[name] = roster.Node{PublicKey: key}
	}
	return out
}

func text(v *View) string {
	var out []string
	for name, n := range v.Nodes() {
		out = append(out, name+"="+n.PublicKey)
		if holder, _, ok := v.NodeByKey(n.PublicKey); n.PublicKey != "" && (!ok || holder != name) {
			out = append(out, "!")
		}
	}
	return strings.Join(out, " ")
}

func TestWith(t *testing.T) {
	for _, tt := range []struct {
		name, before string
		e            roster.Event
		after        string
		removed      string
		gone         string
		err          string
	}{
		{name: "new", before: "a=A", e: roster.Event{Nodes: parse("b=B")}, after: "a=A b=B"},
		{name: "removed", before: "a=A b=B", e: roster.Event{Removed: []string{"a", "x"}}, after: "b=B", removed: "a", gone: "A"},
		{name: "another key", before: "a=A b=B", e: roster.Event{Nodes: parse("a=C")}, after: "a=C b=B", gone: "A"},
		{name: "no key", before: "a=A", e: roster.Event{Nodes: parse("a=")}, after: "a=", gone: "A"},
		{name: "a key that moves", before: "a=A b=B", e: roster.Event{Nodes: parse("b=A"), Removed: []string{"a"}}, after: "b=A", removed: "a", gone: "B"},
		{name: "a swap", before: "a=A b=B", e: roster.Event{Nodes: parse("a=B b=A")}, after: "a=B b=A"},
		{name: "a ring", before: "a=A b=B c=C", e: roster.Event{Nodes: parse("a=B b=C c=D")}, after: "a=B b=C c=D", gone: "A"},
		{name: "removed and made anew", before: "a=A", e: roster.Event{Nodes: parse("a=B"), Removed: []string{"a"}}, after: "a=B", gone: "A"},
		{name: "reset", before: "a=A b=B c=C", e: roster.Event{Reset: true, Nodes: parse("b=B c=D d=A")}, after: "b=B c=D d=A", removed: "a", gone: "C"},
		{name: "reset to nothing", before: "a=A", e: roster.Event{Reset: true}, removed: "a", gone: "A"},
		{name: "a key twice", before: "a=A", e: roster.Event{Nodes: parse("b=A")}, err: "have one key"},
		{name: "a key twice among new ones", e: roster.Event{Nodes: parse("a=A b=A")}, err: "have one key"},
		{name: "no name", e: roster.Event{Nodes: parse("../a=A")}, err: "no name of a node"},
		{name: "a wildcard", e: roster.Event{Nodes: parse(">=A")}, err: "no name of a node"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := view(t, tt.before)
			next, d, err := v.with(&group{reset: tt.e.Reset, Event: tt.e}, time.Now())
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := text(next); got != tt.after {
				t.Errorf("after: %q, want %q", got, tt.after)
			}
			if got := text(v); got != tt.before {
				t.Errorf("the view before is %q now", got)
			}
			if got := strings.Join(d.Removed, " "); got != tt.removed {
				t.Errorf("removed %q, want %q", got, tt.removed)
			}
			if got := strings.Join(d.GoneKeys, " "); got != tt.gone {
				t.Errorf("gone keys %q, want %q", got, tt.gone)
			}
			if !slices.IsSorted(next.Names()) || len(next.Names()) != next.nodes.len || next.nodes.len != strings.Count(tt.after, "=") {
				t.Errorf("names %v", next.Names())
			}
		})
	}
}

func TestWithFleet(t *testing.T) {
	v := view(t, "a=A")
	next, d, err := v.with(&group{Event: roster.Event{Fleet: &roster.Fleet{Platform: "new"}, Trust: "t1", Changes: []roster.Change{{Commit: roster.Commit{Hash: "1"}}}}}, time.Now())
	if err != nil || next.Fleet.Platform != "new" || !d.Fleet || d.Trust || len(d.Changes) != 1 || len(next.Changes) != 1 || v.Fleet.Platform != "old" {
		t.Errorf("%+v, %+v, %v", next, d, err)
	}
	again, d, err := next.with(&group{Event: roster.Event{Trust: "t2"}}, time.Now())
	if err != nil || again.Fleet.Platform != "new" || d.Fleet || !d.Trust || again.Trust != "t2" || len(again.Changes) != 1 {
		t.Errorf("%+v, %+v, %v", again, d, err)
	}
	for i := range 3 * maxHistory {
		if again, _, err = again.with(&group{Event: roster.Event{Changes: []roster.Change{{Commit: roster.Commit{Hash: fmt.Sprint(i)}}}}}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(again.Changes); n != maxHistory || again.Changes[n-1].Hash != fmt.Sprint(3*maxHistory-1) {
		t.Errorf("%d changes", n)
	}
}

// TestTable holds a table against a map, over many edits.
func TestTable(t *testing.T) {
	var tab table[int]
	want := map[string]int{}
	var olds []table[int]
	var snaps []map[string]int
	for i := range 300 {
		olds, snaps = append(olds, tab), append(snaps, maps.Clone(want))
		e := tab.edit()
		for j := range 5 {
			k := fmt.Sprint((i*7 + j*13) % 97)
			if (i+j)%3 == 0 {
				e.remove(k)
				delete(want, k)
			} else {
				e.set(k, i)
				want[k] = i
			}
		}
		tab = e.table()
	}
	olds, snaps = append(olds, tab), append(snaps, want)
	for i, o := range olds {
		if o.len != len(snaps[i]) {
			t.Fatalf("edit %d: %d entries, want %d", i, o.len, len(snaps[i]))
		}
		for k, v := range snaps[i] {
			if got, ok := o.get(k); !ok || got != v {
				t.Fatalf("edit %d: %s is %d, want %d", i, k, got, v)
			}
		}
	}
}

func BenchmarkWith(b *testing.B) {
	nodes := map[string]roster.Node{}
	for i := range 10_000 {
		nodes[fmt.Sprintf("node-%d", i)] = roster.Node{PublicKey: fmt.Sprintf("U%d", i), Workspace: "folders/a"}
	}
	v, _, err := new(View).with(&group{reset: true, Event: roster.Event{Nodes: nodes}}, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		n := nodes["node-7"]
		n.Generation = i
		if v, _, err = v.with(&group{Event: roster.Event{Nodes: map[string]roster.Node{"node-7": n}}}, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}

func TestGuided(t *testing.T) {
	nodes := map[string]roster.Node{
		"box-1": {Workspace: "folders/a/lab", PublicKey: "U1"}, "box-2": {Workspace: "folders/a", PublicKey: "U2"},
		"box-3": {Workspace: "folders/ab", PublicKey: "U3"}, "box-4": {Workspace: "folders/a/lab"}, "bo": {Workspace: "folders/a", PublicKey: "U4"},
		"boy-1": {Workspace: "folders/a", PublicKey: "U5"},
	}
	v, _, err := new(View).with(&group{reset: true, Event: roster.Event{Nodes: nodes}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for g, want := range map[[2]string]int{{"box-", "folders/a"}: 2, {"box-", ""}: 3, {"", "folders/a"}: 4, {"z", ""}: 0, {"box-", "folders/a/lab"}: 1} {
		if n := v.Guided(roster.Guide{Prefix: g[0], Scope: g[1]}); n != want {
			t.Errorf("%q: %d, want %d", g, n, want)
		}
	}
}

// TestCacheOfLargeLists: a team that declares very much must not keep all hubs from remembering
// who was put out.
func TestCacheOfLargeLists(t *testing.T) {
	f := &roster.Fleet{Platform: "p", Scopes: map[string]roster.Scope{"": {Kind: "platform"}, "folders/a": {Kind: "workspace"}},
		Identities: map[string]roster.Identity{}, Apps: map[string][]roster.App{"folders/a": {{Name: "x", Scope: "folders/a"}}},
		Guides: map[string]roster.Guide{"folders/a/g": {Name: "g", Scope: "folders/a", Prefix: "g-"}}, Problems: []roster.Problem{{Text: "p"}}}
	subjects := make([]string, 256)
	for i := range subjects {
		subjects[i] = fmt.Sprintf("user:%0120d", i)
	}
	nodes := map[string]roster.Node{}
	for i := range 280 { // 9 MB of each
		f.Bindings = append(f.Bindings, roster.Binding{Name: fmt.Sprint("b", i), Scope: "folders/a", Role: "viewer", Subjects: subjects})
		f.Identities[fmt.Sprint("i", i)] = roster.Identity{Kind: "user", Groups: subjects}
		nodes[fmt.Sprint("n", i)] = roster.Node{Workspace: "folders/a", Images: subjects}
	}
	v, _, err := new(View).with(&group{reset: true, Event: roster.Event{Fleet: f, Nodes: nodes, Trust: "t", Changes: []roster.Change{{Commit: roster.Commit{Hash: "1"}}}}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c := newCache(filepath.Join(t.TempDir(), "roster.json"), slog.New(slog.DiscardHandler))
	if err := c.write(v); err != nil {
		t.Fatal(err)
	}
	g := c.read()
	if g == nil {
		t.Fatal("it cannot be read back")
	}
	if !reflect.DeepEqual(*g.Fleet, v.Fleet) || !reflect.DeepEqual(g.Nodes, nodes) || g.Trust != "t" || len(g.Changes) != 1 {
		t.Error("something else is read back")
	}
}
