package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"selvedge/edge"
	"selvedge/test/env"
)

// TestLife plays one node's life, step by step; each step begins with a node that is well.
func TestLife(t *testing.T) {
	w := newSite(t)
	foreign := w.foreign()
	w.enrol()
	w.startReconciler()
	w.startAgent()
	for _, s := range []struct {
		name string
		do   func(*site)
	}{
		{"push and it runs", first},
		{"update", update},
		{"unhealthy goes back", unhealthy},
		{"image missing", imageMissing},
		{"port taken", portTaken},
		{"reconciler away", reconcilerAway},
		{"agent restarted", agentRestarted},
		{"containerd restarted", containerdRestarted},
		{"reboot offline", rebootOffline},
		{"drain", drain},
	} {
		ok := t.Run(s.name, func(t *testing.T) {
			step := *w
			step.T = t
			s.do(&step)
			w.agent, w.reconciler, w.registry = step.agent, step.reconciler, step.registry
		})
		if !ok {
			t.Fatal("what follows would fail as well")
		}
	}
	w.agent.End(syscall.SIGTERM)
	if after := w.foreign(); after != foreign {
		t.Errorf("what is not ours was changed; before:\n%s\nafter:\n%s", foreign, after)
	}
}

func first(w *site) {
	w.deploy(app{greeting: "one"})
	w.says("one")
	w.well()
}

func update(w *site) {
	w.deploy(app{greeting: "two", image: w.hello("2")})
	w.until("version 2", func() bool { return strings.Contains(get(webPort), "version 2") })
	w.well()
}

func unhealthy(w *site) {
	w.deploy(app{greeting: "three", image: w.hello("2"), fail: "unhealthy", deadline: "3s"})
	w.until("the node to go back", func() bool { return w.status().Update.Phase == edge.RolledBack })
	w.says("two")
	s := w.status()
	if len(s.Store.Rejected) != 1 || !strings.Contains(s.Store.Rejected[0].Reason, "503") || s.Well() {
		w.Errorf("status %+v", s.Store)
	}
	w.deploy(app{greeting: "four", image: w.hello("2")})
	w.says("four")
	w.well()
}

func imageMissing(w *site) {
	img, err := env.BuildImage("5")
	if err != nil {
		w.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		w.Fatal(err)
	}
	before := w.tasks()
	w.deploy(app{greeting: "five", image: images + "/e2e/hello@" + d.String()})
	w.until("the trouble to be told", func() bool {
		u := w.status().Update
		return u.Phase == edge.Prefetch && strings.Contains(u.Error, "nothing was changed") &&
			strings.Contains(u.Error, "the registry does not have it") && strings.Contains(u.Error, d.String())
	})
	if after := w.tasks(); after != before || !w.greets(webPort, "four") {
		w.Errorf("containers: %q, before %q", after, before)
	}
	w.hello("5") // now it is pushed
	w.says("five")
	w.well()
}

func portTaken(w *site) {
	l, err := net.Listen("tcp", "0.0.0.0:18090")
	if err != nil {
		w.Fatal(err)
	}
	defer l.Close()
	w.deploy(app{name: "second", greeting: "second", port: 18090, deadline: "3s"})
	w.until("the node to go back", func() bool { return w.status().Update.Phase == edge.RolledBack })
	want := fmt.Sprintf("port 18090/tcp of the node is taken by e2e.test (pid %d); end that program, or give \"http\" another host port", os.Getpid())
	if got := w.status().Update.Error; !strings.Contains(got, want) {
		w.Errorf("update says %q, not %q", got, want)
	}
	if !w.greets(webPort, "five") {
		w.Error("the other app suffers")
	}
	l.Close()
	w.run("selvedge-edge", "release", "--dir", w.agentDir)
	w.until("the second app", func() bool { return w.greets(18090, "second") })
	w.well()
	w.remove("second")
	w.push("Without the second")
	w.until("the second app to end", func() bool { return get(18090) == "" })
	w.well()
}

func reconcilerAway(w *site) {
	w.reconciler.End(syscall.SIGKILL)
	w.until("the node to notice", func() bool { return w.status().Link.Error != "" })
	if !w.greets(webPort, "five") {
		w.Error("the app ended with the cloud")
	}
	w.deploy(app{greeting: "six"})
	w.startReconciler()
	w.says("six")
	w.well()
}

func agentRestarted(w *site) {
	before := w.tasks()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		w.agent.End(s)
		if !w.greets(webPort, "six") {
			w.Errorf("the app ended with the agent (%v)", s)
		}
		w.startAgent()
		w.well()
	}
	if after := w.tasks(); after != before {
		w.Errorf("containers: %q, before %q", after, before)
	}
}

func containerdRestarted(w *site) {
	before := w.tasks()
	if err := w.containerd.Halt(); err != nil {
		w.Fatal(err)
	}
	w.until("the agent to notice", func() bool { return w.status().Apply.RuntimeError != "" })
	if !w.greets(webPort, "six") {
		w.Error("the app ended with containerd")
	}
	w.deploy(app{greeting: "seven"}) // meanwhile
	if err := w.containerd.Start(); err != nil {
		w.Fatal(err)
	}
	w.says("seven")
	w.well()
	if after := w.tasks(); after == before {
		w.Errorf("containers: %q, as before", after)
	}
	w.killContainers()
	w.says("seven")
	w.well()
}

func rebootOffline(w *site) {
	w.reconciler.End(syscall.SIGKILL)
	w.stopRegistry()
	w.agent.End(syscall.SIGKILL)
	w.killContainers()
	w.until("the app to be gone", func() bool { return get(webPort) == "" })
	if err := w.containerd.Halt(); err != nil {
		w.Fatal(err)
	}
	if err := w.containerd.Start(); err != nil {
		w.Fatal(err)
	}
	w.startAgent()
	w.says("seven")
	w.startRegistry()
	w.startReconciler()
	w.image = map[string]string{}
	w.deploy(app{greeting: "eight"})
	w.says("eight")
	w.well()
}

func drain(w *site) {
	b, err := os.ReadFile(w.path("clone", workspace, "node.cue"))
	if err != nil {
		w.Fatal(err)
	}
	w.write("node.cue", strings.Replace(string(b), "\tlabels:", "\tdrain: true\n\tlabels:", 1))
	w.push("Take it away")
	w.until("all containers to go", func() bool { return strings.TrimSpace(w.ctr(namespace, "container", "ls", "-q")) == "" })
	w.well()
	if got := strings.TrimSpace(w.ctr(namespace, "task", "ls", "-q")); got != "" {
		w.Errorf("tasks: %s", got)
	}
	rules := iptables(w.T)
	for _, line := range strings.Split(rules, "\n") {
		if strings.Contains(line, namespace) || strings.Contains(line, "CNI-DN-") {
			w.Errorf("a rule is left: %s", line)
		}
	}
	entries, err := os.ReadDir(w.path("agent", "files"))
	if err == nil && len(entries) > 0 {
		w.Errorf("config files are left: %v", entries)
	}
}

// tasks lists the node's running containers with their processes.
func (w *site) tasks() string {
	w.Helper()
	lines := strings.Split(w.ctr(namespace, "task", "ls"), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// foreign makes, the first time, what is not ours, and describes it byte for byte: containers
// in another namespace of the same containerd, rules, links, CNI configuration.
func (w *site) foreign() string {
	w.Helper()
	if strings.TrimSpace(w.ctr("default", "container", "ls", "-q")) == "" {
		w.ctr("default", "images", "pull", "--plain-http", w.hello("1"))
		w.ctr("default", "run", "-d", w.hello("1"), "theirs")
		for _, rule := range []string{
			"-t nat -N THEIRS", "-t nat -A THEIRS -p tcp --dport 1 -j RETURN", "-t nat -A PREROUTING -m comment --comment theirs -j THEIRS",
			"-t filter -A FORWARD -s 192.0.2.1/32 -j DROP",
		} {
			if out, err := exec.Command("iptables", strings.Fields(rule)...).CombinedOutput(); err != nil {
				w.Fatalf("iptables %s: %v: %s", rule, err, out)
			}
		}
	}
	var out strings.Builder
	for _, args := range [][]string{{"container", "info", "theirs"}, {"task", "ls"}, {"images", "ls", "-q"}} {
		out.WriteString(w.ctr("default", args...))
	}
	for line := range strings.Lines(iptables(w.T)) {
		// what the CNI plugins make once for all their users, and their empty tables
		if strings.HasPrefix(line, ":CNI-") || strings.Contains(line, "CNI-HOSTPORT-") || strings.Contains(line, "CNI-FORWARD") {
			continue
		}
		out.WriteString(line)
	}
	links, err := net.Interfaces()
	if err != nil {
		w.Fatal(err)
	}
	for _, l := range links {
		if l.Name != bridge {
			fmt.Fprintln(&out, l.Name)
		}
	}
	for _, dir := range []string{"/etc/cni", "/run/nerdctl", "/var/lib/cni"} {
		files, _ := exec.Command("find", dir, "-type", "f", "-not", "-name", "*.lock", "-exec", "sha256sum", "{}", ";").CombinedOutput()
		out.Write(files)
	}
	return out.String()
}

// iptables returns the rules without their counters and comments.
func iptables(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, table := range []string{"nat", "filter"} {
		b, err := exec.Command("iptables-save", "-t", table).Output()
		if err != nil {
			t.Fatalf("iptables-save: %v", err)
		}
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "#") {
				continue
			}
			line, _, _ = strings.Cut(line, " [")
			out.WriteString(strings.TrimSpace(line) + "\n")
		}
	}
	return out.String()
}
