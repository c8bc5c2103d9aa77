package resolve

import (
	"fmt"
	"maps"
	"slices"

	"selvedge/schema/fleet"
)

// claim is a node as one workspace declares it.
type claim struct{ path, node string }

// claims settles who holds which node name and which key. Refusing one workspace keeps
// its names and keys where they are, which may refuse another one that was to get them: the
// set of refused workspaces only grows until nothing changes, so the outcome does not
// depend on any order.
type claims struct {
	all     map[string]*workspace
	before  Accepted
	refused map[string]bool

	name     map[string]string   // node → path of one workspace that declares it
	nameToo  map[string][]string // all of them, where there are several
	key      map[string]claim    // public key → one node that has it
	keyToo   map[string][]claim  // all of them, where there are several
	unknown  []string            // workspaces that could not be evaluated, sorted
	arrived  []string            // those of them that had no node before: perhaps renamed directories
	disputed []string            // names to look at: declared twice, or moved
	wanted   []string            // keys to look at: declared twice, or moved
	same     bool                // what is declared is what was accepted before, name by name and key by key
}

func newClaims(all map[string]*workspace, before Accepted) *claims {
	c := &claims{
		all: all, before: before, refused: map[string]bool{},
		name: make(map[string]string, len(before.Nodes)), nameToo: map[string][]string{},
		key: make(map[string]claim, len(before.Keys)), keyToo: map[string][]claim{},
	}
	for _, path := range slices.Sorted(maps.Keys(all)) {
		w := all[path]
		c.refused[path] = w.refused
		if w.src.Unit == nil {
			c.unknown = append(c.unknown, path)
			continue
		}
		for _, d := range w.declared {
			name, k := d.node, d.key
			if first, ok := c.name[name]; !ok {
				c.name[name] = path
			} else {
				if c.nameToo[name] == nil {
					c.nameToo[name] = []string{first}
				}
				c.nameToo[name] = append(c.nameToo[name], path)
			}
			if !d.keyed {
				continue
			}
			if first, ok := c.key[k]; !ok {
				c.key[k] = claim{path, name}
			} else {
				if c.keyToo[k] == nil {
					c.keyToo[k] = []claim{first}
				}
				c.keyToo[k] = append(c.keyToo[k], claim{path, name})
			}
		}
	}
	if len(c.unknown) > 0 {
		had := map[string]bool{}
		for _, path := range before.Nodes {
			had[path] = true
		}
		c.arrived = slices.DeleteFunc(slices.Clone(c.unknown), func(path string) bool { return had[path] })
	}
	c.same = len(c.name) == len(before.Nodes) && len(c.key) == len(before.Keys)
	for name, path := range c.name {
		was, ok := before.Nodes[name]
		if c.nameToo[name] != nil || ok && was != path {
			c.disputed = append(c.disputed, name)
		}
		c.same = c.same && ok
	}
	for k, cl := range c.key {
		was, ok := before.Keys[k]
		if c.keyToo[k] != nil || ok && was != cl.node {
			c.wanted = append(c.wanted, k)
		}
		c.same = c.same && ok
	}
	c.same = c.same && len(c.disputed) == 0 && len(c.wanted) == 0
	return c
}

// declarers returns the paths of the workspaces that declare a node.
func (c *claims) declarers(name string) []string {
	if too := c.nameToo[name]; too != nil {
		return too
	}
	if path, ok := c.name[name]; ok {
		return []string{path}
	}
	return nil
}

func (c *claims) declares(path, name string) bool {
	w := c.all[path]
	if w == nil || w.src.Unit == nil {
		return false
	}
	_, ok := w.src.Unit.Node[name]
	return ok
}

// held reports whether a node keeps its last state: its workspace is refused, or it left
// that one for another that is refused, or may have.
func (c *claims) held(name string) bool {
	was, ok := c.before.Nodes[name]
	if !ok {
		return false
	}
	return c.refused[was] || c.heldBy(name) != ""
}

// heldBy returns the refused workspace that a node was moved to, if any. A directory that was
// renamed and does not evaluate would otherwise take all of its nodes out of the fleet: while a
// workspace is gone and a new one says nothing, the one is taken for the other.
func (c *claims) heldBy(name string) string {
	was := c.before.Nodes[name]
	if c.declares(was, name) {
		return ""
	}
	all := c.declarers(name)
	if len(all) == 0 && c.all[was] == nil && len(c.arrived) > 0 {
		return c.arrived[0]
	}
	least := ""
	for _, path := range all {
		if c.refused[path] && (least == "" || path < least) {
			least = path
		}
	}
	return least
}

// owner returns the workspace that a name belongs to already, or "": the one that last
// had it, if it still declares it or is refused.
func (c *claims) owner(name string) string {
	was, ok := c.before.Nodes[name]
	if ok && (c.refused[was] || c.declares(was, name)) {
		return was
	}
	return ""
}

// settle refuses workspaces until no claim is left that it must refuse, and returns the
// problems by workspace.
func (c *claims) settle() map[string][]fleet.Problem {
	for {
		more := false
		refuse := func(path string) {
			if !c.refused[path] {
				c.refused[path], more = true, true
			}
		}
		for _, name := range c.disputed {
			for _, path := range c.losersOfName(name) {
				refuse(path)
			}
		}
		for _, k := range c.wanted {
			for _, cl := range c.losersOfKey(k) {
				refuse(cl.path)
			}
		}
		if !more {
			return c.problems()
		}
	}
}

func (c *claims) losersOfName(name string) []string {
	all, owner := c.declarers(name), c.owner(name)
	if owner == "" && len(all) == 1 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(all), func(path string) bool { return path == owner })
}

func (c *claims) losersOfKey(k string) []claim {
	all := c.keyToo[k]
	if all == nil {
		all = []claim{c.key[k]}
	}
	holder, ok := c.before.Keys[k]
	if ok && (c.held(holder) || slices.ContainsFunc(all, func(cl claim) bool { return cl.node == holder })) {
		// One node in two workspaces is a matter of its name.
		return slices.DeleteFunc(slices.Clone(all), func(cl claim) bool { return cl.node == holder })
	}
	if !slices.ContainsFunc(all, func(cl claim) bool { return cl.node != all[0].node }) {
		return nil
	}
	return all
}

func (c *claims) problems() map[string][]fleet.Problem {
	out := map[string][]fleet.Problem{}
	add := func(path, node, format string, args ...any) {
		out[path] = append(out[path], c.all[path].problem(fleet.Error, "node", node, fmt.Sprintf(format, args...)))
	}
	for _, name := range c.disputed {
		losers, owner := c.losersOfName(name), c.owner(name)
		for _, path := range losers {
			switch {
			case owner != "" && c.declares(owner, name):
				add(path, name, "the name belongs to the node at %s; node names are unique in the whole platform: choose another one", c.place(owner, name))
			case owner != "":
				add(path, name, "the name still belongs to %s, which is refused and keeps its nodes; mend that workspace first, or choose another name", owner)
			default:
				others := slices.DeleteFunc(slices.Clone(losers), func(p string) bool { return p == path })
				slices.Sort(others)
				add(path, name, "declared at %s too; node names are unique in the whole platform: rename all but one", c.place(others[0], name))
			}
		}
	}
	for _, k := range c.wanted {
		losers := c.losersOfKey(k)
		holder := c.before.Keys[k]
		for _, cl := range losers {
			const next = "every node has a key of its own: run selvedge-edge init on this one and put its public key here"
			switch at := c.holderPlace(holder, k); {
			case at != "":
				add(cl.path, cl.node, "its public key belongs to node %q at %s; %s", holder, at, next)
			case c.held(holder):
				add(cl.path, cl.node, "its public key still belongs to node %q of %s, which keeps its last state because a workspace is refused; mend that first, or give this node a key of its own: run selvedge-edge init on it and put its public key here", holder, c.before.Nodes[holder])
			default:
				others := slices.DeleteFunc(slices.Clone(losers), func(o claim) bool { return o.node == cl.node })
				slices.SortFunc(others, func(a, b claim) int { return slices.Compare([]string{a.node, a.path}, []string{b.node, b.path}) })
				add(cl.path, cl.node, "node %q at %s has the same public key; %s", others[0].node, c.place(others[0].path, others[0].node), next)
			}
		}
	}
	return out
}

// holderPlace returns where the holder of a key declares it, or "" if it does not.
func (c *claims) holderPlace(holder, k string) string {
	if holder == "" {
		return ""
	}
	all := c.keyToo[k]
	least := ""
	for _, cl := range all {
		if cl.node == holder && (least == "" || cl.path < least) {
			least = cl.path
		}
	}
	if least == "" {
		return ""
	}
	return c.place(least, holder)
}

// place says where a node is declared, for people.
func (c *claims) place(path, node string) string {
	return c.all[path].origin("node", node).Position.String()
}
