package resolve

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"

	"selvedge/schema/fleet"
	"selvedge/schema/nodestate"
)

// engine is one version of the rules by which apps are rendered.
type engine struct {
	app func(name, key string, merged *fleet.App, configs map[string]fleet.Config) (*variant, error)
}

// engines are all versions, by number. Whatever a version has rendered it renders
// for ever: a change of the rules is a new version, and golden files hold the old ones.
var engines = map[int]engine{1: {app: app1}}

// app1 renders a merged app as far as it does not depend on the node.
func app1(name, key string, merged *fleet.App, configs map[string]fleet.Config) (*variant, error) {
	if len(merged.Container) == 0 {
		return nil, errors.New("it has no container; declare one under container")
	}
	v := &variant{key: key, app: nodestate.App{Name: name}}
	var err error
	if v.app.DeadlineMS, err = millis(merged.Update.Deadline); err != nil {
		return nil, fmt.Errorf("update.deadline: %w", err)
	}
	names, err := startOrder(merged)
	if err != nil {
		return nil, err
	}
	v.app.Ordered = len(merged.Update.Order)
	files, err := files1(merged, configs)
	if err != nil {
		return nil, err
	}
	for _, cname := range names {
		c := merged.Container[cname]
		out, err := container1(cname, &c)
		if err != nil {
			return nil, fmt.Errorf("container %q: %w", cname, err)
		}
		out.Files = files[cname]
		if err := v.claimPorts(cname, &c); err != nil {
			return nil, fmt.Errorf("container %q: %w", cname, err)
		}
		v.milliCPU += out.MilliCPU
		v.memory += out.Memory
		v.limits = append(v.limits, limit{name + "/" + cname, out.MilliCPU, out.Memory})
		v.app.Containers = append(v.app.Containers, out)
	}
	return v, v.prepare()
}

// startOrder returns the containers as they are started: those in update.order, then
// the others by name.
func startOrder(a *fleet.App) ([]string, error) {
	out := slices.Clone(a.Update.Order)
	for i, name := range out {
		if _, ok := a.Container[name]; !ok {
			return nil, fmt.Errorf("update.order: unknown container %q; the app has %s", name, quoted(a.Container))
		}
		if slices.Contains(out[:i], name) {
			return nil, fmt.Errorf("update.order: container %q is listed twice; remove one", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.Container)) {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// files1 joins config files into containers: each file of a config lies in the
// directory that the reference names.
func files1(a *fleet.App, configs map[string]fleet.Config) (map[string][]nodestate.File, error) {
	out := map[string][]nodestate.File{}
	from := map[string]string{} // container and path → config
	for _, cfg := range slices.Sorted(maps.Keys(a.Config)) {
		ref := a.Config[cfg]
		c, ok := configs[cfg]
		if !ok {
			return nil, fmt.Errorf("unknown config %q; declare it under config: in this workspace or a folder above", cfg)
		}
		targets := slices.Sorted(maps.Keys(a.Container))
		if ref.Container != "" {
			if _, ok := a.Container[ref.Container]; !ok {
				return nil, fmt.Errorf("config %q: unknown container %q; the app has %s", cfg, ref.Container, quoted(a.Container))
			}
			targets = []string{ref.Container}
		}
		for _, target := range targets {
			for _, file := range slices.Sorted(maps.Keys(c.File)) {
				p := path.Join(ref.Mount, file)
				if other := from[target+" "+p]; other != "" {
					return nil, fmt.Errorf("container %q: configs %q and %q both have a file %s; mount one of them elsewhere", target, other, cfg, p)
				}
				from[target+" "+p] = cfg
				out[target] = append(out[target], nodestate.File{Path: p, Content: c.File[file]})
			}
		}
	}
	for target, fs := range out {
		slices.SortFunc(fs, func(x, y nodestate.File) int { return cmp.Compare(x.Path, y.Path) })
		mounts := map[string]string{}
		for p := range a.Container[target].Mount {
			mounts[path.Clean(p)] = p
		}
		for _, f := range fs {
			if p, ok := mounts[f.Path]; ok {
				return nil, fmt.Errorf("container %q: a mount and a file of config %q are both at %s; move one of them", target, from[target+" "+f.Path], p)
			}
		}
	}
	return out, nil
}

func container1(name string, c *fleet.Container) (nodestate.Container, error) {
	out := nodestate.Container{
		Name: name, Image: c.Image, Command: c.Command, Args: c.Args, Env: c.Env,
		CPUSet: c.Resources.CPUSet, PIDs: int64(c.Resources.PIDs), User: c.User,
		Privileged: c.Privileged, ReadOnly: c.ReadOnly, Network: c.Network, Restart: c.Restart,
		StopSignal: c.Stop.Signal, LogFiles: c.Log.MaxFiles,
	}
	var err error
	if out.MilliCPU, err = milli(c.Resources.CPU); err != nil {
		return out, fmt.Errorf("resources.cpu: %w", err)
	}
	if out.Memory, err = bytesOf(c.Resources.Memory); err != nil {
		return out, fmt.Errorf("resources.memory: %w", err)
	}
	if out.StopMS, err = millis(c.Stop.Timeout); err != nil {
		return out, fmt.Errorf("stop.timeout: %w", err)
	}
	if out.LogBytes, err = bytesOf(c.Log.MaxSize); err != nil {
		return out, fmt.Errorf("log.maxSize: %w", err)
	}
	if out.Probe, err = probe1(c.Probe); err != nil {
		return out, err
	}
	for _, pname := range slices.Sorted(maps.Keys(c.Port)) {
		p := c.Port[pname]
		if p.Host == 0 || c.Network != "bridge" {
			continue // nothing to publish
		}
		addr, err := netip.ParseAddr(p.Address)
		if err != nil {
			return out, fmt.Errorf("port %q: address %q is not an IP address", pname, clip(p.Address))
		}
		out.Ports = append(out.Ports, nodestate.Port{Name: pname, Container: p.Container, Host: p.Host, Protocol: p.Protocol, Address: addr.Unmap().String()})
	}
	at := map[string]string{}
	for _, p := range slices.Sorted(maps.Keys(c.Mount)) {
		clean := path.Clean(p)
		if other, ok := at[clean]; ok {
			return out, fmt.Errorf("mounts %q and %q are at one path; remove one", other, p)
		}
		at[clean] = p
		out.Mounts = append(out.Mounts, nodestate.Mount{Path: clean, Host: path.Clean(c.Mount[p].Host), ReadOnly: c.Mount[p].ReadOnly})
	}
	slices.SortFunc(out.Mounts, func(x, y nodestate.Mount) int { return cmp.Compare(x.Path, y.Path) })
	return out, nil
}

func probe1(p *fleet.Probe) (*nodestate.Probe, error) {
	if p == nil {
		return nil, nil
	}
	out := &nodestate.Probe{Failures: p.Failures}
	var err error
	if out.IntervalMS, err = millis(p.Interval); err != nil {
		return nil, fmt.Errorf("probe.interval: %w", err)
	}
	if out.TimeoutMS, err = millis(p.Timeout); err != nil {
		return nil, fmt.Errorf("probe.timeout: %w", err)
	}
	if p.HTTP != nil {
		out.HTTP = &nodestate.HTTPProbe{Port: p.HTTP.Port, Path: p.HTTP.Path}
	}
	if p.TCP != nil {
		out.TCP = &nodestate.TCPProbe{Port: p.TCP.Port}
	}
	if p.Exec != nil {
		out.Exec = &nodestate.ExecProbe{Command: p.Exec.Command}
	}
	return out, nil
}

func quoted[V any](m map[string]V) string {
	names := slices.Sorted(maps.Keys(m))
	if len(names) == 0 {
		return "none"
	}
	const most = 8
	more := ""
	if len(names) > most {
		more = fmt.Sprintf(" and %d more", len(names)-most)
		names = names[:most]
	}
	for i, n := range names {
		names[i] = fmt.Sprintf("%q", n)
	}
	return strings.Join(names, ", ") + more
}
