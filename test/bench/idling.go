package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// idling measures the memory of a node that has nothing to do but to keep its apps running
// and to report to a hub.
func idling(ctx context.Context, b *bench) error {
	s, err := newSite(ctx, b)
	if err != nil {
		return err
	}
	h := &hub{platform: s.platform}
	defer func() {
		s.close(context.WithoutCancel(ctx)) // by a push, which the node hears of from the hub
		h.hub.end()
	}()
	const apps = 3
	for i := 1; i < apps; i++ {
		if err := s.app(fmt.Sprint("app-", i), i, "idle"); err != nil {
			return err
		}
	}
	if _, err := s.push(ctx, "More apps"); err != nil {
		return err
	}
	for i := 1; i < apps; i++ {
		if _, err := s.answer(ctx, i, "idle"); err != nil {
			return err
		}
	}
	if err := h.up(ctx, 1); err != nil {
		return err
	}
	s.agent.end()
	if _, err := s.init(ctx, "--hub", h.url, "--ca", h.pin); err != nil {
		return err
	}
	if err := s.startAgent(); err != nil {
		return err
	}
	agent := s.agent.cmd.Process.Pid
	wait := time.Duration(b.pick(3, 60)) * time.Second
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return ctx.Err()
	}
	before := cpuOf(agent)
	select {
	case <-time.After(wait / 2):
	case <-ctx.Done():
		return ctx.Err()
	}
	busy := (cpuOf(agent) - before).Seconds() / (wait / 2).Seconds() * 100

	t := table{head: []string{"WHAT", "PROCESSES", "RSS", "PSS", "RSS/CONTAINERD"}}
	daemon := running("containerd --config", s.containerd.Dir)
	var base int64
	for _, pid := range daemon {
		base += resident(pid)
	}
	for _, r := range []struct {
		what string
		pids []int
	}{
		{"selvedge-edge run, connected to a hub", []int{agent}},
		{fmt.Sprintf("its loggers, one a container (%d apps)", apps), running(filepath.Join(b.bin, "selvedge-edge"), "_NERDCTL_INTERNAL_LOGGING")},
		{"containerd", daemon},
		{"containerd's shims, one a container", running("containerd-shim-runc-v2", s.containerd.Address, siteNamespace)},
		{"selvedge-reconciler run, of this one node", []int{s.reconciler.cmd.Process.Pid}},
		{"selvedge-hub run, of this one node", []int{h.hub.cmd.Process.Pid}},
	} {
		var rss, pss int64
		for _, pid := range r.pids {
			rss += resident(pid)
			pss += proportional(pid)
		}
		t.add(r.what, fmt.Sprint(len(r.pids)), mb(rss), mb(pss), ratio(rss, base))
	}
	t.print(b.out)
	fmt.Fprintf(b.out, "\nAfter %v without a change; over the next %v the agent used %.2f %% of a core.\n", wait, wait/2, busy)
	return nil
}
