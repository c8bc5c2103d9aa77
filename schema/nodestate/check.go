package nodestate

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// Bounds on the values of a state.
const (
	MaxApps       = 1000            // a node
	MaxContainers = 32              // an app
	MaxDurationMS = 7 * 24 * 3600e3 // a week
	MaxMilliCPU   = 1024 * 1000     // the cores of a very large machine
	MaxBytes      = int64(1) << 50  // memory, logs
	maxStrings    = 256             // arguments of a command
	maxArgument   = 128<<10 - 512   // bytes: Linux allows 128 KiB, the name of a variable included
	maxEnv        = 256             // variables of a container
	maxPorts      = 64              // of a container
	maxMounts     = 64              // of a container
	maxFiles      = 4096            // of a container
	maxFile       = 1 << 20         // bytes of one file
	maxPath       = 1024            // bytes
	maxWorkspace  = 1024            // bytes
	maxImage      = 512             // bytes
	maxPIDs       = 4194304         // the kernel's own bound
	maxLogFiles   = 1000
	maxFailures   = 1000
)

// Shapes of strings. An image is a reference with a digest; a tag before it is
// remembered for people and not obeyed.
var (
	nameRE   = shape(`^[a-z0-9][a-z0-9-]{0,62}$`)
	keyRE    = shape(`^U[A-Z2-7]{55}$`)
	imageRE  = shape(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*){0,16}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?@sha256:[0-9a-f]{64}$`)
	envRE    = shape(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	cpusetRE = shape(`^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?){0,63}$`)
	userRE   = shape(`^[a-z0-9_][a-z0-9_.-]{0,31}(:[a-z0-9_][a-z0-9_.-]{0,31})?$`)
	signalRE = shape(`^SIG[A-Z0-9]{2,10}$`)
	urlRE    = shape(`^/[^\x00-\x20\x7f#]{0,1000}$`)
	pathRE   = shape(`^/[^\x00-\x1f\x7f:,]+$`) // a colon or comma would split a mount option
)

// shape compiles when it is first needed: that takes 10 ms, and the agent's program also
// starts as the hook and the logger of each container, which check no state.
func shape(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

// Check returns what is out of bounds in the state, naming the field.
func (s *State) Check() error {
	if err := s.CheckHeader(); err != nil {
		return err
	}
	if len(s.Apps) > MaxApps {
		return fmt.Errorf("apps: %d; at most %d are allowed", len(s.Apps), MaxApps)
	}
	for i := range s.Apps {
		a := &s.Apps[i]
		if err := a.Check(); err != nil {
			return fmt.Errorf("app %q: %w", clip(a.Name), err)
		}
		if i > 0 && s.Apps[i-1].Name >= a.Name {
			return fmt.Errorf("app %q: not sorted by name, or twice", a.Name)
		}
	}
	return nil
}

// CheckHeader is Check for everything but the apps.
func (s *State) CheckHeader() error {
	switch {
	case s.APIVersion != APIVersion:
		return fmt.Errorf("apiVersion is %q, not %q", clip(s.APIVersion), APIVersion)
	case s.Engine < 1 || s.Engine > 1000:
		return fmt.Errorf("engine: %d is not in 1–1000", s.Engine)
	case !nameRE().MatchString(s.Node):
		return fmt.Errorf("node: %q is not a name", clip(s.Node))
	case len(s.Workspace) > maxWorkspace || !relative(s.Workspace):
		return fmt.Errorf("workspace: %q is not a path in a repo", clip(s.Workspace))
	case !keyRE().MatchString(s.Identity.PublicKey):
		return fmt.Errorf("identity.publicKey: %q is not an nkey of type user", clip(s.Identity.PublicKey))
	}
	return nil
}

func relative(p string) bool {
	return p != "" && p != "." && !strings.HasPrefix(p, "/") && path.Clean(p) == p && p != ".." && !strings.HasPrefix(p, "../") &&
		text(p) && !strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// text reports whether a string may be in a state.
func text(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// Check returns what is out of bounds in the app, naming the field.
func (a *App) Check() error {
	switch {
	case !nameRE().MatchString(a.Name):
		return fmt.Errorf("name: %q is not a name", clip(a.Name))
	case len(a.Containers) == 0:
		return errors.New("containers: none")
	case len(a.Containers) > MaxContainers:
		return fmt.Errorf("containers: %d; at most %d are allowed", len(a.Containers), MaxContainers)
	case a.Ordered < 0 || a.Ordered > len(a.Containers):
		return fmt.Errorf("ordered: %d of %d containers", a.Ordered, len(a.Containers))
	}
	if err := span("deadlineMs", a.DeadlineMS, 1, MaxDurationMS); err != nil {
		return err
	}
	names := map[string]bool{}
	for i := range a.Containers {
		c := &a.Containers[i]
		if err := c.check(); err != nil {
			return fmt.Errorf("container %q: %w", clip(c.Name), err)
		}
		if names[c.Name] {
			return fmt.Errorf("container %q: twice", c.Name)
		}
		names[c.Name] = true
		if i > a.Ordered && a.Containers[i-1].Name > c.Name {
			return fmt.Errorf("container %q: not sorted by name", c.Name)
		}
	}
	return nil
}

func (c *Container) check() error {
	switch {
	case !nameRE().MatchString(c.Name):
		return fmt.Errorf("name: %q is not a name", clip(c.Name))
	case len(c.Image) > maxImage || !imageRE().MatchString(c.Image):
		return fmt.Errorf("image: %q is not a reference with a digest (@sha256:…)", clip(c.Image))
	case c.CPUSet != "" && !cpusetRE().MatchString(c.CPUSet):
		return fmt.Errorf("cpuset: %q is not a list of cores", clip(c.CPUSet))
	case c.User != "" && !userRE().MatchString(c.User):
		return fmt.Errorf("user: %q is neither uid, uid:gid nor names", clip(c.User))
	case c.Network != "bridge" && c.Network != "host" && c.Network != "none":
		return fmt.Errorf("network: %q is not bridge, host or none", clip(c.Network))
	case c.Restart != "always" && c.Restart != "on-failure" && c.Restart != "never":
		return fmt.Errorf("restart: %q is not always, on-failure or never", clip(c.Restart))
	case !signalRE().MatchString(c.StopSignal):
		return fmt.Errorf("stopSignal: %q is not the name of a signal", clip(c.StopSignal))
	case c.Network != "bridge" && len(c.Ports) > 0:
		return fmt.Errorf("ports: published, but the network is %q", c.Network)
	}
	return first(
		func() error { return words("command", c.Command) },
		func() error { return words("args", c.Args) },
		c.checkEnv, c.checkPorts, c.checkPaths,
		func() error { return span("milliCpu", c.MilliCPU, 0, MaxMilliCPU) },
		func() error { return span("memory", c.Memory, 0, MaxBytes) },
		func() error { return span("pids", c.PIDs, 0, maxPIDs) },
		func() error { return span("stopMs", c.StopMS, 0, MaxDurationMS) },
		func() error { return span("logBytes", c.LogBytes, 1, MaxBytes) },
		func() error { return span("logFiles", int64(c.LogFiles), 1, maxLogFiles) },
		c.Probe.check,
	)
}

func first(checks ...func() error) error {
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func span(field string, v, low, high int64) error {
	if v < low || v > high {
		return fmt.Errorf("%s: %d is not in %d–%d", field, v, low, high)
	}
	return nil
}

func words(field string, list []string) error {
	if len(list) > maxStrings {
		return fmt.Errorf("%s: %d arguments; at most %d are allowed", field, len(list), maxStrings)
	}
	for i, v := range list {
		if len(v) > maxArgument || !text(v) {
			return fmt.Errorf("%s[%d]: longer than %d bytes, not UTF-8, or with a NUL", field, i, maxArgument)
		}
	}
	return nil
}

func (c *Container) checkEnv() error {
	if len(c.Env) > maxEnv {
		return fmt.Errorf("env: %d variables; at most %d are allowed", len(c.Env), maxEnv)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		if !envRE().MatchString(name) {
			return fmt.Errorf("env: %q is not the name of a variable", clip(name))
		}
		if v := c.Env[name]; len(v) > maxArgument || !text(v) {
			return fmt.Errorf("env %s: longer than %d bytes, not UTF-8, or with a NUL", name, maxArgument)
		}
	}
	return nil
}

func (c *Container) checkPorts() error {
	if len(c.Ports) > maxPorts {
		return fmt.Errorf("ports: %d; at most %d are allowed", len(c.Ports), maxPorts)
	}
	for i, p := range c.Ports {
		addr, err := netip.ParseAddr(p.Address)
		switch {
		case !nameRE().MatchString(p.Name):
			return fmt.Errorf("port: %q is not a name", clip(p.Name))
		case i > 0 && c.Ports[i-1].Name >= p.Name:
			return fmt.Errorf("port %q: not sorted by name, or twice", p.Name)
		case p.Container < 1 || p.Container > 65535 || p.Host < 1 || p.Host > 65535:
			return fmt.Errorf("port %q: %d on the node, %d in the container: not in 1–65535", p.Name, p.Host, p.Container)
		case p.Protocol != "tcp" && p.Protocol != "udp":
			return fmt.Errorf("port %q: protocol %q is not tcp or udp", p.Name, clip(p.Protocol))
		case err != nil || addr.Zone() != "" || addr.Is4In6() || addr.String() != p.Address:
			return fmt.Errorf("port %q: address %q is not an IP address in its shortest form", p.Name, clip(p.Address))
		}
	}
	return nil
}

// checkPaths looks at mounts and files: absolute, clean, each path once, and no file
// where another path needs a directory.
func (c *Container) checkPaths() error {
	if len(c.Mounts) > maxMounts || len(c.Files) > maxFiles {
		return fmt.Errorf("%d mounts and %d files; at most %d and %d are allowed", len(c.Mounts), len(c.Files), maxMounts, maxFiles)
	}
	taken := make(map[string]bool, len(c.Mounts)+len(c.Files)) // true: a file
	for i, m := range c.Mounts {
		switch {
		case !absolute(m.Path):
			return fmt.Errorf("mount: %q is not an absolute, clean path", clip(m.Path))
		case !absolute(m.Host):
			return fmt.Errorf("mount %q: host %q is not an absolute, clean path", m.Path, clip(m.Host))
		case i > 0 && c.Mounts[i-1].Path >= m.Path:
			return fmt.Errorf("mount %q: not sorted by path, or twice", m.Path)
		}
		taken[m.Path] = false
	}
	for i, f := range c.Files {
		if !absolute(f.Path) {
			return fmt.Errorf("file: %q is not an absolute, clean path", clip(f.Path))
		}
		if i > 0 && c.Files[i-1].Path >= f.Path {
			return fmt.Errorf("file %q: not sorted by path, or twice", f.Path)
		}
		if _, ok := taken[f.Path]; ok {
			return fmt.Errorf("file %q: its path is a mount too", f.Path)
		}
		if len(f.Content) > maxFile || !text(f.Content) {
			return fmt.Errorf("file %q: longer than %d bytes, not UTF-8, or with a NUL", f.Path, maxFile)
		}
		taken[f.Path] = true
	}
	for _, p := range c.paths() {
		for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
			if taken[dir] {
				return fmt.Errorf("file %q: %q needs a directory there", dir, p)
			}
		}
	}
	return nil
}

func (c *Container) paths() []string {
	all := make([]string, 0, len(c.Mounts)+len(c.Files))
	for _, m := range c.Mounts {
		all = append(all, m.Path)
	}
	for _, f := range c.Files {
		all = append(all, f.Path)
	}
	return all
}

func absolute(p string) bool {
	return len(p) <= maxPath && pathRE().MatchString(p) && path.Clean(p) == p && utf8.ValidString(p)
}

func (p *Probe) check() error {
	if p == nil {
		return nil
	}
	kinds := 0
	var err error
	if p.HTTP != nil {
		kinds++
		if err = span("probe.http.port", int64(p.HTTP.Port), 1, 65535); err == nil && !(urlRE().MatchString(p.HTTP.Path) && text(p.HTTP.Path)) {
			err = fmt.Errorf("probe.http.path: %q is not the path of a URL", clip(p.HTTP.Path))
		}
	}
	if p.TCP != nil {
		kinds++
		err = span("probe.tcp.port", int64(p.TCP.Port), 1, 65535)
	}
	if p.Exec != nil {
		kinds++
		if err = words("probe.exec.command", p.Exec.Command); err == nil && len(p.Exec.Command) == 0 {
			err = errors.New("probe.exec.command: empty")
		}
	}
	if kinds != 1 {
		return fmt.Errorf("probe: %d of http, tcp and exec are set; exactly one must be", kinds)
	}
	return first(
		func() error { return err },
		func() error { return span("probe.intervalMs", p.IntervalMS, 1, MaxDurationMS) },
		func() error { return span("probe.timeoutMs", p.TimeoutMS, 1, MaxDurationMS) },
		func() error { return span("probe.failures", int64(p.Failures), 1, maxFailures) },
	)
}
