package follow

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"selvedge/schema/nodestate"
	"selvedge/schema/roster"
)

// maxHistory is how many changes a view holds; the reconciler keeps as many.
const maxHistory = 200

// with returns the view after a change, and what the change did. The view itself stays as it is.
func (v *View) with(g *group, now time.Time) (*View, Delta, error) {
	for name := range g.Nodes {
		if !nodestate.ValidNode(name) { // names are bus subjects and repositories
			return nil, Delta{}, fmt.Errorf("%.80q is no name of a node", name)
		}
	}
	next := &View{Fleet: v.Fleet, Changes: v.Changes, Trust: v.Trust, Loaded: true, At: now}
	d := Delta{Reset: g.reset, Nodes: g.Nodes, Changes: g.Changes}
	nodes, keys := v.nodes.edit(), v.keys.edit()
	if g.reset {
		nodes, keys = (table[roster.Node]{}).edit(), (table[string]{}).edit()
		if g.Fleet == nil {
			g.Fleet = &roster.Fleet{}
		}
	}
	old := map[string]bool{} // keys that a node had and may have no more
	for _, name := range g.Removed {
		n, had := nodes.get(name)
		if !had {
			continue
		}
		nodes.remove(name)
		if n.PublicKey != "" {
			keys.remove(n.PublicKey)
			old[n.PublicKey] = true
		}
		d.Removed = append(d.Removed, name)
	}
	added := false
	for name, n := range g.Nodes {
		was, had := nodes.get(name)
		added = added || !had
		if had && was.PublicKey != "" && was.PublicKey != n.PublicKey {
			old[was.PublicKey] = true
			if holder, _ := keys.get(was.PublicKey); holder == name {
				keys.remove(was.PublicKey)
			}
		}
		nodes.set(name, n)
		if n.PublicKey == "" {
			continue
		}
		if holder, taken := keys.get(n.PublicKey); taken && holder != name {
			if _, changes := g.Nodes[holder]; !changes {
				return nil, Delta{}, fmt.Errorf("nodes %s and %s have one key", name, holder)
			}
		}
		keys.set(n.PublicKey, name)
	}
	for name, n := range g.Nodes {
		if holder, _ := keys.get(n.PublicKey); n.PublicKey != "" && holder != name {
			return nil, Delta{}, fmt.Errorf("nodes %s and %s have one key", name, holder)
		}
	}
	d.Removed = slices.DeleteFunc(d.Removed, func(name string) bool { _, back := g.Nodes[name]; return back })
	next.nodes, next.keys = nodes.table(), keys.table()
	if g.reset {
		v.lost(next, &d, old)
	}
	for key := range old {
		if _, ok := next.keys.get(key); !ok {
			d.GoneKeys = append(d.GoneKeys, key)
		}
	}
	slices.Sort(d.GoneKeys)
	slices.Sort(d.Removed)
	next.names = v.names
	switch {
	case g.reset:
		next.names = slices.Sorted(maps.Keys(g.Nodes))
	case added || len(d.Removed) > 0:
		next.names = renamed(v.names, g.Nodes, d.Removed)
	}
	next.said(v, g, &d)
	return next, d, nil
}

// lost notes what the view before a reset had and the one after has not.
func (v *View) lost(next *View, d *Delta, old map[string]bool) {
	for name, n := range v.Nodes() {
		if _, ok := next.nodes.get(name); !ok {
			d.Removed = append(d.Removed, name)
		}
		if n.PublicKey != "" {
			old[n.PublicKey] = true
		}
	}
}

// said takes over what is not of nodes.
func (v *View) said(before *View, g *group, d *Delta) {
	if g.Fleet != nil {
		v.Fleet, d.Fleet = *g.Fleet, true
	}
	if g.reset {
		v.Trust, v.Changes = "", nil
	}
	if g.Trust != "" {
		v.Trust = g.Trust
	}
	d.Trust = v.Trust != before.Trust
	if len(g.Changes) > 0 {
		all := slices.Concat(v.Changes, g.Changes)
		v.Changes = all[max(0, len(all)-maxHistory):]
	}
}

// renamed returns the names, sorted, with new ones and without removed ones.
func renamed(names []string, nodes map[string]roster.Node, removed []string) []string {
	out := make([]string, 0, len(names)+len(nodes))
	for _, name := range names {
		if _, gone := slices.BinarySearch(removed, name); !gone {
			out = append(out, name)
		}
	}
	for name := range nodes {
		out = append(out, name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
