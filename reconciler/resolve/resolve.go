package resolve

import (
	"fmt"
	"maps"
	"slices"

	"selvedge/schema/fleet"
	"selvedge/schema/nodestate"
)

// Accepted is who holds which name and key since the last commit that was resolved.
// It is small, and its JSON form is what a reconciler keeps over a restart.
type Accepted struct {
	Nodes map[string]string `json:"nodes"` // node → path of its workspace
	Keys  map[string]string `json:"keys"`  // public key → node
	// Access is what directories said of people and joining when they were accepted, by path.
	Access map[string]*Access `json:"access,omitempty"`
}

// Config holds the bounds of a Resolver.
type Config struct {
	// MaxWorkspaceBytes bounds the states of one workspace together, since a small file
	// on many nodes makes much. 0 means 256 MiB.
	MaxWorkspaceBytes int64
	// MaxProblems bounds what is said about one workspace. 0 means 100.
	MaxProblems int
}

// Rendered is the desired state of one node. Its bytes are kept in parts that the nodes of
// a workspace share.
type Rendered struct {
	Node      string
	Workspace string   // path
	Digest    string   // of the canonical bytes
	Apps      []string // names of the apps, sorted; shared
	Images    []string // that they need, sorted; shared

	head *nodestate.State
	apps [][]byte
}

// Bytes returns the canonical bytes, made anew by every call.
func (r Rendered) Bytes() []byte {
	if r.head == nil {
		return nil
	}
	return r.head.Join(nil, r.apps)
}

// Held is a node that keeps its last state.
type Held struct {
	Workspace string `json:"workspace"` // the one that last had it accepted
	Why       string `json:"why"`       // the first problem of the refused workspace
}

// Result is a resolved fleet.
type Result struct {
	Nodes    map[string]Rendered
	Held     map[string]Held
	Awaiting []string // nodes without an identity, sorted
	// Accepted is what to give to the next Resolve. Its Access is also what counts now of every
	// directory, whether it is of this commit or kept from before.
	Accepted Accepted
	// SameHolders tells that names and keys are held as before: Accepted has the maps of before.
	SameHolders bool
	Refused     []string // paths of refused workspaces, sorted
	// Problems are those that resolving found; those of the evaluation are in the fleet.
	Problems []fleet.Problem
}

// Resolver resolves fleets one after the other. It is not safe for concurrent use.
type Resolver struct {
	cfg  Config
	memo map[string]*workspace // by path

	access map[string]*declaration // by path
}

// New returns a resolver that remembers nothing yet.
func New(cfg Config) *Resolver {
	if cfg.MaxWorkspaceBytes <= 0 {
		cfg.MaxWorkspaceBytes = 256 << 20
	}
	if cfg.MaxProblems <= 0 {
		cfg.MaxProblems = 100
	}
	return &Resolver{cfg: cfg, memo: map[string]*workspace{}}
}

// Resolve computes the states of a fleet. The zero Accepted stands for a platform that has
// accepted nothing yet.
func (r *Resolver) Resolve(f *fleet.Fleet, before Accepted) *Result {
	all := make(map[string]*workspace, len(f.Workspaces))
	for path, src := range f.Workspaces {
		w := r.memo[path]
		if w == nil || src.ID == "" || w.id != src.ID || w.evaluated != (src.Unit != nil) {
			w = render(r.cfg, path, src)
		}
		w.src = src
		all[path] = w
	}
	c := newClaims(all, before)
	a := newAccess(c, f, r.access)
	out := join(c, a, before)
	r.access = a.fresh
	for _, w := range all {
		w.src = nil
	}
	r.memo = all
	return out
}

// Render computes the state of one node, as Resolve does, from its workspace alone:
// whether its name and key belong to it is not asked.
func Render(f *fleet.Fleet, node string) (Rendered, error) {
	var in []string
	for path, src := range f.Workspaces {
		if src.Unit == nil {
			continue
		}
		if _, ok := src.Unit.Node[node]; ok {
			in = append(in, path)
		}
	}
	slices.Sort(in)
	switch len(in) {
	case 0:
		return Rendered{}, fmt.Errorf("node %q: no accepted workspace declares it", node)
	case 1:
	default:
		return Rendered{}, fmt.Errorf("node %q: declared in %v; node names are unique in the whole platform: rename all but one", node, in)
	}
	w := render(New(Config{}).cfg, in[0], f.Workspaces[in[0]])
	if w.refused {
		return Rendered{}, fmt.Errorf("node %q: its workspace is refused: %s", node, w.why())
	}
	got, ok := w.nodes[node]
	if !ok {
		return Rendered{}, fmt.Errorf("node %q: it has no identity yet and gets no state; put its public key under identity", node)
	}
	return got, nil
}

// join puts the workspaces together: who is refused, who holds what, what is said.
func join(c *claims, a *access, before Accepted) *Result {
	all := c.all
	found := c.settle()
	for a.settle() {
		found = c.settle() // a directory that is refused claims nothing anew
	}
	access := a.problems()
	for path := range all {
		found[path] = append(found[path], access[path]...)
		delete(access, path)
	}

	out := &Result{Nodes: make(map[string]Rendered, len(before.Nodes)), Held: map[string]Held{}}
	refused := slices.ContainsFunc(slices.Collect(maps.Values(c.refused)), func(refused bool) bool { return refused })
	out.SameHolders = c.same && !refused && before.Nodes != nil && before.Keys != nil
	if out.SameHolders {
		out.Accepted.Nodes, out.Accepted.Keys = before.Nodes, before.Keys
	} else {
		out.Accepted.Nodes, out.Accepted.Keys = make(map[string]string, len(before.Nodes)), make(map[string]string, len(before.Keys))
	}
	for _, path := range slices.Sorted(maps.Keys(all)) {
		w := all[path]
		out.Problems = append(out.Problems, w.problems...)
		out.Problems = append(out.Problems, found[path]...)
		if c.refused[path] {
			out.Refused = append(out.Refused, path)
			continue
		}
		for _, d := range w.declared {
			if !out.SameHolders {
				out.Accepted.Nodes[d.node] = path
			}
			if !d.keyed {
				out.Awaiting = append(out.Awaiting, d.node)
				continue
			}
			if !out.SameHolders {
				out.Accepted.Keys[d.key] = d.node
			}
			out.Nodes[d.node] = w.nodes[d.node]
		}
	}
	for _, elsewhere := range access {
		out.Problems = append(out.Problems, elsewhere...)
	}
	out.Problems = append(out.Problems, c.looseNames()...)
	out.Accepted.Access = a.settled()
	out.Problems = append(out.Problems, a.warnings(out.Accepted.Access)...)
	held := map[string]bool{}
	if refused { // else nothing holds a node back
		for name := range before.Nodes {
			if c.held(name) {
				held[name] = true
			}
		}
	}
	withKey := map[string]bool{}
	if len(held) > 0 {
		for key, name := range before.Keys {
			if held[name] {
				out.Accepted.Keys[key] = name
				withKey[name] = true
			}
		}
	}
	for name := range held {
		path := before.Nodes[name]
		out.Accepted.Nodes[name] = path
		if !withKey[name] {
			out.Awaiting = append(out.Awaiting, name)
			continue
		}
		cause := path
		if !c.refused[path] {
			cause = c.heldBy(name)
		}
		out.Held[name] = Held{Workspace: path, Why: why(all[cause], found[cause])}
	}
	slices.Sort(out.Awaiting)
	out.Problems = fleet.SortProblems(out.Problems)
	return out
}

// why returns the first error of a refused workspace.
func why(w *workspace, found []fleet.Problem) string {
	if text := w.why(); text != "" {
		return text
	}
	return firstError(found)
}

func firstError(ps []fleet.Problem) string {
	ps = fleet.SortProblems(slices.Clone(ps))
	for _, p := range ps {
		if p.Severity == fleet.Error {
			return p.String()
		}
	}
	return ""
}
