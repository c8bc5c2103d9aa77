package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"selvedge/test/bench/fleetgen"
)

// publishing measures validate, resolve, sign and publish as a whole, in the real
// process and on a real repo, beside cue vet -c, which only validates.
func publishing(ctx context.Context, b *bench) error {
	sizes := []int{1000, 10000}
	if b.quick {
		sizes = []int{200}
	}
	t := table{head: []string{"NODES", "WHAT", "TIME", "OF RUNS", "CPU", "PEAK MEMORY", "TIME/CUE", "CPU/CUE", "MEMORY/CUE"}}
	for _, n := range sizes {
		if err := publishingOf(ctx, b, n, &t); err != nil {
			return fmt.Errorf("%d nodes: %w", n, err)
		}
	}
	t.print(b.out)
	fmt.Fprint(b.out, `
cold: no data; from the start of the process to the last state published. warm: started again with its data.
one node: from the moment that the push moved the branch to the answer of a waiting request for the node's signed state.
after a rest: its evaluator has ended and is started anew.
/cue: ours by that of cue vet -c on the whole repo, which validates and does nothing else; below 1 is less.
Memory is resident, summed over the process and its evaluators.
`)
	return nil
}

// rest is longer than the reconciler keeps an idle evaluator.
const rest = 35 * time.Second

// measured is one way of doing the work.
type measured struct {
	times sample
	used
}

func (m *measured) add(took time.Duration, u used) {
	m.times = append(m.times, took)
	m.cpu += u.cpu // of all runs; row divides
	m.peak = max(m.peak, u.peak)
}

func publishingOf(ctx context.Context, b *bench, n int, t *table) error {
	p, err := newPlatform(ctx, b, func(dir string) error { return fleetgen.Write(dir, n) })
	if err != nil {
		return err
	}
	defer p.close()
	var cold, warm, whole, part measured
	for range b.pick(1, 3) {
		p.reconciler.end()
		if err := os.RemoveAll(p.data); err != nil {
			return err
		}
		if err := reconcile(ctx, p, &cold); err != nil {
			return err
		}
	}
	for range b.pick(1, 3) {
		p.reconciler.end()
		if err := reconcile(ctx, p, &warm); err != nil {
			return err
		}
	}
	for _, node := range []string{fleetgen.Node(0), fleetgen.Node(n - 1)} {
		if _, _, err := p.signed(ctx, node, ""); err != nil {
			return err
		}
	}
	one, err := changes(ctx, p, n, b.pick(2, 15), 0)
	if err != nil {
		return err
	}
	rested := new(measured)
	if n >= 10000 { // takes minutes: once is enough
		if rested, err = changes(ctx, p, n, 3, rest); err != nil {
			return err
		}
	}
	p.reconciler.end()
	p.reconciler = nil
	for range b.pick(1, 2) {
		if err := vet(ctx, p, "./folders/...", &whole); err != nil {
			return err
		}
	}
	for range b.pick(1, 3) {
		if err := vet(ctx, p, "./"+fleetgen.Workspace(n/2), &part); err != nil {
			return err
		}
	}
	for _, r := range []struct {
		what string
		m    measured
	}{
		{"cold", cold}, {"warm", warm}, {"one node", *one}, {"one node, after a rest", *rested},
		{"cue vet -c ./folders/...", whole}, {"cue vet -c of one workspace", part},
	} {
		runs, base := time.Duration(len(r.m.times)), time.Duration(len(whole.times))
		if runs == 0 {
			continue
		}
		t.add(fmt.Sprint(n), r.what, ms(r.m.times.median()), r.m.times.spread(), ms(r.m.cpu/runs), mb(r.m.peak),
			ratio(r.m.times.median(), whole.times.median()), ratio(r.m.cpu/runs, whole.cpu/base), ratio(r.m.peak, whole.peak))
	}
	return nil
}

// reconcile starts the reconciler and measures until all is published.
func reconcile(ctx context.Context, p *platform, m *measured) error {
	commit, err := p.head(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := p.startReconciler(); err != nil {
		return err
	}
	meter := watch(p.reconciler.cmd.Process.Pid)
	at, err := p.published(ctx, commit)
	u := meter.end()
	m.add(at.Sub(began), u)
	return err
}

// changes pushes changes of one node each, and measures until a node that waits has its new state.
func changes(ctx context.Context, p *platform, n, times int, pause time.Duration) (*measured, error) {
	m := new(measured)
	for i := range times {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		at := (n/2 + i*100) % n // another workspace each time
		file, err := fleetgen.Edit(p.clone, at, fmt.Sprint("change ", i, " after ", pause))
		if err != nil {
			return nil, err
		}
		took, u, err := change(ctx, p, fleetgen.Node(at), "Change "+file)
		if err != nil {
			return nil, err
		}
		m.add(took, u)
	}
	return m, nil
}

func change(ctx context.Context, p *platform, node, message string) (time.Duration, used, error) {
	etag, _, err := p.signed(ctx, node, "")
	if err != nil {
		return 0, used{}, err
	}
	type answer struct {
		at  time.Time
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		_, at, err := p.signed(ctx, node, etag)
		answers <- answer{at, err}
	}()
	time.Sleep(200 * time.Millisecond) // the request waits by then, and the change before is done with
	meter := watch(p.reconciler.cmd.Process.Pid)
	push, err := p.push(ctx, message)
	a := <-answers
	time.Sleep(50 * time.Millisecond) // what it does after the answer is part of its work
	u := meter.end()
	return a.at.Sub(push.moved), u, errors.Join(err, a.err)
}

// vet runs the real cue on the clone.
func vet(ctx context.Context, p *platform, what string, m *measured) error {
	cue, err := tool("cue")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, cue, "vet", "-c", what)
	cmd.Dir = p.clone
	cmd.Env = append(os.Environ(), "CUE_REGISTRY=none")
	out, err := os.CreateTemp(p.dir, "vet")
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	meter := watch(cmd.Process.Pid)
	err = cmd.Wait()
	took := time.Since(began)
	u := meter.end()
	if err != nil {
		text, _ := os.ReadFile(out.Name())
		return fmt.Errorf("cue vet -c %s: %w: %.2000s", what, err, text)
	}
	u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	m.add(took, u)
	return nil
}
