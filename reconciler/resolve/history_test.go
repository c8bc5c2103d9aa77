package resolve

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"selvedge/schema/fleet"
	"selvedge/schema/nodestate"
)

// repo is a config repo that changes at random: few names and keys, so that they collide.
type repo struct {
	rnd        *rand.Rand
	workspaces map[string]*fleet.Unit
	syntax     map[string]bool // workspaces that do not evaluate
}

func (r *repo) pick(m map[string]*fleet.Unit) string {
	return slices.Sorted(maps.Keys(m))[r.rnd.Intn(len(m))]
}

func (r *repo) unit() *fleet.Unit { return r.workspaces[r.pick(r.workspaces)] }

func (r *repo) name() string { return fmt.Sprint("n", r.rnd.Intn(14)) }

// unused returns a key that no node has; now and then one that is taken.
func (r *repo) unused() string {
	if r.rnd.Intn(20) == 0 {
		return key(1 + r.rnd.Intn(20))
	}
	return r.unusedKey()
}

func (r *repo) unusedKey() string {
	taken := map[string]bool{}
	for _, u := range r.workspaces {
		for _, n := range u.Node {
			if n.Identity != nil {
				taken[n.Identity.PublicKey] = true
			}
		}
	}
	for k := 1; ; k++ {
		if !taken[key(k)] {
			return key(k)
		}
	}
}

func (r *repo) node() fleet.Node {
	n := node(0, "role", []string{"gateway", "pc"}[r.rnd.Intn(2)], "line", fmt.Sprint(r.rnd.Intn(3)))
	if r.rnd.Intn(5) > 0 {
		n.Identity = &fleet.NodeIdentity{PublicKey: r.unused()}
	}
	if r.rnd.Intn(4) == 0 {
		n.Capacity = &fleet.Capacity{CPU: 1 + float64(r.rnd.Intn(3)), Memory: "1GiB"}
	}
	n.Remote.Logs = r.rnd.Intn(2) == 0
	return n
}

func (r *repo) app() fleet.App {
	a := appOn([]string{"gateway", "pc"}[r.rnd.Intn(2)])
	c := a.Container["web"]
	c.Resources.CPU = float64(r.rnd.Intn(5)) / 4
	if r.rnd.Intn(3) == 0 {
		c.Port = port(8000 + r.rnd.Intn(8))
	}
	switch r.rnd.Intn(5) {
	case 0:
		c.Env = map[string]string{"NODE": "{{node.name}}", "LINE": "{{node.labels.line}}"}
	case 1:
		c.Args = []string{"{{node.labels.role}}", "{{{{x"}
	case 2:
		a.Config = map[string]fleet.ConfigRef{"conf": {Mount: "/etc/x"}}
	}
	if r.rnd.Intn(3) == 0 {
		a.Override = []fleet.Override{
			{Selector: fleet.Selector{"line": "1"}, Container: map[string]json.RawMessage{"web": json.RawMessage(`{"env":{"O":"1 {{node.workspace}}"}}`)}},
			{Selector: fleet.Selector{"role": "pc"}, Container: map[string]json.RawMessage{"web": json.RawMessage(fmt.Sprintf(`{"resources":{"cpu":%d}}`, 1+r.rnd.Intn(2)))}},
		}
	}
	if r.rnd.Intn(20) == 0 {
		a.Placement.Nodes = []string{r.name()}
	}
	a.Container["web"] = c
	return a
}

func (r *repo) change() {
	u := r.unit()
	names := slices.Sorted(maps.Keys(u.Node))
	any := func() string {
		if len(names) == 0 {
			return r.name()
		}
		return names[r.rnd.Intn(len(names))]
	}
	switch r.rnd.Intn(17) {
	case 0, 1, 2:
		if name := r.name(); len(u.Node[name].Labels) == 0 {
			u.Node[name] = r.node()
		}
	case 3:
		delete(u.Node, any())
	case 4: // renamed, with its key
		if old := any(); u.Node[old].Labels != nil {
			u.Node[r.name()] = u.Node[old]
			delete(u.Node, old)
		}
	case 5, 6: // moved to another workspace
		if name := any(); u.Node[name].Labels != nil {
			n := u.Node[name]
			delete(u.Node, name)
			r.unit().Node[name] = n
		}
	case 7: // keys of two nodes are swapped
		v := r.unit()
		others := slices.Sorted(maps.Keys(v.Node))
		if len(names) == 0 || len(others) == 0 {
			return
		}
		a, b := any(), others[r.rnd.Intn(len(others))]
		x, y := u.Node[a], v.Node[b]
		x.Identity, y.Identity = y.Identity, x.Identity
		u.Node[a], v.Node[b] = x, y
	case 8:
		if name := any(); u.Node[name].Labels != nil {
			n := u.Node[name]
			n.Drain = !n.Drain
			u.Node[name] = n
		}
	case 9, 10:
		u.App[fmt.Sprint("app", r.rnd.Intn(4))] = r.app()
	case 11:
		delete(u.App, fmt.Sprint("app", r.rnd.Intn(4)))
	case 12:
		u.Config["conf"] = fleet.Config{File: map[string]string{"a": fmt.Sprintf("%d {{node.name}}", r.rnd.Intn(3))}}
	case 13:
		path := r.pick(r.workspaces)
		r.syntax[path] = !r.syntax[path] && r.rnd.Intn(2) == 0
	case 14:
		if r.rnd.Intn(3) == 0 {
			u.Route["r"] = fleet.Route{To: fleet.RouteTo{Endpoint: "none"}} // dangles
		} else {
			delete(u.Route, "r")
		}
	case 15: // a workspace directory is renamed, comes or goes
		path := r.pick(r.workspaces)
		switch to := fmt.Sprint("folders/w", r.rnd.Intn(8)); {
		case r.workspaces[to] == nil && r.rnd.Intn(2) == 0:
			r.workspaces[to] = r.workspaces[path]
			delete(r.workspaces, path)
		case r.workspaces[to] == nil:
			r.workspaces[to] = empty()
		case len(r.workspaces) > 3:
			delete(r.workspaces, to)
		}
	case 16:
		u.Platform.Engine = 1
		if r.rnd.Intn(6) == 0 {
			u.Platform.Engine = 2
		}
	}
}

// mend makes one workspace whole, as people do when they are told.
func (r *repo) mend(path string) {
	u := r.workspaces[path]
	if u == nil {
		return
	}
	u.Platform.Engine = 1
	delete(r.syntax, path)
	delete(u.Route, "r")
	for name := range u.App {
		if r.rnd.Intn(2) == 0 {
			delete(u.App, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(u.Node)) {
		n := u.Node[name]
		n.Capacity = nil
		u.Node[name] = n
		for other, v := range r.workspaces {
			if _, ok := v.Node[name]; ok && other != path {
				delete(u.Node, name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(u.Node)) {
		if n := u.Node[name]; n.Identity != nil && r.rnd.Intn(3) == 0 {
			n.Identity = &fleet.NodeIdentity{PublicKey: r.unusedKey()}
			u.Node[name] = n
		}
	}
}

func empty() *fleet.Unit { return ws("", func(*fleet.Unit) {}).Unit }

// fleet returns what evaluating the repo gives: values of its own each time, with IDs by content.
func (r *repo) fleet(t *testing.T) *fleet.Fleet {
	f := &fleet.Fleet{Workspaces: map[string]*fleet.Source{}}
	for path, u := range r.workspaces {
		if r.syntax[path] {
			f.Workspaces[path] = refusedWS(path)
			continue
		}
		b, err := json.Marshal(u)
		if err != nil {
			t.Fatal(err)
		}
		s := ws(path, func(c *fleet.Unit) {
			*c = fleet.Unit{}
			if err := json.Unmarshal(b, c); err != nil {
				t.Fatal(err)
			}
		})
		sum := sha256.Sum256(append([]byte(path+"\x00"), b...))
		s.ID = hex.EncodeToString(sum[:])
		f.Workspaces[path] = s
	}
	return f
}

func newRepo(seed int64) *repo {
	r := &repo{rnd: rand.New(rand.NewSource(seed)), workspaces: map[string]*fleet.Unit{}, syntax: map[string]bool{}}
	for i := range 4 {
		r.workspaces[fmt.Sprint("folders/w", i)] = empty()
	}
	return r
}

// TestIncrementalEqualsFull shows on random histories that what a resolver remembers
// changes nothing, and that names and keys never have two holders.
func TestIncrementalEqualsFull(t *testing.T) {
	var states, held, refused int
	for seed := range int64(10) {
		r := newRepo(seed)
		incremental := New(Config{})
		before := Accepted{}
		for step := range 200 {
			for range 1 + r.rnd.Intn(4) {
				r.change()
			}
			f := r.fleet(t)
			got := incremental.Resolve(f, before)
			want := New(Config{}).Resolve(f, before)
			at := fmt.Sprintf("seed %d, step %d", seed, step)
			equal(t, at, want, got)
			invariants(t, at, f, before, got)
			// The record of a commit that was resolved changes nothing when it is resolved again.
			again := incremental.Resolve(f, got.Accepted)
			if d := cmp.Diff(got.Accepted, again.Accepted); d != "" {
				t.Fatalf("%s: not settled: %s", at, d)
			}
			if d := cmp.Diff(list(got.Nodes, digestOf), list(again.Nodes, digestOf)); d != "" {
				t.Fatalf("%s: other states when resolved again: %s", at, d)
			}
			before = got.Accepted
			for _, path := range got.Refused {
				if r.rnd.Intn(3) == 0 {
					r.mend(path)
				}
			}
			states, held, refused = states+len(got.Nodes), held+len(got.Held), refused+len(got.Refused)
			if r.rnd.Intn(40) == 0 {
				incremental = New(Config{}) // a restart
			}
		}
	}
	t.Logf("%d states, %d held, %d workspaces refused", states, held, refused)
	if states < 1000 || held < 1000 || refused < 500 {
		t.Error("the histories are too tame to show anything")
	}
}

func digestOf(r Rendered) string { return r.Workspace + r.Digest }

func equal(t *testing.T, at string, want, got *Result) {
	t.Helper()
	if d := cmp.Diff(list(want.Nodes, digestOf), list(got.Nodes, digestOf)); d != "" {
		t.Fatalf("%s: states: %s", at, d)
	}
	for name, n := range got.Nodes {
		b := n.Bytes()
		if string(b) != string(want.Nodes[name].Bytes()) || nodestate.Digest(b) != n.Digest {
			t.Fatalf("%s: bytes of %s differ", at, name)
		}
	}
	w, g := *want, *got
	w.Nodes, g.Nodes = nil, nil
	if d := cmp.Diff(w, g); d != "" {
		t.Fatalf("%s: %s", at, d)
	}
}

func invariants(t *testing.T, at string, f *fleet.Fleet, before Accepted, got *Result) {
	t.Helper()
	keys := map[string]string{} // of rendered nodes
	for name, n := range got.Nodes {
		if _, ok := got.Held[name]; ok {
			t.Fatalf("%s: %s is rendered and held", at, name)
		}
		if slices.Contains(got.Refused, n.Workspace) {
			t.Fatalf("%s: %s is rendered for a refused workspace", at, name)
		}
		s, err := nodestate.Decode(n.Bytes())
		if err != nil {
			t.Fatalf("%s: no node would accept this: %v", at, err)
		}
		if other := keys[s.Identity.PublicKey]; other != "" {
			t.Fatalf("%s: %s and %s have one key", at, name, other)
		}
		keys[s.Identity.PublicKey] = name
		if got.Accepted.Keys[s.Identity.PublicKey] != name || got.Accepted.Nodes[name] != n.Workspace {
			t.Fatalf("%s: %s is rendered and not accepted", at, name)
		}
	}
	for name, path := range before.Nodes {
		if !slices.Contains(got.Refused, path) {
			continue
		}
		if got.Accepted.Nodes[name] != path {
			t.Fatalf("%s: %s left refused %s for %q", at, name, path, got.Accepted.Nodes[name])
		}
		for k, n := range before.Keys {
			if n == name && got.Accepted.Keys[k] != name {
				t.Fatalf("%s: key of held %s went to %q", at, name, got.Accepted.Keys[k])
			}
		}
	}
	for path, src := range f.Workspaces {
		if src.Unit == nil && !slices.Contains(got.Refused, path) {
			t.Fatalf("%s: %s is not refused", at, path)
		}
	}
	for _, path := range got.Refused { // nobody is refused without being told
		if u := f.Workspaces[path].Unit; u == nil || u.Platform.Engine > 1 { // said once for all
			continue
		}
		if !slices.ContainsFunc(got.Problems, func(p fleet.Problem) bool { return p.Workspace == path && p.Severity == fleet.Error }) {
			t.Fatalf("%s: %s is refused and nothing says why", at, path)
		}
	}
}
