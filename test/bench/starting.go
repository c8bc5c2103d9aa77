package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// starting measures from a push to a container that answers, with the image local,
// beside two commands that start a container of the same image.
func starting(ctx context.Context, b *bench) error {
	s, err := newSite(ctx, b)
	if err != nil {
		return err
	}
	defer s.close(context.WithoutCancel(ctx))
	n := b.pick(2, 15)
	changed, err := pushes(ctx, s, n, func(i int) error { return s.app("warm", 0, fmt.Sprint("change ", i)) }, 0, "change ")
	if err != nil {
		return fmt.Errorf("change an app: %w", err)
	}
	added, err := additions(ctx, s, n)
	if err != nil {
		return fmt.Errorf("add an app: %w", err)
	}
	ctr, err := ctrRuns(ctx, s, n)
	if err != nil {
		return err
	}
	nerdctl, err := nerdctlRuns(ctx, s, n)
	if err != nil {
		return err
	}
	t := table{head: []string{"WHAT", "MEDIAN", "OF RUNS", "TIME/NERDCTL", "TIME/CTR"}}
	for _, r := range []struct {
		what string
		s    sample
	}{
		{"a push adds an app, from the moved branch", added.moved},
		{"the same, from the start of git push", added.began},
		{"a push changes an app, from the moved branch", changed.moved},
		{"the same, from the start of git push", changed.began},
		{"nerdctl run -d -p (bridge, port)", nerdctl},
		{"ctr run -d --net-host (no network of its own, no log)", ctr},
	} {
		t.add(r.what, ms(r.s.median()), r.s.spread(), ratio(r.s.median(), nerdctl.median()), ratio(r.s.median(), ctr.median()))
	}
	t.print(b.out)
	fmt.Fprint(b.out, `
All to the first HTTP answer of the new container, image local. The moved branch: the moment that Git wrote its new value.
Ours validates, signs, publishes, pulls and verifies before it starts; a change also stops the old container.
`)
	return nil
}

// latencies are from the two moments of a push.
type latencies struct{ began, moved sample }

func (l *latencies) add(p pushed, at time.Time) {
	l.began = append(l.began, at.Sub(p.began))
	l.moved = append(l.moved, at.Sub(p.moved))
}

func pushes(ctx context.Context, s *site, n int, change func(i int) error, port int, greeting string) (*latencies, error) {
	l := new(latencies)
	for i := range n {
		if err := change(i); err != nil {
			return nil, err
		}
		p, err := s.push(ctx, fmt.Sprint("Change ", i))
		if err != nil {
			return nil, err
		}
		at, err := s.answer(ctx, port, fmt.Sprint(greeting, i))
		if err != nil {
			return nil, err
		}
		l.add(p, at)
		time.Sleep(time.Second) // what follows a start is over
	}
	return l, nil
}

func additions(ctx context.Context, s *site, n int) (*latencies, error) {
	l := new(latencies)
	for i := range n {
		if err := s.app("added", 1, fmt.Sprint("addition ", i)); err != nil {
			return nil, err
		}
		p, err := s.push(ctx, "Add an app")
		if err != nil {
			return nil, err
		}
		at, err := s.answer(ctx, 1, fmt.Sprint("addition ", i))
		if err != nil {
			return nil, err
		}
		l.add(p, at)
		if err := s.drop("added"); err != nil {
			return nil, err
		}
		if _, err := s.push(ctx, "Remove it"); err != nil {
			return nil, err
		}
		if err := s.silence(ctx, 1); err != nil {
			return nil, err
		}
		time.Sleep(time.Second)
	}
	return l, nil
}

// peerNamespace is where the peers' containers are.
const peerNamespace = "bench-peer"

// timed runs a command and returns the time from its start to the first answer.
func timed(ctx context.Context, s *site, greeting string, name string, args ...string) (time.Duration, error) {
	began := time.Now()
	ended := make(chan error, 1)
	go func() {
		_, err := s.run(ctx, s.dir, name, args...)
		ended <- err
	}()
	at, err := s.answer(ctx, 2, greeting)
	if e := <-ended; e != nil {
		return 0, e
	}
	return at.Sub(began), err
}

func ctrRuns(ctx context.Context, s *site, n int) (sample, error) {
	ctr, err := tool("ctr")
	if err != nil {
		return nil, err
	}
	do := []string{"--address", s.containerd.Address, "-n", peerNamespace}
	if _, err := s.run(ctx, s.dir, ctr, append(do, "image", "pull", "--plain-http", s.image)...); err != nil {
		return nil, err
	}
	var all sample
	for i := range n + 1 {
		id := fmt.Sprint("ctr-", i)
		took, err := timed(ctx, s, id, ctr, append(do, "run", "-d", "--net-host", "--env", "PORT="+strconv.Itoa(sitePort(2)), "--env", "GREETING="+id, s.image, id)...)
		if err != nil {
			return nil, err
		}
		if i > 0 { // the first unpacks
			all = append(all, took)
		}
		if _, err := s.run(ctx, s.dir, ctr, append(do, "task", "rm", "-f", id)...); err != nil {
			return nil, err
		}
		if _, err := s.run(ctx, s.dir, ctr, append(do, "container", "rm", id)...); err != nil {
			return nil, err
		}
		if err := s.silence(ctx, 2); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func nerdctlRuns(ctx context.Context, s *site, n int) (sample, error) {
	nerdctl, err := tool("nerdctl")
	if err != nil {
		return nil, err
	}
	cni := "/opt/cni/bin"
	if _, err := os.Stat(filepath.Join(cni, "bridge")); err != nil {
		cni = "/usr/lib/cni"
	}
	do := []string{"--address", s.containerd.Address, "--namespace", peerNamespace, "--data-root", filepath.Join(s.dir, "nerdctl"),
		"--cni-path", cni, "--cni-netconfpath", filepath.Join(s.dir, "nerdctl-net"), "--cgroup-manager", "cgroupfs"}
	if _, err := net.InterfaceByName("nerdctl0"); err != nil { // it makes its bridge: leave none behind
		defer s.run(context.WithoutCancel(ctx), s.dir, "ip", "link", "del", "nerdctl0")
	}
	var all sample
	for i := range n + 1 {
		id := fmt.Sprint("nerdctl-", i)
		took, err := timed(ctx, s, id, nerdctl, append(do, "run", "-d", "--pull", "never", "--name", id,
			"-p", strconv.Itoa(sitePort(2))+":8080", "-e", "GREETING="+id, "--cpus", "0.5", "--memory", "64m", s.image)...)
		if err != nil {
			return nil, err
		}
		if i > 0 { // the first makes the bridge
			all = append(all, took)
		}
		if _, err := s.run(ctx, s.dir, nerdctl, append(do, "rm", "-f", id)...); err != nil {
			return nil, err
		}
		if err := s.silence(ctx, 2); err != nil {
			return nil, err
		}
	}
	return all, nil
}
