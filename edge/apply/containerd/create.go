package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	client "github.com/containerd/containerd/v2/client"
	gocni "github.com/containerd/go-cni"
	"github.com/containerd/nerdctl/v2/pkg/api/types"
	"github.com/containerd/nerdctl/v2/pkg/cmd/container"
	"github.com/containerd/nerdctl/v2/pkg/containerutil"

	"selvedge/edge/apply"
	"selvedge/schema/nodestate"
)

// create makes the container of a spec, not started.
func (r *Runtime) create(ctx context.Context, c *client.Client, s apply.Spec) (client.Container, error) {
	if err := pinned(s.Container.Image); err != nil {
		return nil, err
	}
	if err := r.prepareMounts(s.Container); err != nil {
		return nil, err
	}
	opts, err := r.createOptions(s)
	if err != nil {
		return nil, err
	}
	network, err := networkOptions(s.Container)
	if err != nil {
		return nil, err
	}
	manager, err := containerutil.NewNetworkingOptionsManager(opts.GOptions, network, c)
	if err != nil {
		return nil, fmt.Errorf("prepare its network: %w", err)
	}
	if err := r.freeName(ctx, c, opts.Name); err != nil {
		return nil, err
	}
	args := []string{s.Container.Image}
	if len(s.Container.Command) == 0 || len(s.Container.Args) > 0 {
		args = append(args, s.Container.Args...)
	}
	made, undo, err := container.Create(ctx, c, args, manager, opts)
	if err != nil {
		if undo != nil {
			undo() // else the name and folders stay
		}
		return nil, missing(r.wrap("create it", err))
	}
	if err := r.note(made.ID(), s.Key()); err != nil {
		return nil, errors.Join(err, r.remove(ctx, c, made, 0))
	}
	return made, nil
}

// nerdctlName is the container's name: names have no dots, so it is unique.
func nerdctlName(k apply.Key) string { return k.App + "." + k.Container }

// createOptions says everything: the zero value of the options is no usable default.
func (r *Runtime) createOptions(s apply.Spec) (types.ContainerCreateOptions, error) {
	c := s.Container
	pull, err := r.pullOptions("never")
	if err != nil {
		return types.ContainerCreateOptions{}, err
	}
	volumes, err := volumes(s)
	if err != nil {
		return types.ContainerCreateOptions{}, err
	}
	hook := hookArgs{r.c.DataDir, r.c.Address, r.cniPath(), r.netConfDir()}
	o := types.ContainerCreateOptions{
		Stdout: io.Discard, Stderr: io.Discard, GOptions: r.globals(),
		NerdctlCmd: r.self, NerdctlArgs: hook.list(),
		InRun: true, Detach: true, Name: nerdctlName(s.Key()), Pull: "never", ImagePullOpt: pull,
		Restart:    "no", // the agent restarts; containerd's own monitor would race with it
		StopSignal: orDefault(c.StopSignal, "SIGTERM"), StopTimeout: int((c.StopMS + 999) / 1000),
		Systemd: "false", Runtime: "io.containerd.runc.v2", IPC: "private", Cgroupns: cgroupns(),
		CPUs: float64(c.MilliCPU) / 1000, CPUQuota: -1, CPUSetCPUs: c.CPUSet,
		MemorySwappiness64: -1, PidsLimit: -1, NoHealthcheck: true,
		User: c.User, Privileged: c.Privileged, ReadOnly: c.ReadOnly,
		Env: environment(c.Env), Volume: volumes,
		LogDriver: "json-file", LogOpt: logOptions(c),
		Label: []string{
			labelApp + "=" + s.App, labelContainer + "=" + c.Name, labelHash + "=" + s.Hash,
			labelGeneration + "=" + strconv.FormatInt(s.Generation, 10), labelImage + "=" + c.Image,
			labelStopMS + "=" + strconv.FormatInt(c.StopMS, 10), labelNetwork + "=" + c.Network,
		},
	}
	if c.Memory > 0 {
		o.Memory = strconv.FormatInt(c.Memory, 10)
	}
	if c.PIDs > 0 {
		o.PidsLimit = c.PIDs
	}
	if len(c.Command) > 0 {
		o.Entrypoint, o.EntrypointChanged = c.Command, true
	}
	return o, nil
}

func logOptions(c nodestate.Container) []string {
	size, files := c.LogBytes, c.LogFiles
	if size <= 0 {
		size = 10 << 20
	}
	if files <= 1 { // the driver never removes a file when there may be only one
		size, files = max(size/2, 64<<10), 2
	}
	return []string{"max-size=" + strconv.FormatInt(size, 10), "max-file=" + strconv.Itoa(files)}
}

// environment keeps the "=" even of empty values: without it nerdctl would look
// the name up in the agent's own environment.
func environment(env map[string]string) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// cgroupns shares the host's cgroup namespace on v1, where runc needs it.
func cgroupns() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "private"
	}
	return "host"
}

func networkOptions(c nodestate.Container) (types.NetworkOptions, error) {
	var o types.NetworkOptions
	switch c.Network {
	case "", "bridge":
		o.NetworkSlice = []string{networkName}
	case "host", "none":
		o.NetworkSlice = []string{c.Network}
		if len(c.Ports) > 0 {
			return o, fmt.Errorf("network %q publishes no ports; remove them, or use network bridge", c.Network)
		}
	default:
		return o, fmt.Errorf("network %q: use bridge, host or none", c.Network)
	}
	for _, p := range c.Ports {
		o.PortMappings = append(o.PortMappings, gocni.PortMapping{HostPort: int32(p.Host), ContainerPort: int32(p.Container),
			Protocol: orDefault(p.Protocol, "tcp"), HostIP: orDefault(p.Address, "0.0.0.0")})
	}
	return o, nil
}

// volumes lists mounts and config files in the form host:path[:ro].
func volumes(s apply.Spec) ([]string, error) {
	var out []string
	add := func(host, path string, ro bool) error {
		for _, p := range []string{host, path} {
			if !filepath.IsAbs(p) || strings.Contains(p, ":") {
				return fmt.Errorf("mount %q at %q: give absolute paths without a colon", host, path)
			}
		}
		v := host + ":" + path
		if ro {
			v += ":ro"
		}
		out = append(out, v)
		return nil
	}
	for _, m := range s.Container.Mounts {
		if err := add(m.Host, m.Path, m.ReadOnly); err != nil {
			return nil, err
		}
	}
	for _, b := range s.Binds {
		if err := add(b.Host, b.Path, true); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// prepareMounts makes missing host folders below VolumeDir, owned by the container's
// user if that is a number; all other host paths must be there: a mistyped one must
// not become an empty folder.
func (r *Runtime) prepareMounts(c nodestate.Container) error {
	for _, m := range c.Mounts {
		if _, err := os.Stat(m.Host); err == nil {
			continue
		} else if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("mount %s: %w", m.Host, err)
		}
		rel, err := filepath.Rel(r.c.VolumeDir, filepath.Clean(m.Host))
		if err != nil || !filepath.IsLocal(rel) {
			return fmt.Errorf("mount %s: there is no such path on this node; make it, or use one below %s, which is made when missing", m.Host, r.c.VolumeDir)
		}
		if err := os.MkdirAll(r.c.VolumeDir, 0o755); err != nil {
			return fmt.Errorf("mount %s: %w", m.Host, err)
		}
		root, err := os.OpenRoot(r.c.VolumeDir)
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Host, err)
		}
		err = root.MkdirAll(rel, 0o755)
		if uid, gid, ok := numericUser(c.User); ok && err == nil {
			err = root.Chown(rel, uid, gid)
		}
		if err = errors.Join(err, root.Close()); err != nil {
			return fmt.Errorf("mount %s: %w", m.Host, err)
		}
	}
	return nil
}

func numericUser(user string) (uid, gid int, ok bool) {
	u, g, both := strings.Cut(user, ":")
	uid, err := strconv.Atoi(u)
	if err != nil {
		return 0, 0, false
	}
	gid = uid
	if both {
		if gid, err = strconv.Atoi(g); err != nil {
			return 0, 0, false
		}
	}
	return uid, gid, true
}
