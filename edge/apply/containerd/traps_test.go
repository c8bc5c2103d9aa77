package containerd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"selvedge/edge/apply"
	"selvedge/edge/apply/containerd"
	"selvedge/schema/nodestate"
)

func published(p int) func(*nodestate.Container) {
	return func(c *nodestate.Container) {
		c.Ports = []nodestate.Port{{Name: "http", Container: 8080, Host: p, Protocol: "tcp", Address: "127.0.0.1"}}
	}
}

func url(p int, path string) string { return fmt.Sprintf("http://127.0.0.1:%d%s", p, path) }

func (b *bed) stop(t *testing.T, i apply.Instance, keep bool) {
	t.Helper()
	if err := b.Stop(t.Context(), i.ID, keep); err != nil {
		t.Fatal(err)
	}
}

// The agent's environment goes into the spec of a stock nerdctl container: into every
// hook, and into the container itself where a name has no value.
func TestEnvironmentIsScrubbed(t *testing.T) {
	t.Setenv("AGENT_SECRET", "hunter2-from-the-agent")
	t.Setenv("PATH", os.Getenv("PATH")+":/hunter2-from-the-agent")
	b := newBed(t)
	p := port(t)
	s := b.spec("web", "main", published(p), func(c *nodestate.Container) {
		c.Env = map[string]string{"GREETING": "it's \"me\" = $HOME", "AGENT_SECRET": ""}
	})
	i := b.start(t, s)
	if info := b.ctr(t, "containers", "info", i.ID); strings.Contains(info, "hunter2") || !strings.Contains(info, "createRuntime") {
		t.Errorf("the container's spec holds our environment: %s", info)
	}
	env := get(t, url(p, "/env"))
	if strings.Contains(env, "hunter2") || !strings.Contains(env, "GREETING=it's \"me\" = $HOME\n") || !strings.Contains(env, "AGENT_SECRET=\n") || !strings.Contains(env, "VERSION=v1\n") {
		t.Errorf("its environment is %s", env)
	}
	pid := reserver(t, b, i.ID)
	if e, err := os.ReadFile(filepath.Join("/proc", pid, "environ")); err != nil || bytes.Contains(e, []byte("hunter2")) {
		t.Errorf("the port reserver's environment is %q, %v", e, err)
	}
}

func reserver(t *testing.T, b *bed, id string) string {
	t.Helper()
	pid, err := os.ReadFile(filepath.Join("/run/nerdctl", b.conf.Namespace, id, "port-reserver.pid"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(pid))
}

// nerdctl's logger ends with containerd; the container then dies of SIGPIPE.
func TestLoggerOutlivesContainerd(t *testing.T) {
	t.Parallel()
	b := privateBed(t)
	s := b.spec("web", "main", func(c *nodestate.Container) { c.Network = "none" })
	i := b.start(t, s)
	if err := b.daemon.Halt(); err != nil {
		t.Fatal(err)
	}
	log := func() int {
		lines, err := b.Tail(t.Context(), i.ID, 1000)
		if err != nil {
			t.Fatal(err)
		}
		return len(lines)
	}
	before := log()
	eventually(t, "two more lines without containerd", func() bool { return log() >= before+2 })
	if err := b.daemon.Start(); err != nil {
		t.Fatal(err)
	}
	before = log()
	eventually(t, "two more lines with it back", func() bool { return log() >= before+2 })
	if x := b.one(t, s); x.State != apply.Running || x.ID != i.ID || !x.Since.Equal(i.Since) {
		t.Errorf("is %v, was %v", x, i)
	}
}

func TestContainerdDownAndBack(t *testing.T) {
	t.Parallel()
	b := privateBed(t)
	p := port(t)
	s := b.spec("web", "main", published(p))
	i := b.start(t, s)
	watched := make(chan error, 1)
	go func() { watched <- b.Watch(t.Context(), func() {}) }()
	time.Sleep(100 * time.Millisecond) // let it subscribe
	if err := b.daemon.Halt(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-watched:
		if err == nil {
			t.Error("the watch ended without a reason")
		}
	case <-time.After(10 * time.Second):
		t.Error("the watch goes on without containerd")
	}
	_, oerr := b.Observe(t.Context())
	_, serr := b.Start(t.Context(), b.spec("web", "other"))
	perr := b.Pull(t.Context(), b.image)
	rerr := b.Stop(t.Context(), i.ID, false)
	for what, err := range map[string]error{"observe": oerr, "start": serr, "pull": perr, "stop": rerr} {
		if err == nil || !strings.Contains(err.Error(), apply.ErrUnavailable.Error()) {
			t.Errorf("%s without containerd says %v", what, err)
		}
	}
	get(t, url(p, "/")) // it goes on
	if err := b.daemon.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the runtime answers again", func() bool { _, err := b.Observe(t.Context()); return err == nil })
	if x := b.one(t, s); x.State != apply.Running || x.ID != i.ID || x.Address != i.Address {
		t.Errorf("is %v, was %v", x, i)
	}
	b.stop(t, i, false)
}

// containerd 1.6 knows only "always" and brings back what was stopped.
func TestNothingElseRestarts(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	s := b.spec("web", "main", func(c *nodestate.Container) { c.Network = "none" })
	i := b.start(t, s)
	if info := b.ctr(t, "containers", "info", i.ID); strings.Contains(info, "containerd.io/restart") {
		t.Errorf("containerd would restart it: %s", info)
	}
	b.ctr(t, "tasks", "kill", "-s", "SIGKILL", i.ID)
	eventually(t, "killed", func() bool { return b.one(t, s).State == apply.Exited })
	b.stop(t, i, true)
	time.Sleep(2500 * time.Millisecond) // the restart monitor looks every second here
	if x := b.one(t, s); x.State == apply.Running {
		t.Errorf("came back as %v", x)
	}
}

// A stopped container holds its ports until its task is deleted.
func TestStopFreesPorts(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := port(t)
	s := b.spec("web", "main", published(p))
	i := b.start(t, s)
	if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p)); err == nil {
		l.Close()
		t.Error("a running container's port is free")
	}
	b.stop(t, i, true)
	if tasks := b.ctr(t, "tasks", "ls", "-q"); strings.Contains(tasks, i.ID) {
		t.Errorf("its task stays: %s", tasks)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
	if err != nil {
		t.Fatal(err)
	}
	// and now another process has it
	_, err = b.Start(t.Context(), s)
	self, rerr := os.ReadFile("/proc/self/comm")
	if rerr != nil {
		t.Fatal(rerr)
	}
	want := fmt.Sprintf("port %d/tcp of the node is taken by %s (pid %d); end that program, or give \"http\" another host port", p, bytes.TrimSpace(self), os.Getpid())
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("start says %v", err)
	}
	l.Close()
	if again := b.start(t, s); again.ID != i.ID {
		t.Errorf("started again as %v", again)
	}
	get(t, url(p, "/"))
	// killed from outside, it is started in place, on the same port
	b.ctr(t, "tasks", "kill", "-s", "SIGKILL", i.ID)
	eventually(t, "killed", func() bool { return b.one(t, s).State == apply.Exited })
	if again := b.start(t, s); again.ID != i.ID {
		t.Errorf("started again as %v", again)
	}
	get(t, url(p, "/"))
	// the same port for another container
	_, err = b.Start(t.Context(), b.spec("web", "other", published(p)))
	if err == nil || !strings.Contains(err.Error(), "is taken by sleep") {
		t.Errorf("start says %v", err)
	}
	if x := b.one(t, b.spec("web", "other")); x.State != apply.Absent {
		t.Errorf("left %v", x)
	}
}

// A crash between taking a name and making the container leaves the name taken.
func TestGhostNamesAreFreed(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	s := b.spec("web", "main", func(c *nodestate.Container) { c.Network = "none" })
	i := b.start(t, s)
	b.stop(t, i, false)
	names, err := filepath.Glob(filepath.Join(b.conf.DataDir, "*", "names", b.conf.Namespace))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	ghost := strings.Repeat("ab", 32)
	for _, n := range []string{"web.main", "web.other"} {
		if err := os.WriteFile(filepath.Join(names[0], n), []byte(ghost), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.start(t, s)
	// and at the agent's start, with the folders that such a container leaves
	dir := filepath.Join(filepath.Dir(filepath.Dir(names[0])), "containers", b.conf.Namespace, ghost)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	next := containerd.New(b.conf)
	defer next.Close()
	if _, err := next.Observe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s stays", dir)
	}
	if _, err := os.Stat(filepath.Join(names[0], "web.other")); err == nil {
		t.Error("the name stays taken")
	}
	if x := b.one(t, s); x.State != apply.Running {
		t.Errorf("the living one is %v", x)
	}
}

// nerdctl leaves chains and folders behind; a container that was deleted from
// outside leaves all of its.
func TestRemovalLeavesNothing(t *testing.T) {
	b := newBed(t)
	p := port(t)
	keep := b.start(t, b.spec("web", "stays", published(port(t))))
	before := b.world(t)
	s := b.spec("web", "main", published(p), func(c *nodestate.Container) {
		c.Ports = append(c.Ports, nodestate.Port{Name: "u", Container: 9000, Host: p, Protocol: "udp", Address: "127.0.0.1"})
	})
	for _, how := range []struct {
		name string
		do   func(i apply.Instance)
	}{
		{"stop", func(i apply.Instance) { b.stop(t, i, false) }},
		{"stop twice", func(i apply.Instance) { b.stop(t, i, true); b.stop(t, i, false) }},
		{"deleted from outside", func(i apply.Instance) {
			b.ctr(t, "tasks", "delete", "-f", i.ID)
			b.ctr(t, "containers", "delete", i.ID)
			b.one(t, s) // the next look sweeps
		}},
		{"shim killed", func(i apply.Instance) {
			out, err := exec.Command("pgrep", "-f", "containerd-shim-runc-v2.*-id "+i.ID).Output()
			if err != nil {
				t.Fatal(err)
			}
			if err := exec.Command("kill", "-9", strings.TrimSpace(string(out))).Run(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the end is seen", func() bool { return b.one(t, s).State != apply.Running })
			b.stop(t, i, false)
		}},
	} {
		t.Run(how.name, func(t *testing.T) {
			i := b.start(t, s)
			get(t, url(p, "/"))
			how.do(i)
			if after := b.world(t); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			for _, dir := range []string{"/run/nerdctl/" + b.conf.Namespace, b.conf.DataDir, b.conf.RunDir, "/var/lib/cni"} {
				left := func() string {
					out, _ := exec.Command("find", dir, "-path", "*/ended", "-prune", "-o", "-name", "*"+i.ID+"*", "-print").CombinedOutput() // logs are kept
					return string(out)
				}
				if how.name == "shim killed" {
					// containerd cleans up after a dead shim when it likes, and its hook may make the
					// container's folder again behind us: the agent's next start sweeps that
					eventually(t, "nothing is left in "+dir, func() bool {
						next := containerd.New(b.conf)
						defer next.Close()
						if _, err := next.Observe(t.Context()); err != nil {
							t.Fatal(err)
						}
						return left() == ""
					})
				} else if out := left(); out != "" {
					t.Errorf("left: %s", out)
				}
			}
		})
	}
	if x := b.one(t, b.spec("web", "stays", published(0))); x.ID != keep.ID || x.State != apply.Running {
		t.Errorf("its neighbour is %v", x)
	}
}

var emptyTable = regexp.MustCompile(`(?m)^\*\w+\n(:[A-Z]+ ACCEPT\n)*COMMIT\n`)

// world is what a container may change of the node outside of its own folders.
func (b *bed) world(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, args := range [][]string{{"iptables-save"}, {"ip6tables-save"}} {
		o, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(o)) {
			if strings.HasPrefix(line, "#") { // has the time
				continue
			}
			if head, _, ok := strings.Cut(line, " ["); ok && strings.HasPrefix(line, ":") {
				line = head + "\n" // counters
			}
			out.WriteString(line)
		}
	}
	// a table without rules is listed from its first use on
	rules := emptyTable.ReplaceAllString(out.String(), "")
	out.Reset()
	out.WriteString(rules)
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if !strings.HasPrefix(l.Name, "veth") {
			fmt.Fprintln(&out, l.Name)
		}
	}
	return out.String()
}

// Whatever others run on this node stays byte for byte: in our containerd, in the
// default namespace, with the same CNI plugins, in iptables.
func TestForeignIsUntouched(t *testing.T) {
	b := privateBed(t)
	other := b.conf
	other.Namespace, other.DataDir, other.RunDir, other.Bridge = "foreign", b.daemon.Dir+"/foreign", b.daemon.Dir+"/foreign-run", "f"+b.conf.Bridge[3:]
	other.Subnet = ""
	foreign := &bed{Runtime: containerd.New(other), conf: other, daemon: b.daemon, host: b.host, image: b.image}
	defer func() {
		if err := foreign.Purge(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		foreign.Close()
	}()
	fp := port(t)
	fi := foreign.start(t, foreign.spec("web", "main", published(fp)))
	plain := b.image
	b.ctrIn(t, "default", "images", "pull", "--plain-http", plain)
	b.ctrIn(t, "default", "run", "-d", plain, "theirs")
	rule := []string{"-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "1", "-m", "comment", "--comment", "somebody's own: CNI-like", "-j", "RETURN"}
	if out, err := exec.Command("iptables", rule...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer func() {
		rule[2] = "-D"
		if out, err := exec.Command("iptables", rule...).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}()
	look := func() string {
		var out strings.Builder
		out.WriteString(b.world(t))
		for _, ns := range []string{"default", "foreign"} {
			for _, id := range strings.Fields(b.ctrIn(t, ns, "containers", "ls", "-q")) {
				out.WriteString(b.ctrIn(t, ns, "containers", "info", id))
			}
			out.WriteString(b.ctrIn(t, ns, "tasks", "ls"))
		}
		for _, dir := range []string{"/etc/cni", other.DataDir + "/cni", other.RunDir, "/run/nerdctl", "/var/lib/cni"} {
			o, _ := exec.Command("find", dir, "-type", "f", "-not", "-name", "*.lock", "-exec", "sha256sum", "{}", ";").CombinedOutput()
			out.Write(o)
		}
		return out.String()
	}
	before := look()
	p := port(t)
	s := b.spec("web", "main", published(p))
	i := b.start(t, s)
	get(t, url(p, "/"))
	b.stop(t, i, true)
	b.start(t, s)
	b.start(t, b.spec("web", "host", func(c *nodestate.Container) {
		c.Network, c.Env = "host", map[string]string{"PORT": fmt.Sprint(port(t))}
	}))
	b.ctr(t, "tasks", "kill", "-s", "SIGKILL", i.ID)
	get(t, url(fp, "/"))
	if err := b.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := look(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	get(t, url(fp, "/"))
	if x := foreign.one(t, foreign.spec("web", "main")); x.ID != fi.ID {
		t.Errorf("theirs is %v", x)
	}
}

// Who came first made the chains that all CNI users of a node share. When it leaves, the
// others' ports still answer, on loopback too.
func TestPurgeLeavesOthersTheirPorts(t *testing.T) {
	b := privateBed(t)
	b.start(t, b.spec("web", "main", published(port(t))))
	second := b.conf
	second.Namespace, second.DataDir, second.RunDir, second.Bridge = "second", b.daemon.Dir+"/second", b.daemon.Dir+"/second-run", "s"+b.conf.Bridge[3:]
	second.Subnet = ""
	other := &bed{Runtime: containerd.New(second), conf: second, daemon: b.daemon, host: b.host, image: b.image}
	defer func() {
		if err := errors.Join(other.Purge(context.WithoutCancel(t.Context())), other.Close()); err != nil {
			t.Error(err)
		}
	}()
	p := port(t)
	other.start(t, other.spec("web", "main", published(p)))
	get(t, url(p, "/"))
	if err := b.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	get(t, url(p, "/"))
}

// A bare node is as bare after as before.
func TestPurgeLeavesABareNode(t *testing.T) {
	b := privateBed(t)
	before := b.world(t)
	p := port(t)
	b.start(t, b.spec("web", "main", published(p)))
	get(t, url(p, "/"))
	if err := b.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := b.world(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestStartsSideBySide(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	if err := b.Pull(t.Context(), b.image); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var ports []int
	for n := range 4 {
		p := port(t)
		ports = append(ports, p)
		wg.Go(func() {
			if _, err := b.Start(t.Context(), b.spec("web", fmt.Sprint("c", n), published(p))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, p := range ports {
		get(t, url(p, "/"))
	}
	list, err := b.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, i := range list {
		if seen[i.Address] {
			t.Errorf("address %s twice", i.Address)
		}
		seen[i.Address] = true
	}
}
