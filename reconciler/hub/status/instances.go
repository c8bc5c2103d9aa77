package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

// all is no name of a node, and after all of them.
const all = "\xff"

// found is a container in a record.
type found struct {
	r   *record
	app *wire.App
	c   *wire.Instance
}

// Instances lists containers. Search is for a part of node, app, container or image, App for
// the one app; Status and Condition are the node's. It sorts by name (node, app, container), cpu,
// memory or restarts.
func (s *Store) Instances(q Query) (hubapi.List[hubapi.Instance], error) {
	out := hubapi.List[hubapi.Instance]{}
	m, err := q.matcher()
	if err != nil {
		return out, err
	}
	order, reverse := strings.CutPrefix(q.Sort, "-")
	if !slices.Contains([]string{"", "name", "cpu", "memory", "restarts"}, order) {
		return out, badOrder(order, "name, cpu, memory and restarts")
	}
	// in the order of names, only those of the page are gathered; the others are counted
	var from string
	if named := order == "" || order == "name"; named && q.Continue != "" {
		k, err := place(q.Continue, q.Sort)
		if err != nil {
			return out, err
		}
		from, _, _ = strings.Cut(k.Name, "\x00")
	} else if !named {
		from = all
	}
	enough := limitOf(q.Limit)
	if reverse {
		from = all
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var rows []row[found]
	beyond := 0 // rows of nodes after from
	for _, r := range s.order {
		if r.report == nil || !m.node(r) {
			continue
		}
		for i := range r.report.Apps {
			a := &r.report.Apps[i]
			if q.App != "" && a.Name != q.App {
				continue
			}
			for j := range a.Containers {
				c := &a.Containers[j]
				if m.search != "" && !holds(m.search, r.name, a.Name, c.Name, c.Image) {
					continue
				}
				out.Total++
				if from != all && (r.name < from || beyond > enough) {
					continue
				}
				if r.name > from {
					beyond++
				}
				k := key{Sort: order, Name: r.name + "\x00" + a.Name + "\x00" + c.Name}
				u := c.Usage
				if u == nil {
					u = &wire.Usage{}
				}
				switch order {
				case "cpu":
					k.Num = -u.CPU
				case "memory":
					k.Num = -float64(u.Memory)
				case "restarts":
					k.Num = -float64(c.Restarts)
				}
				rows = append(rows, row[found]{k, found{r, a, c}})
			}
		}
	}
	// apps of a node come in the order of its report
	list, cont, err := page(rows, q, q.Sort, reverse, false)
	if err != nil {
		return out, err
	}
	out.Continue, out.Items = cont, make([]hubapi.Instance, 0, len(list))
	for _, f := range list {
		out.Items = append(out.Items, hubapi.Instance{Node: f.r.name, Workspace: f.r.want.Workspace, App: f.app.Name, Instance: *f.c, Stale: f.r.ready == hubapi.Unknown || f.r.ready == hubapi.Waiting})
	}
	return out, nil
}

func holds(part string, texts ...string) bool {
	return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(strings.ToLower(t), part) })
}

// Apps lists apps by workspace, counting the nodes that the query chooses; Search is for a
// part of the app's name or workspace. It sorts by workspace and name only.
func (s *Store) Apps(q Query) (hubapi.List[hubapi.App], error) {
	out := hubapi.List[hubapi.App]{}
	m, err := q.matcher()
	if err != nil {
		return out, err
	}
	if q.Sort != "" && q.Sort != "name" {
		return out, fmt.Errorf("%w: apps are sorted by workspace and name, and not by %q", ErrQuery, text(q.Sort, 40))
	}
	type id struct{ workspace, app string }
	apps := map[id]*hubapi.App{}
	get := func(workspace, app string) *hubapi.App {
		k := id{workspace, app}
		a := apps[k]
		if a == nil {
			a = &hubapi.App{Name: app, Workspace: workspace}
			apps[k] = a
		}
		return a
	}
	wanted := func(workspace, app string) bool {
		return (q.App == "" || q.App == app) && (m.search == "" || holds(m.search, app, workspace))
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	whole := q.Node == "" && q.Labels == "" && q.Condition == "" && len(q.Status) == 0
	for w, list := range s.fleet.Apps {
		if !m.scope(w) {
			continue
		}
		for _, a := range list {
			if wanted(w, a.Name) {
				get(w, a.Name).Scope = a.Scope
			}
		}
	}
	for _, r := range s.order {
		if !m.node(r) {
			continue
		}
		for _, name := range r.want.Apps {
			if !wanted(r.want.Workspace, name) {
				continue
			}
			a := get(r.want.Workspace, name)
			a.Nodes++
			switch {
			case r.ready == hubapi.Unknown || r.ready == hubapi.Waiting:
				a.Unknown++
			case slices.ContainsFunc(r.report.Apps, func(x wire.App) bool { return x.Name == name && x.Healthy }):
				a.Healthy++
			}
		}
	}
	var rows []row[*hubapi.App]
	for k, a := range apps {
		if a.Nodes > 0 || whole { // apps without nodes are apps, unless nodes were asked for
			rows = append(rows, row[*hubapi.App]{key{Name: k.workspace + "\x00" + k.app}, a})
		}
	}
	list, cont, err := page(rows, q, q.Sort, false, false)
	if err != nil {
		return out, err
	}
	out.Total, out.Continue, out.Items = len(rows), cont, make([]hubapi.App, 0, len(list))
	for _, a := range list {
		out.Items = append(out.Items, *a)
	}
	return out, nil
}

// Summary counts what is visible. Pending is for the caller to fill in; a problem of no
// workspace is for those who see the platform.
func (s *Store) Summary(visible func(workspace string) bool) hubapi.Summary {
	may := remember(visible)
	s.mu.RLock()
	defer s.mu.RUnlock()
	f := &s.fleet
	sum := hubapi.Summary{Platform: f.Platform, Seen: f.Seen, InForce: f.InForce, Error: f.Error, Status: map[hubapi.Readiness]int{}, Conditions: map[string]int{}}
	for _, p := range f.Problems {
		if may(p.Workspace) {
			sum.Problems = append(sum.Problems, p)
		}
	}
	lines := map[string]*hubapi.WorkspaceSummary{}
	line := func(w string) *hubapi.WorkspaceSummary {
		l, ok := lines[w]
		if !ok {
			if may(w) {
				l = &hubapi.WorkspaceSummary{Path: w, Title: f.Scopes[w].Title, Status: map[hubapi.Readiness]int{}}
			}
			lines[w] = l
		}
		return l
	}
	for w, scope := range f.Scopes {
		if scope.Kind == "workspace" {
			line(w)
		}
	}
	for _, r := range s.order {
		l := line(r.want.Workspace)
		if l == nil {
			continue
		}
		l.Nodes++
		l.Status[r.ready]++
		if r.converged {
			l.Converged++
		}
		for i := range r.conditions {
			sum.Conditions[r.conditions[i].Type]++
		}
	}
	for _, l := range lines {
		if l == nil {
			continue
		}
		sum.Nodes += l.Nodes
		sum.Converged += l.Converged
		for k, n := range l.Status {
			sum.Status[k] += n
		}
		sum.Workspaces = append(sum.Workspaces, *l)
	}
	slices.SortFunc(sum.Workspaces, func(a, b hubapi.WorkspaceSummary) int { return cmp.Compare(a.Path, b.Path) })
	return sum
}
