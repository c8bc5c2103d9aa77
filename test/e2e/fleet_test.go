package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"selvedge/schema/wire"
	"selvedge/test/env"
	"selvedge/test/world"
)

// fleet is all of Selvedge with two nodes: far joined and reaches nothing but the hub, and hand
// has a key that was put into Git by hand.
type fleet struct {
	*testing.T
	*world.World
	far, hand *world.Node
}

// TestFleet plays the life of nodes behind a hub, step by step.
func TestFleet(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs containers for a minute")
	}
	env.Need(t, env.CanContainerd())
	env.Need(t, env.CanRegistry())
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	w, err := world.New(bin, filepath.Join("..", "..", "examples-repo"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{T: t, World: w}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(w.Logs())
		}
		if err := w.Close(false); err != nil {
			t.Error(err)
		}
	})
	if f.far, err = w.AddNode("e2e-far", true); err != nil {
		t.Fatal(err)
	}
	if f.hand, err = w.AddNode("e2e-hand", false); err != nil {
		t.Fatal(err)
	}
	if err := w.Do(t.Context(), func(what string) { t.Log(time.Now().Format(time.TimeOnly), what) }, w.Cloud()...); err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		name string
		do   func(*fleet)
	}{
		{"join and approve", joinAndApprove},
		{"a key by hand", keyByHand},
		{"a push is noticed", pushIsNoticed},
		{"exec", execs},
		{"top", top},
		{"logs over a restart", logsOverARestart},
		{"cut off", cutOff}, // far is, from here on
		{"agent killed in the middle", agentKilled},
		{"reboot without a hub", rebootWithoutAHub},
		{"out of Git and back", outAndBack},
		{"mended", mended},
		{"memory", memory},
	} {
		ok := t.Run(s.name, func(t *testing.T) {
			step := *f
			step.T = t
			s.do(&step)
		})
		if !ok {
			t.Fatal("what follows would fail as well")
		}
	}
}

func (f *fleet) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fleet) await(what string, ok func() bool) {
	f.Helper()
	f.must(f.Until(f.Context(), patience, what, ok))
}

// cli is a command of a person.
func (f *fleet) cli(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(f.Context(), f.Command("selvedge"), args...)
	cmd.Dir, cmd.Env = f.Clone, f.Environ()
	return cmd
}

// says waits until the app of a node greets like that.
func (f *fleet) says(n *world.Node, greeting string) {
	f.Helper()
	f.await(n.Name+" to say "+greeting, func() bool { return strings.Contains(fetch(n.AppURL()), greeting) })
}

// seen is what the hub says of a node, as far as is looked at here.
type seen struct {
	Status, Why      string
	Connected        bool
	Wanted, LastGood struct{ Generation int64 }
	Report           wire.Status
}

func (f *fleet) show(n *world.Node) (s seen) {
	out, err := f.Selvedge(f.Context(), "node", "show", n.Name, "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	if err != nil {
		s.Why = err.Error()
	}
	return s
}

func (f *fleet) ready(n *world.Node) {
	f.Helper()
	f.await("the hub to call "+n.Name+" ready", func() bool {
		s := f.show(n)
		return s.Status == "Ready" && s.Wanted.Generation > 0 && s.Wanted.Generation == s.LastGood.Generation
	})
}

// greet has the app hello say something else, everywhere.
func (f *fleet) greet(greeting string) {
	f.Helper()
	f.must(f.Edit(world.AppFile, func(s string) string {
		before, rest, _ := strings.Cut(s, `GREETING: "`)
		_, after, _ := strings.Cut(rest, `"`)
		return before + `GREETING: "` + greeting + `"` + after
	}))
	f.must(f.Commit(f.Context(), "Say "+greeting))
}

// joinAndApprove: the far node cannot reach the registry, so that its images came through the hub.
func joinAndApprove(f *fleet) {
	program, err := os.ReadFile(f.Command("tool"))
	f.must(err)
	image, err := env.BuildImageOf(program, "1")
	f.must(err)
	ref, err := env.Push(f.Context(), world.Images, "e2e/tool", "1", image)
	f.must(err)
	f.must(f.Write(filepath.Join(world.Workspace, "tool.cue"), `package fleet

app: tool: {
	placement: selector: role: "gateway"
	container: main: {
		image: "`+ref+`"
		resources: {cpu: 0.5, memory: "64MiB"}
		probe: {http: {port: 8080, path: "/healthz"}, interval: "1s"}
		stop: timeout: "1s"
	}
	update: deadline: "30s"
}
`))
	f.must(f.Commit(f.Context(), "A tool"))
	f.must(f.far.Join(f.Context()))
	f.must(f.far.Start(f.Context()))
	f.await("it to wait", func() bool { return strings.Contains(f.far.Hub(f.Context()), "selvedge node approve") })
	f.must(f.far.Approve(f.Context(), ""))
	f.says(f.far, "in lab-1")
	if err := env.InNetns(f.far.Netns.Name, "ip", "-4", "addr", "show", "to", world.Images[:strings.IndexByte(world.Images, ':')]+"/32", "dev", "lo").Run(); err != nil {
		f.Fatal(err) // its 127.0.0.1 is its own, where nobody listens
	}
	f.ready(f.far)
}

func keyByHand(f *fleet) {
	f.must(f.hand.ByHand(f.Context(), "gw-hand"))
	f.hand.Flags = []string{"--metrics", "127.0.0.1:9466"}
	f.must(f.hand.Start(f.Context()))
	f.says(f.hand, "from gw-hand")
	f.ready(f.hand)
	f.await("metrics", func() bool {
		m := fetch("http://127.0.0.1:9466/metrics")
		return strings.Contains(m, "selvedge_agent_well 1\n") && strings.Contains(m, `selvedge_agent_container_healthy{app="tool",container="main"} 1`)
	})
}

// pushIsNoticed: both poll every five minutes while they are connected.
func pushIsNoticed(f *fleet) {
	f.await("connections", func() bool {
		return f.far.Status(f.Context()).Hub.Connected && f.hand.Status(f.Context()).Hub.Connected
	})
	f.greet("noticed")
	f.says(f.far, "hello noticed")
	f.says(f.hand, "hello noticed")
	f.ready(f.far)
}

func execs(f *fleet) {
	cmd := f.cli("exec", "-i", f.far.Name+"/tool", "--", "/hello", "cat")
	cmd.Stdin = strings.NewReader(strings.Repeat("a line of input\n", 10_000))
	if out, err := cmd.Output(); err != nil || len(out) != 160_000 || !strings.HasPrefix(string(out), "a line of input\n") {
		f.Errorf("%v: %d bytes", err, len(out))
	}
	var ended *exec.ExitError
	out, err := f.cli("exec", f.far.Name+"/tool/main", "--", "/hello", "exit", "42").Output()
	if !errors.As(err, &ended) || ended.ExitCode() != 42 || len(out) != 0 || !strings.Contains(string(ended.Stderr), "told to fail") {
		f.Errorf("%v, %q", err, out)
	}
	if out, err := f.cli("exec", f.far.Name+"/tool", "--", "/none").CombinedOutput(); !errors.As(err, &ended) || !strings.Contains(string(out), "none") {
		f.Errorf("a command that is not there: %v, %s", err, out)
	}
}

func top(f *fleet) {
	f.await("usage to be told", func() bool {
		for _, app := range f.show(f.far).Report.Apps {
			for _, c := range app.Containers {
				if app.Name == "tool" && c.Usage != nil && c.Usage.CPU > 0.005 && c.Usage.Memory > 100<<10 {
					return true
				}
			}
		}
		return false
	})
	s := f.show(f.far)
	if u := s.Report.Usage; u == nil || u.Memory < 1<<20 || !strings.HasPrefix(s.Report.Agent.Runtime, "containerd ") {
		f.Errorf("%+v", s.Report)
	}
	out, err := f.Selvedge(f.Context(), "top", "apps")
	if err != nil || !strings.Contains(out, "tool") {
		f.Errorf("%v: %s", err, out)
	}
}

// lines are those that a command prints, as they come.
func (f *fleet) lines(cmd *exec.Cmd) (next func(what string, ok func(string) bool) string) {
	f.Helper()
	out, err := cmd.StdoutPipe()
	f.must(err)
	f.must(cmd.Start())
	f.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	all := make(chan string)
	go func(ctx context.Context) {
		defer close(all)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			select {
			case all <- sc.Text():
			case <-ctx.Done():
				io.Copy(io.Discard, out)
				return
			}
		}
	}(f.Context())
	return func(what string, ok func(string) bool) string {
		f.Helper()
		over := time.After(patience)
		for {
			select {
			case l, more := <-all:
				if !more {
					f.Fatalf("the stream ended before %s", what)
				}
				if ok(l) {
					return l
				}
			case <-over:
				f.Fatalf("waited for %s in vain", what)
			}
		}
	}
}

// run returns which run of the tool printed a line; "" for others.
func run(line string) string {
	_, after, ok := strings.Cut(line, "run ")
	if !ok {
		return ""
	}
	id, _, _ := strings.Cut(after, " ")
	return id
}

func logsOverARestart(f *fleet) {
	next := f.lines(f.cli("logs", "-f", "--tail", "1", f.far.Name+"/tool"))
	first := run(next("a line", func(l string) bool { return run(l) != "" }))
	_, err := f.Selvedge(f.Context(), "restart", f.far.Name+"/tool")
	f.must(err)
	next("the run after it", func(l string) bool { return run(l) != "" && run(l) != first })
	f.ready(f.far)
}

func cutOff(f *fleet) {
	f.must(f.far.Netns.Cut())
	f.greet("alone")
	f.says(f.hand, "hello alone") // the other one is not held up
	if out, err := f.far.Ctr(f.Context(), "task", "ls"); err != nil || strings.Count(out, "RUNNING") != 2 {
		f.Errorf("%v: %s", err, out)
	}
}

// agentKilled: who looked on is told, and what ran for people ends with the agent's return.
func agentKilled(f *fleet) {
	logs := f.cli("logs", "-f", "--tail", "1", f.hand.Name+"/tool")
	next := f.lines(logs)
	next("a line", func(l string) bool { return run(l) != "" })
	wait := f.cli("exec", f.hand.Name+"/tool", "--", "/hello", "wait")
	waiting := f.lines(wait)
	waiting("the command", func(l string) bool { return l == "waiting" })
	before := f.tasks(f.hand)
	f.hand.Agent.End(syscall.SIGKILL)
	f.must(f.hand.Start(f.Context()))
	if err := wait.Wait(); err == nil {
		f.Error("the command's stream ended as if all were well")
	}
	f.await("the command to be gone", func() bool { return strings.Count(f.processes(f.hand), "hello\x00wait") == 0 })
	f.ready(f.hand)
	if after := f.tasks(f.hand); after != before {
		f.Errorf("containers changed:\n%s\nbefore:\n%s", after, before)
	}
}

func (f *fleet) tasks(n *world.Node) string {
	f.Helper()
	out, err := n.Ctr(f.Context(), "task", "ls")
	f.must(err)
	lines := strings.Split(out, "\n")
	slices.Sort(lines) // containerd lists them as they come
	return strings.Join(lines, "\n")
}

// processes are the command lines of a node's containers, as the kernel has them.
func (f *fleet) processes(n *world.Node) string {
	f.Helper()
	var b strings.Builder
	for line := range strings.Lines(f.tasks(n)) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[2] != "RUNNING" {
			continue
		}
		out, err := n.Ctr(f.Context(), "task", "ps", fields[0])
		if err != nil {
			continue // it ended meanwhile
		}
		for l := range strings.Lines(out) {
			pid, _, _ := strings.Cut(l, " ")
			line, _ := os.ReadFile(filepath.Join("/proc", pid, "cmdline"))
			b.Write(line)
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// rebootWithoutAHub: the apps come from disk; and the hub that comes back has other keys, so that
// no token of before is good, as after a year.
func rebootWithoutAHub(f *fleet) {
	f.Hub.End(syscall.SIGKILL)
	f.hand.Agent.End(syscall.SIGKILL)
	f.must(f.hand.KillContainers(f.Context()))
	f.await("the app to be gone", func() bool { return fetch(f.hand.AppURL()) == "" })
	f.must(f.hand.Start(f.Context()))
	f.says(f.hand, "hello alone")
	f.must(os.RemoveAll(filepath.Join(f.HubDir(), "bus")))
	f.must(f.StartHub(f.Context()))
	f.ready(f.hand)
}

func outAndBack(f *fleet) {
	name := filepath.Join(f.Clone, f.hand.File())
	text, err := os.ReadFile(name)
	f.must(err)
	f.must(os.Remove(name))
	f.must(f.Commit(f.Context(), "Take it out"))
	f.await("it to be refused", func() bool { return strings.Contains(f.hand.Hub(f.Context()), "no node in Git") })
	if _, err := f.Selvedge(f.Context(), "logs", "--tail", "1", f.hand.Name+"/tool"); err == nil {
		f.Error("a node that is out shows its log")
	}
	if !strings.Contains(fetch(f.hand.AppURL()), "hello alone") {
		f.Error("what it runs does not go on")
	}
	f.must(os.WriteFile(name, text, 0o644))
	f.must(f.Commit(f.Context(), "Put it back"))
	f.ready(f.hand)
}

func mended(f *fleet) {
	f.await("the hub to call the far node unknown", func() bool { return f.show(f.far).Status == "Unknown" })
	if strings.Count(f.tasks(f.far), "RUNNING") != 2 {
		f.Error("it does not run on")
	}
	f.must(f.far.Netns.Mend())
	f.says(f.far, "hello alone")
	f.ready(f.far)
}

// memory bounds what an agent takes that has had streams, restarts of its hub, and updates. It is
// 40 MB in a quiet hour; the garbage of the last minute comes on top.
func memory(f *fleet) {
	for _, n := range []*world.Node{f.far, f.hand} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", n.Agent.PID()))
		f.must(err)
		kb := map[string]int{}
		for line := range strings.Lines(string(text)) {
			name, rest, _ := strings.Cut(line, ":")
			kb[name], _ = strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
		}
		f.Logf("%s: %d KB resident, %d KB of it its own, %d KB proportional", n.Name, kb["Rss"], kb["Private_Dirty"]+kb["Private_Clean"], kb["Pss"])
		if kb["Rss"] == 0 || kb["Private_Dirty"] > 64<<10 {
			f.Errorf("%s: %d KB of its own", n.Name, kb["Private_Dirty"])
		}
	}
}
