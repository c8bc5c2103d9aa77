package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"selvedge/test/env"
)

// Node is one machine: a containerd, an agent and, if it is apart, a network of its own.
type Node struct {
	Label      string // names its files; its name in Git is given at approval
	Name       string // in Git; empty before
	Dir        string
	Code       string     // under which it waits
	Netns      *env.Netns // nil: the network of this machine
	Containerd *env.Daemon
	Agent      *Process
	Flags      []string // more, for the agent

	w *World
}

// AddNode prepares a machine, without an agent. Add nodes that are apart before the hub
// starts: it learns the addresses that they dial.
func (w *World) AddNode(label string, apart bool) (n *Node, err error) {
	n = &Node{Label: label, Dir: filepath.Join(w.Dir, label), w: w}
	netns := ""
	if apart {
		if n.Netns, err = env.NewNetns("sv-" + label); err != nil {
			return nil, err
		}
		netns = n.Netns.Name
	}
	w.Nodes = append(w.Nodes, n)
	n.Containerd, err = env.StartContainerdIn(netns)
	return n, err
}

func (n *Node) command(name string, args ...string) *exec.Cmd {
	netns := ""
	if n.Netns != nil {
		netns = n.Netns.Name
	}
	return env.InNetns(netns, n.w.Command(name), args...)
}

// namespace is the one in containerd.
func (n *Node) namespace() string { return "selvedge-" + n.Label }

// Join runs the join line that the hub gives out, and notes the code under which the node waits.
func (n *Node) Join(ctx context.Context) error {
	line, err := n.w.Selvedge(ctx, "node", "join", Guide, "--hub-url", n.w.URLFor(n))
	if err != nil {
		return err
	}
	args := strings.Fields(strings.TrimSpace(line))
	if len(args) < 3 || args[0] != "selvedge-edge" {
		return fmt.Errorf("not a join line: %s", line)
	}
	cmd := n.command(args[0], append(args[1:], "--dir", n.Dir)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("join: %w: %s", err, out)
	}
	for f := range strings.FieldsSeq(string(out)) {
		if f = strings.Trim(f, ".,;:'\""); len(f) == 9 && f[4] == '-' && strings.ToUpper(f) == f {
			n.Code = f
		}
	}
	if n.Code == "" {
		return fmt.Errorf("no code in what join says: %s", out)
	}
	return nil
}

// Approve writes the node into the clone, under a name or the proposed one, and pushes.
func (n *Node) Approve(ctx context.Context, name string) error {
	args := []string{"node", "approve", n.Code, "-C", n.w.Clone, "--yes"}
	if name != "" {
		args = append(args, "--name", name)
	}
	if _, err := n.w.Selvedge(ctx, args...); err != nil {
		return err
	}
	if n.Name = name; name == "" {
		n.Name = "lab-" + strings.ToLower(n.Code)
	}
	return n.w.Push(ctx)
}

// ByHand makes the node's key with init, and puts it into the clone without anybody's help.
func (n *Node) ByHand(ctx context.Context, name string) error {
	cmd := n.command("selvedge-edge", "init", "--dir", n.Dir, "--node", name, "--hub", n.w.URLFor(n), "--ca", n.w.HubCA, "--root", filepath.Join(n.w.Dir, "trust", "1.root.json"))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	key, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("init: %w: %s", err, stderr.String())
	}
	n.Name = name
	err = n.w.Write(n.File(), fmt.Sprintf("package fleet\n\nnode: %q: {\n\tlabels: {role: \"gateway\", room: \"lab-1\"}\n\tidentity: publicKey: %q\n\tcapacity: {cpu: 2, memory: \"1GiB\"}\n\tremote: {logs: true, restart: true, exec: true}\n}\n",
		name, strings.TrimSpace(string(key))))
	if err != nil {
		return err
	}
	return n.w.Commit(ctx, "Add "+name)
}

// File is the node's in the clone.
func (n *Node) File() string { return filepath.Join(Workspace, "node-"+n.Name+".cue") }

// Start starts the agent.
func (n *Node) Start(context.Context) (err error) {
	args := []string{"run", "--dir", n.Dir, "--containerd", n.Containerd.Address, "--namespace", n.namespace(),
		"--run-dir", filepath.Join(n.w.Dir, n.Label+"-run"), "--bridge", "sv-" + n.Label, "--interval", "2s"}
	n.Agent, err = n.w.Spawn(n.Label, n.command("selvedge-edge", append(args, n.Flags...)...))
	return err
}

// AppURL is where the app hello of this node answers.
func (n *Node) AppURL() string {
	host := "127.0.0.1"
	if n.Netns != nil {
		host = n.Netns.Far
	}
	return "http://" + net.JoinHostPort(host, "18080") + "/"
}

// Hub is what the agent says of its connection to the hub.
func (n *Node) Hub(ctx context.Context) string { return n.Status(ctx).Hub.Error }

// Status is what the agent says of itself.
func (n *Node) Status(ctx context.Context) (s EdgeStatus) {
	out, _ := exec.CommandContext(ctx, n.w.Command("selvedge-edge"), "status", "--dir", n.Dir, "-o", "json").Output() // exit 1: not well, which is an answer
	_ = json.Unmarshal(out, &s)                                                                                       // it may not have begun
	return s
}

// EdgeStatus is the part of an agent's status that is looked at here.
type EdgeStatus struct {
	Node    string
	Running bool
	Link    struct{ Error string }
	Hub     struct {
		Connected bool
		Error     string
	}
	Store struct {
		Current  *struct{ Generation int64 }
		Rejected []struct{ Reason string }
	}
	Apply struct {
		Healthy    bool
		Generation int64
	}
}

// Ctr asks the node's containerd.
func (n *Node) Ctr(ctx context.Context, args ...string) (string, error) {
	return n.w.Run(ctx, n.w.Dir, "ctr", append([]string{"--address", n.Containerd.Address, "-n", n.namespace()}, args...)...)
}

// KillContainers kills every container process of the node behind everybody's back.
func (n *Node) KillContainers(ctx context.Context) error {
	out, err := n.Ctr(ctx, "task", "ls", "-q")
	if err != nil {
		return err
	}
	for id := range strings.FieldsSeq(out) {
		if _, err := n.Ctr(ctx, "task", "kill", "-s", "SIGKILL", id); err != nil {
			return err
		}
	}
	return nil
}

// Drain has the agent remove its containers, as a person would who takes a node away.
func (n *Node) Drain(ctx context.Context) error {
	name := filepath.Join(Workspace, "drain-"+n.Name+".cue")
	if err := n.w.Write(name, fmt.Sprintf("package fleet\n\nnode: %q: drain: true\n", n.Name)); err != nil {
		return err
	}
	if err := n.w.Commit(ctx, "Take "+n.Name+" out of service"); err != nil {
		return err
	}
	return n.w.Until(ctx, 30*time.Second, "the containers of "+n.Name+" to end", func() bool {
		out, err := n.Ctr(ctx, "container", "ls", "-q")
		return err == nil && strings.TrimSpace(out) == ""
	})
}

func (n *Node) close() error {
	n.Agent.End(syscall.SIGTERM)
	var errs []error
	if n.Containerd != nil {
		errs = append(errs, n.Containerd.Stop())
		errs = append(errs, os.RemoveAll(filepath.Join("/run/nerdctl", n.namespace())))
		for _, folder := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} { // version 2, and 1
			groups, _ := filepath.Glob(filepath.Join(folder, n.namespace())) // the pattern is right
			for _, group := range groups {
				_ = os.Remove(group) // the runtime removes those of containers, not the one around them
			}
		}
	}
	if n.Netns != nil {
		errs = append(errs, n.Netns.Close())
	} else if link, err := net.InterfaceByName("sv-" + n.Label); err == nil {
		_ = exec.Command("ip", "link", "del", link.Name).Run() // our bridge; its containers are gone
	}
	return errors.Join(errs...)
}
