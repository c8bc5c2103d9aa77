package containerd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"selvedge/edge/apply"
	"selvedge/schema/nodestate"
)

// cgroupFile reads a limit of a container, under cgroup v1 or v2.
func cgroupFile(t *testing.T, pid, v1, v2 string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	controller, _, _ := strings.Cut(v1, ".")
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		name := filepath.Join("/sys/fs/cgroup", f[2], v2)
		if f[1] != "" {
			if !slices.Contains(strings.Split(f[1], ","), controller) {
				continue
			}
			name = filepath.Join("/sys/fs/cgroup", controller, f[2], v1)
		}
		if x, err := os.ReadFile(name); err == nil {
			return strings.TrimSpace(string(x))
		}
	}
	t.Fatalf("no %s or %s for %s", v1, v2, b)
	return ""
}

func (b *bed) pid(t *testing.T, id string) string {
	t.Helper()
	for line := range strings.Lines(b.ctr(t, "tasks", "ls")) {
		if f := strings.Fields(line); f[0] == id {
			return f[1]
		}
	}
	t.Fatalf("no task of %s", id)
	return ""
}

func TestEverythingOfASpec(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := port(t)
	data := filepath.Join(t.TempDir(), "theirs")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "app.conf")
	if err := os.WriteFile(conf, []byte("mode = fast\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	made := filepath.Join(b.conf.DataDir, "volumes", "web", "state")
	s := b.spec("web", "main", published(p), func(c *nodestate.Container) {
		c.MilliCPU, c.CPUSet, c.Memory, c.PIDs = 250, "0", 64<<20, 50
		c.User, c.ReadOnly = "1234:5678", true
		c.Env = map[string]string{"CONFIG": "/etc/app/app.conf", "GREETING": "line 1"}
		c.Mounts = []nodestate.Mount{{Path: "/theirs", Host: data, ReadOnly: true}, {Path: "/state", Host: made}}
	})
	s.Binds = []apply.Bind{{Host: conf, Path: "/etc/app/app.conf"}}
	i := b.start(t, s)
	if got := get(t, url(p, "/")); got != "hello line 1, this is version v1\n" {
		t.Errorf("it says %q", got)
	}
	if got := get(t, url(p, "/config")); got != "mode = fast\n" {
		t.Errorf("its config file reads %q", got)
	}
	pid := b.pid(t, i.ID)
	for _, c := range []struct{ v1, v2, want string }{
		{"memory.limit_in_bytes", "memory.max", "67108864"},
		{"cpuset.cpus", "cpuset.cpus", "0"},
		{"pids.max", "pids.max", "50"},
	} {
		if got := cgroupFile(t, pid, c.v1, c.v2); got != c.want {
			t.Errorf("%s is %s, want %s", c.v1, got, c.want)
		}
	}
	if got := cgroupFile(t, pid, "cpu.cfs_quota_us", "cpu.max"); got != "25000" && got != "25000 100000" {
		t.Errorf("CPU quota is %s", got)
	}
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(status), "Uid:\t1234\t1234") || !strings.Contains(string(status), "Gid:\t5678\t5678") {
		t.Errorf("runs as %s", status)
	}
	mounts, err := os.ReadFile("/proc/" + pid + "/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]string{"/": "ro", "/theirs": "ro", "/state": "rw", "/etc/app/app.conf": "ro"} {
		found := false
		for line := range strings.Lines(string(mounts)) {
			if f := strings.Fields(line); f[1] == path {
				found = true
				if !slices.Contains(strings.Split(f[3], ","), mode) {
					t.Errorf("%s is mounted %s", path, f[3])
				}
			}
		}
		if !found {
			t.Errorf("%s is not mounted:\n%s", path, mounts)
		}
	}
	if fi, err := os.Stat(made); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("%s: %v, %v", made, fi, err)
	}
}

func TestCommandAndArguments(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	for _, c := range []struct {
		name          string
		command, args []string
		want          string // in what it prints
	}{
		{"image's own", nil, nil, "listens on port"},
		{"arguments", nil, []string{"check"}, "connection refused"},
		{"command", []string{"/hello", "check"}, nil, "connection refused"},
		{"both", []string{"/hello"}, []string{"check"}, "connection refused"},
	} {
		s := b.spec("a", strings.ReplaceAll(strings.ReplaceAll(c.name, " ", "-"), "'", ""), func(x *nodestate.Container) { x.Command, x.Args = c.command, c.args })
		i := b.start(t, s)
		eventually(t, c.name+" prints "+c.want, func() bool {
			lines, err := b.Tail(t.Context(), i.ID, 10)
			if err != nil {
				t.Fatal(err)
			}
			return strings.Contains(strings.Join(lines, "\n"), c.want)
		})
	}
}

func TestNetworks(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := port(t)
	host := b.start(t, b.spec("a", "host", func(c *nodestate.Container) {
		c.Network, c.Env = "host", map[string]string{"PORT": fmt.Sprint(p)}
	}))
	none := b.start(t, b.spec("a", "none", func(c *nodestate.Container) { c.Network = "none" }))
	bridge := b.start(t, b.spec("a", "bridge"))
	get(t, url(p, "/"))
	get(t, "http://"+bridge.Address+":8080/")
	if host.Address != "127.0.0.1" || none.Address != "" || !strings.HasPrefix(bridge.Address, strings.TrimSuffix(b.conf.Subnet, "0/24")) {
		t.Errorf("addresses %q %q %q", host.Address, none.Address, bridge.Address)
	}
	if seen := b.one(t, b.spec("a", "bridge")); seen.Address != bridge.Address {
		t.Errorf("observed at %q", seen.Address)
	}
}

func TestGracefulStop(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	end := func(s apply.Spec) (time.Duration, []string) {
		i := b.start(t, s)
		eventually(t, "it listens", func() bool {
			l, err := b.Tail(t.Context(), i.ID, 10)
			return err == nil && len(l) > 0
		})
		begun := time.Now()
		b.stop(t, i, true)
		took := time.Since(begun)
		lines, err := b.Tail(t.Context(), i.ID, 10)
		if err != nil {
			t.Fatal(err)
		}
		return took, lines
	}
	if _, lines := end(b.spec("a", "good", func(c *nodestate.Container) { c.Network, c.StopMS = "none", 20_000 })); !slices.Contains(lines, "stops") {
		t.Errorf("got no SIGTERM: %q", lines)
	}
	if _, lines := end(b.spec("a", "int", func(c *nodestate.Container) { c.Network, c.StopSignal, c.StopMS = "none", "SIGINT", 20_000 })); !slices.Contains(lines, "stops") {
		t.Errorf("got no SIGINT: %q", lines)
	}
	took, lines := end(b.spec("a", "deaf", func(c *nodestate.Container) {
		c.Network, c.StopMS, c.Env = "none", 700, map[string]string{"FAIL": "deaf"}
	}))
	if took < 700*time.Millisecond || slices.Contains(lines, "stops") {
		t.Errorf("was killed after %s: %q", took, lines)
	}
}

func TestLogsAreBounded(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	s := b.spec("a", "flood", func(c *nodestate.Container) {
		c.Network, c.LogBytes, c.LogFiles, c.MilliCPU, c.Env = "none", 64<<10, 3, 200, map[string]string{"FAIL": "flood"}
	})
	i := b.start(t, s)
	logs := func() (n int, size int64) {
		list, err := filepath.Glob(filepath.Join(b.conf.DataDir, "*", "containers", b.conf.Namespace, i.ID, "*json*log*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			if fi, err := os.Stat(f); err == nil {
				size += fi.Size()
			}
		}
		return len(list), size
	}
	eventually(t, "three files", func() bool { n, _ := logs(); return n >= 3 })
	time.Sleep(500 * time.Millisecond)
	if n, size := logs(); n > 4 || size > 5*64<<10 { // one more while it rotates
		t.Errorf("%d files of %d bytes", n, size)
	}
	lines, err := b.Tail(t.Context(), i.ID, 3)
	if err != nil || len(lines) == 0 {
		t.Errorf("tail %q, %v", lines, err)
	}
}

func TestRefusedSpecs(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	if err := b.Pull(t.Context(), b.image); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*nodestate.Container)
		want   string
	}{
		{"host path missing", func(c *nodestate.Container) {
			c.Mounts = []nodestate.Mount{{Path: "/d", Host: "/nowhere/at/all"}}
		}, "mount /nowhere/at/all: there is no such path on this node; make it"},
		{"colon", func(c *nodestate.Container) { c.Mounts = []nodestate.Mount{{Path: "/d:rw", Host: "/tmp"}} }, "without a colon"},
		{"relative", func(c *nodestate.Container) { c.Mounts = []nodestate.Mount{{Path: "d", Host: "/tmp"}} }, "absolute paths"},
		{"ports of the host network", func(c *nodestate.Container) { published(80)(c); c.Network = "host" }, "publishes no ports"},
		{"network", func(c *nodestate.Container) { c.Network = "macvlan" }, "use bridge, host or none"},
		{"address", func(c *nodestate.Container) { published(port(t))(c); c.Ports[0].Address = "192.0.2.77" }, "the node has no such address"},
		{"tag", func(c *nodestate.Container) { c.Image = b.host + "/hello:v1" }, "write it as name@sha256:…"},
		{"program", func(c *nodestate.Container) { c.Command = []string{"/nothing"} }, "is its program in the image"},
		{"cpuset", func(c *nodestate.Container) { c.CPUSet = "977" }, "cpuset"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := b.spec("a", "x", c.change)
			_, err := b.Start(t.Context(), s)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("start says %v", err)
			}
			if x := b.one(t, s); x.State != apply.Absent {
				t.Errorf("left %v", x)
			}
		})
	}
	if left, _ := os.ReadDir(filepath.Join(b.conf.DataDir, "journal")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestPrivileged(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	i := b.start(t, b.spec("a", "p", func(c *nodestate.Container) { c.Network, c.Privileged = "none", true }))
	status, err := os.ReadFile("/proc/" + b.pid(t, i.ID) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(status), "CapEff:\t00000000a80425fb") {
		t.Error("has the usual capabilities only")
	}
}
