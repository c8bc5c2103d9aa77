package fleet

import "slices"

// Selector matches nodes whose labels have all of its pairs. The empty selector
// selects nothing: an app without placement runs nowhere.
type Selector map[string]string

// Matches reports whether labels have every pair of the selector.
func (s Selector) Matches(labels map[string]string) bool {
	if len(s) == 0 {
		return false
	}
	for k, v := range s {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// On reports whether the app is placed on a node. A drained node gets no app.
func (a *App) On(name string, n Node) bool {
	if n.Drain {
		return false
	}
	return a.Placement.Selector.Matches(n.Labels) || slices.Contains(a.Placement.Nodes, name)
}

func (o *Override) on(name string, n Node) bool {
	return o.Selector.Matches(n.Labels) || slices.Contains(o.Nodes, name)
}
