package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"selvedge/test/world"
)

// seen is what the hub says of a node, as far as is looked at here.
type seen struct {
	Name, Status, Why string
	Connected         bool
	Wanted, LastGood  struct{ Generation int64 }
}

// ask returns what the hub says of a node.
func (d *demo) ask(ctx context.Context, n *world.Node) (s seen) {
	out, err := d.Selvedge(ctx, "node", "show", n.Name, "-o", "json")
	if err == nil {
		_ = json.Unmarshal([]byte(out), &s) // what is not there is not as it should be
	}
	return s
}

// settled waits until the hub says that a node is Ready and runs the newest state.
func (d *demo) settled(ctx context.Context, n *world.Node, most time.Duration) (s seen, err error) {
	err = d.Until(ctx, most, "the hub to call "+n.Name+" ready", func() bool {
		s = d.ask(ctx, n)
		return s.Status == "Ready" && s.Wanted.Generation == s.LastGood.Generation
	})
	if err != nil {
		err = fmt.Errorf("%w; it says %s: %s", err, s.Status, s.Why)
	}
	return s, err
}

func (d *demo) seeFleet(ctx context.Context) (string, error) {
	for _, n := range d.Nodes {
		if _, err := d.settled(ctx, n, time.Minute); err != nil {
			return "", err
		}
	}
	out, err := d.Selvedge(ctx, "nodes", "-w", world.Workspace)
	fmt.Printf("\n%s", out)
	return "both nodes are ready, at the generation that Git wants; the others are in Git only and never reported", err
}

func (d *demo) readLog(ctx context.Context) (string, error) {
	for _, n := range d.Nodes {
		out, err := d.Selvedge(ctx, "logs", n.Name+"/hello", "--tail", "3")
		if err != nil {
			return "", err
		}
		if strings.TrimSpace(out) == "" {
			return "", fmt.Errorf("the log of hello on %s is empty", n.Name)
		}
		for line := range strings.Lines(out) {
			fmt.Printf("\n%s: %s", n.Name, strings.TrimRight(line, "\n"))
		}
	}
	fmt.Println()
	return "the last lines of both nodes", nil
}

func (d *demo) exec(ctx context.Context) (string, error) {
	out, err := d.Selvedge(ctx, "exec", d.far.Name+"/hello", "--", "/hello", "check")
	return strings.TrimSpace("its own check ends with 0 " + strings.TrimSpace(out)), err
}

func (d *demo) restart(ctx context.Context) (string, error) {
	before := d.containers(ctx)
	if _, err := d.Selvedge(ctx, "restart", d.near.Name+"/hello"); err != nil {
		return "", err
	}
	if err := d.Until(ctx, 30*time.Second, "another process", func() bool { return d.containers(ctx) != before }); err != nil {
		return "", err
	}
	body, err := answers(ctx, d.near, "version 3", 30*time.Second)
	return "back, another process: " + strings.TrimSpace(body), err
}

// cutLink cuts the second node off; it must go on, and the hub must say what it does not know.
func (d *demo) cutLink(ctx context.Context) (string, error) {
	if err := d.far.Netns.Cut(); err != nil {
		return "", err
	}
	var s seen
	err := d.Until(ctx, 90*time.Second, "the hub to call "+d.far.Name+" unknown", func() bool {
		s = d.ask(ctx, d.far)
		return s.Status == "Unknown"
	})
	if err != nil {
		return "", err
	}
	out, err := d.far.Ctr(ctx, "task", "ls")
	if err != nil || !strings.Contains(out, "RUNNING") {
		return "", errors.Join(fmt.Errorf("its containers do not run: %s", out), err)
	}
	if _, err := d.upgrade("hello-3", "hello-2", "version 2")(ctx); err != nil {
		return "", err
	}
	return "its containers run on; the hub says " + s.Status + ": " + s.Why, nil
}

func (d *demo) mendLink(ctx context.Context) (string, error) {
	if err := d.far.Netns.Mend(); err != nil {
		return "", err
	}
	body, err := answers(ctx, d.far, "version 2", 90*time.Second)
	if err != nil {
		return "", err
	}
	if _, err := d.settled(ctx, d.far, time.Minute); err != nil {
		return "", err
	}
	_, err = d.upgrade("hello-2", "hello-3", "version 3")(ctx)
	return "it caught up: " + strings.TrimSpace(body), err
}

func (d *demo) killHub(ctx context.Context) (string, error) {
	d.Hub.End(syscall.SIGKILL)
	if _, err := answers(ctx, d.near, "version 3", time.Second); err != nil {
		return "", err
	}
	if err := d.StartHub(ctx); err != nil {
		return "", err
	}
	for _, n := range d.Nodes {
		if _, err := d.settled(ctx, n, time.Minute); err != nil {
			return "", err
		}
	}
	return "both nodes came back by themselves", nil
}

// revoke takes the second node's file away: its connection must end, and its pulls be refused.
func (d *demo) revoke(ctx context.Context) (string, error) {
	if err := os.Remove(filepath.Join(d.Clone, world.Workspace, "node-"+d.far.Name+".cue")); err != nil {
		return "", err
	}
	began := time.Now()
	if err := d.Commit(ctx, "Take "+d.far.Name+" out"); err != nil {
		return "", err
	}
	err := d.Until(ctx, 30*time.Second, "the node's connection to end", func() bool { return !d.far.Status(ctx).Hub.Connected })
	if err != nil {
		return "", err
	}
	took := time.Since(began)
	err = d.Until(ctx, 30*time.Second, "the node to be refused", func() bool {
		return strings.Contains(d.far.Hub(ctx), "no node in Git")
	})
	if err != nil {
		return "", err
	}
	out, err := d.Selvedge(ctx, "nodes", "-w", world.Workspace, "-o", "name")
	if err != nil {
		return "", err
	}
	if strings.Contains(out, d.far.Name) {
		return "", fmt.Errorf("the hub lists it still: %s", out)
	}
	return fmt.Sprintf("cut off %.1f s after the push, and refused when it asks again; what it runs goes on until somebody takes it away", took.Seconds()), nil
}
