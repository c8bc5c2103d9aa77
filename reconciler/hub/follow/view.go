package follow

import (
	"iter"
	"sort"
	"strings"
	"time"

	"selvedge/schema/roster"
)

// View is the roster at one time. It never changes; all of its methods may be called by many.
// Maps and slices in it are shared: do not write to them.
type View struct {
	Fleet   roster.Fleet
	Changes []roster.Change // oldest first
	Trust   string          // digest of the root documents
	// Loaded tells that the reconciler has told something, now or before the start. Until
	// then nothing is known of anybody, which is not the same as nobody being there.
	Loaded bool
	At     time.Time // when the last change came; from the cache: when that was written

	nodes table[roster.Node]
	keys  table[string] // name by public key
	names []string      // sorted
}

// Delta is what one change did to the view before it.
type Delta struct {
	Reset    bool                   // Nodes are all nodes
	Nodes    map[string]roster.Node // new or changed
	Removed  []string               // sorted
	GoneKeys []string               // public keys that no node has any more, sorted
	Fleet    bool                   // View.Fleet is another one
	Trust    bool                   // View.Trust is another one
	Changes  []roster.Change        // commits that took effect, oldest first
}

// Node returns a node by its name.
func (v *View) Node(name string) (roster.Node, bool) { return v.nodes.get(name) }

// NodeByKey returns the node that has a public key.
func (v *View) NodeByKey(publicKey string) (name string, n roster.Node, ok bool) {
	if publicKey == "" {
		return "", n, false
	}
	if name, ok = v.keys.get(publicKey); !ok {
		return "", n, false
	}
	n, ok = v.nodes.get(name)
	return name, n, ok && n.PublicKey == publicKey
}

// Names returns the names of all nodes, sorted. The slice is shared.
func (v *View) Names() []string { return v.names }

// Nodes runs over all nodes by name.
func (v *View) Nodes() iter.Seq2[string, roster.Node] {
	return func(yield func(string, roster.Node) bool) {
		for _, name := range v.names {
			if n, ok := v.nodes.get(name); ok && !yield(name, n) {
				return
			}
		}
	}
}

// Guided counts the nodes with a key under a guide's prefix and scope: those that it let in, as
// far as their names tell.
func (v *View) Guided(g roster.Guide) (n int) {
	for i := sort.SearchStrings(v.names, g.Prefix); i < len(v.names) && strings.HasPrefix(v.names[i], g.Prefix); i++ {
		node, ok := v.Node(v.names[i])
		if ok && node.PublicKey != "" && (g.Scope == "" || strings.HasPrefix(node.Workspace+"/", g.Scope+"/")) {
			n++
		}
	}
	return n
}
