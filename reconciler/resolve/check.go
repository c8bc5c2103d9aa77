package resolve

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"selvedge/schema/fleet"
)

// clash is two containers that want one port of a node.
type clash struct{ first, second portClaim }

// takers is who listens on one port of a node, by address.
type takers struct {
	by             map[netip.Addr]portClaim
	first4, first6 *portClaim
}

// other returns who else listens where p would. The unspecified address of IPv6 takes IPv4
// too, as Linux does unless told otherwise.
func (t *takers) other(p portClaim) (portClaim, bool) {
	if o, ok := t.by[p.address]; ok {
		return o, true
	}
	if o, ok := t.by[netip.IPv6Unspecified()]; ok {
		return o, true
	}
	if o, ok := t.by[netip.IPv4Unspecified()]; ok && p.address.Is4() {
		return o, true
	}
	if p.address.IsUnspecified() && t.first4 != nil {
		return *t.first4, true
	}
	if p.address == netip.IPv6Unspecified() && t.first6 != nil {
		return *t.first6, true
	}
	return portClaim{}, false
}

// clashes returns the ports that are taken twice when these apps share a node.
func clashes(vs []*variant) []clash {
	type at struct {
		protocol string
		port     int
	}
	taken := map[at]*takers{}
	var out []clash
	for _, v := range vs {
		for _, p := range v.ports {
			k := at{p.protocol, p.host}
			t := taken[k]
			if t == nil {
				t = &takers{by: map[netip.Addr]portClaim{}}
				taken[k] = t
			}
			if o, ok := t.other(p); ok {
				out = append(out, clash{o, p})
				continue
			}
			t.by[p.address] = p
			switch {
			case p.address.Is4() && t.first4 == nil:
				t.first4 = &p
			case p.address.Is6() && t.first6 == nil:
				t.first6 = &p
			}
		}
	}
	return out
}

func (r *renderer) checkPorts(co *combo, node string) {
	for _, c := range co.clashes {
		// Said where the workspace can mend it: at its own app rather than at an inherited one.
		p, other := c.second, c.first
		if r.inherited("app", p.app) && !r.inherited("app", other.app) {
			p, other = other, p
		}
		r.errorf("app", p.app, node, "container %q: port %q wants %s, which container %q of app %q takes (port %q); choose another host port, or place the apps on different nodes",
			p.container, p.port, p, other.container, other.app, other.port)
	}
}

func (p portClaim) String() string {
	return fmt.Sprintf("%s/%s of the node", netip.AddrPortFrom(p.address, uint16(p.host)), p.protocol)
}

// checkCapacity holds the limits of a node's containers against what the node has. A
// container without a limit counts for nothing: the policy "limits" asks for one.
func (r *renderer) checkCapacity(co *combo, name string, n fleet.Node) {
	if n.Capacity == nil {
		return
	}
	cpu, err := milli(n.Capacity.CPU)
	if err != nil {
		r.errorf("node", name, "", "capacity.cpu: %v", err)
		return
	}
	memory, err := bytesOf(n.Capacity.Memory)
	if err != nil {
		r.errorf("node", name, "", "capacity.memory: %v", err)
		return
	}
	if cpu > 0 && co.milliCPU > cpu {
		r.errorf("node", name, "", "its apps may use %s cores (%s), and it has %s; lower their limits, or run fewer apps on it",
			cores(co.milliCPU), sum(co, func(l limit) int64 { return l.milliCPU }, cores), cores(cpu))
	}
	if memory > 0 && co.memory > memory {
		r.errorf("node", name, "", "its apps may use %s of memory (%s), and it has %s; lower their limits, or run fewer apps on it",
			size(co.memory), sum(co, func(l limit) int64 { return l.memory }, size), size(memory))
	}
}

// sum writes what adds up, the largest first.
func sum(co *combo, of func(limit) int64, unit func(int64) string) string {
	var all []limit
	for _, v := range co.variants {
		for _, l := range v.limits {
			if of(l) > 0 {
				all = append(all, l)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b limit) int { return cmp.Compare(of(b), of(a)) })
	const most = 10
	var parts []string
	for _, l := range all[:min(len(all), most)] {
		parts = append(parts, l.name+" "+unit(of(l)))
	}
	if len(all) > most {
		rest := int64(0)
		for _, l := range all[most:] {
			rest += of(l)
		}
		parts = append(parts, fmt.Sprintf("%d others %s", len(all)-most, unit(rest)))
	}
	return strings.Join(parts, " + ")
}

// checkNames finds names that nothing has. What an inherited entity asks for is judged
// where the entity is used: a folder's app may be meant for the workspace next door.
func (r *renderer) checkNames() {
	for _, a := range r.apps {
		r.nodesNamed("app", a.name, "placement.nodes", a.fleet.Placement.Nodes)
		for i, o := range a.fleet.Override {
			r.nodesNamed("app", a.name, fmt.Sprintf("override[%d].nodes", i), o.Nodes)
		}
		if !a.placed && r.inherited("app", a.name) {
			continue
		}
		for i, o := range a.fleet.Override {
			for _, c := range slices.Sorted(maps.Keys(o.Container)) {
				if _, ok := a.fleet.Container[c]; !ok {
					r.errorf("app", a.name, "", "override[%d]: unknown container %q; the app has %s", i, c, quoted(a.fleet.Container))
				}
			}
		}
		if !a.placed { // else rendering has said it
			if _, err := startOrder(&a.fleet); err != nil {
				r.errorf("app", a.name, "", "%v", err)
			} else if _, err := files1(&a.fleet, r.unit.Config); err != nil {
				r.errorf("app", a.name, "", "%v", err)
			}
		}
		for _, m := range slices.Sorted(maps.Keys(a.fleet.Model)) {
			if _, ok := r.unit.Model[m]; !ok && a.fleet.Model[m].Artifact == "" {
				r.unknown("app", a.name, "model", m)
			}
		}
		for _, s := range slices.Sorted(maps.Keys(a.fleet.Secret)) {
			if _, ok := r.unit.Secret[s]; !ok {
				r.unknown("app", a.name, "secret", s)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.unit.Endpoint)) {
		if e := r.unit.Endpoint[name]; e.REST != nil && e.REST.Secret != "" {
			if _, ok := r.unit.Secret[e.REST.Secret]; !ok {
				r.unknown("endpoint", name, "secret", e.REST.Secret)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.unit.Route)) {
		if to := r.unit.Route[name].To.Endpoint; to != "" {
			if _, ok := r.unit.Endpoint[to]; !ok {
				r.unknown("route", name, "endpoint", to)
			}
		}
	}
}

func (r *renderer) unknown(kind, name, what, which string) {
	r.errorf(kind, name, "", "unknown %s %q; declare it under %s: in this workspace or a folder above", what, which, what)
}

// nodesNamed looks for nodes that are named one by one.
func (r *renderer) nodesNamed(kind, name, field string, nodes []string) {
	for _, n := range nodes {
		if _, ok := r.unit.Node[n]; ok {
			continue
		}
		if r.inherited(kind, name) {
			r.loose = append(r.loose, loose{r.origin(kind, name).Scope, kind, name, field, n})
			continue
		}
		r.errorf(kind, name, "", "%s: unknown node %q; declare it under node: in this workspace, or remove it here", field, n)
	}
}

// looseNames warns of nodes that an inherited entity names and no workspace below its
// folder has. It is no error: removing a node must not refuse the workspaces of others.
func (c *claims) looseNames() []fleet.Problem {
	var out []fleet.Problem
	asked := map[loose]bool{}
	for _, path := range slices.Sorted(maps.Keys(c.all)) {
		w := c.all[path]
		for _, l := range w.loose {
			if asked[l] {
				continue
			}
			asked[l] = true
			below := func(p string) bool { return l.scope == "" || strings.HasPrefix(p, l.scope+"/") }
			if slices.ContainsFunc(c.declarers(l.node), below) || slices.ContainsFunc(c.unknown, below) {
				continue
			}
			out = append(out, w.problem(fleet.Warning, l.kind, l.name, fmt.Sprintf("%s: no workspace below has a node %q; remove the name, or declare the node", l.field, l.node)))
		}
	}
	return out
}
