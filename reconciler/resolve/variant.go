package resolve

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"selvedge/schema/fleet"
	"selvedge/schema/nodestate"
)

// variant is an app with one set of its overrides merged in. Most are the same on
// every node; others differ in the fields of the node that their strings ask for.
type variant struct {
	key      string
	app      nodestate.App // with templates where there are any
	ports    []portClaim
	limits   []limit
	milliCPU int64
	memory   int64

	bytes   []byte // canonical, if static
	fields  []string
	strings []slot
	made    map[string][]byte // canonical, by the values of fields
	checked []int             // lengths of values, by field, of an app that was checked
}

// slot is one string of the app with fields in it.
type slot struct {
	place string
	t     template
	set   func(*nodestate.App, string) // in a copy that prepare's copy can be given to
}

// limit is what one container may use, for the message of checkCapacity.
type limit struct {
	name             string
	milliCPU, memory int64
}

// portClaim is a port of the node that a container takes.
type portClaim struct {
	app, container, port string
	host                 int
	protocol             string
	address              netip.Addr
}

func (v *variant) static() bool { return len(v.fields) == 0 }

// claimPorts notes the ports of the node that a container takes. On the host's own network
// a port that is declared is taken as it is, without being published.
func (v *variant) claimPorts(cname string, c *fleet.Container) error {
	for _, pname := range slices.Sorted(maps.Keys(c.Port)) {
		p := c.Port[pname]
		if p.Host == 0 {
			continue
		}
		if c.Network == "none" {
			return fmt.Errorf("port %q: host %d, but the network is none; remove host, or set network to bridge", pname, p.Host)
		}
		if c.Network == "host" && p.Host != p.Container {
			return fmt.Errorf("port %q: host %d and container %d, but on the network of the host they are one; make them equal, or set network to bridge", pname, p.Host, p.Container)
		}
		addr, err := netip.ParseAddr(p.Address)
		if err != nil {
			return fmt.Errorf("port %q: address %q is not an IP address", pname, clip(p.Address))
		}
		v.ports = append(v.ports, portClaim{v.app.Name, cname, pname, p.Host, p.Protocol, addr.Unmap()})
	}
	return nil
}

// prepare finds the templates and, if there are none with fields, renders the app.
func (v *variant) prepare() error {
	add := func(i int, place, s string, set func(*nodestate.Container, string)) error {
		if !strings.Contains(s, "{{") {
			return nil
		}
		t, err := parse(s)
		if err != nil {
			return fmt.Errorf("container %q: %s: %w", v.app.Containers[i].Name, place, err)
		}
		sl := slot{fmt.Sprintf("container %q: %s", v.app.Containers[i].Name, place), t, func(a *nodestate.App, s string) { set(&a.Containers[i], s) }}
		for _, f := range t.field {
			if !slices.Contains(v.fields, f) {
				v.fields = append(v.fields, f)
			}
		}
		v.strings = append(v.strings, sl)
		return nil
	}
	for i := range v.app.Containers {
		c := &v.app.Containers[i]
		for j, s := range c.Command {
			if err := add(i, fmt.Sprintf("command[%d]", j), s, func(c *nodestate.Container, s string) { c.Command[j] = s }); err != nil {
				return err
			}
		}
		for j, s := range c.Args {
			if err := add(i, fmt.Sprintf("args[%d]", j), s, func(c *nodestate.Container, s string) { c.Args[j] = s }); err != nil {
				return err
			}
		}
		for _, name := range slices.Sorted(maps.Keys(c.Env)) {
			if err := add(i, "env "+name, c.Env[name], func(c *nodestate.Container, s string) { c.Env[name] = s }); err != nil {
				return err
			}
		}
		for j, f := range c.Files {
			if err := add(i, "file "+f.Path, f.Content, func(c *nodestate.Container, s string) { c.Files[j].Content = s }); err != nil {
				return err
			}
		}
	}
	slices.Sort(v.fields)
	v.checked = make([]int, len(v.fields))
	for i := range v.checked {
		v.checked[i] = -1
	}
	v.made = map[string][]byte{}
	if v.static() { // {{{{ alone makes no difference between nodes
		b, err := v.with(nil)
		if err != nil {
			return err
		}
		v.bytes, v.made = b, nil
	}
	return nil
}

// on returns the canonical app on a node. Equal values share their bytes.
func (v *variant) on(f fields) ([]byte, error) {
	if v.static() {
		return v.bytes, nil
	}
	values := make(map[string]string, len(v.fields))
	var key strings.Builder
	for _, name := range v.fields {
		val, err := f.get(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", v.place(name), err)
		}
		if !utf8.ValidString(val) || strings.IndexByte(val, 0) >= 0 {
			return nil, fmt.Errorf("%s: {{%s}} is not UTF-8, or has a NUL", v.place(name), name)
		}
		values[name] = val
		fmt.Fprintf(&key, "%d %s", len(val), val)
	}
	if b, ok := v.made[key.String()]; ok {
		return b, nil
	}
	b, err := v.with(values)
	if err != nil {
		return nil, err
	}
	v.made[key.String()] = b
	return b, nil
}

// place returns the first string that asks for a field.
func (v *variant) place(field string) string {
	for _, s := range v.strings {
		if slices.Contains(s.t.field, field) {
			return s.place
		}
	}
	return ""
}

// with renders the app with values for its fields.
func (v *variant) with(values map[string]string) ([]byte, error) {
	a := v.app
	if len(v.strings) > 0 {
		a.Containers = slices.Clone(a.Containers)
		for i := range a.Containers {
			c := &a.Containers[i]
			c.Command, c.Args, c.Env, c.Files = slices.Clone(c.Command), slices.Clone(c.Args), maps.Clone(c.Env), slices.Clone(c.Files)
		}
		for _, s := range v.strings {
			s.set(&a, s.t.with(values))
		}
	}
	// All bounds on these strings are upper bounds of their length: what holds for values
	// that are at least as long, one by one, holds for these.
	known, longest := !v.static(), true
	lens := make([]int, len(v.fields))
	for i, f := range v.fields {
		lens[i] = len(values[f])
		known = known && lens[i] <= v.checked[i]
		longest = longest && lens[i] >= v.checked[i]
	}
	if !known {
		if err := a.Check(); err != nil {
			return nil, err
		}
		if longest {
			v.checked = lens
		}
	}
	return a.Append(nil), nil
}
