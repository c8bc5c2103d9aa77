package apply_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"

	"selvedge/edge/apply"
	"selvedge/edge/apply/runtimetest"
	"selvedge/schema/nodestate"
)

// rig is an Applier on a fake runtime, in a bubble of fake time.
type rig struct {
	*apply.Applier
	fake *runtimetest.Fake
	dir  string
	stop func()
}

// bubble runs a test with an Applier that is supervising.
func bubble(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, runtimetest.NewFake(), dir)
		test(t, r)
		r.stop()
	})
}

func newRig(t *testing.T, f *runtimetest.Fake, dir string) *rig {
	r := newRigOn(t, f, dir)
	r.fake = f
	return r
}

// newRigOn is for a runtime that is not only a fake.
func newRigOn(t *testing.T, rt apply.Runtime, dir string) *rig {
	a := apply.New(apply.Config{Runtime: rt, FilesDir: dir, Log: slog.New(slog.DiscardHandler)})
	a.Answer(func(context.Context, apply.Instance, *nodestate.Probe) error { return nil })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &rig{Applier: a, dir: dir, stop: stop}
}

func ctr(name string, change ...func(*nodestate.Container)) nodestate.Container {
	c := nodestate.Container{Name: name, Image: "img-" + name, Network: "bridge", Restart: "always", StopSignal: "SIGTERM", StopMS: 1000}
	for _, f := range change {
		f(&c)
	}
	return c
}

func fails(how string) func(*nodestate.Container) {
	return func(c *nodestate.Container) { c.Env = map[string]string{"FAIL": how} }
}

func restart(policy string) func(*nodestate.Container) {
	return func(c *nodestate.Container) { c.Restart = policy }
}

func probed(c *nodestate.Container) {
	c.Probe = &nodestate.Probe{HTTP: &nodestate.HTTPProbe{Port: 8080, Path: "/"}, IntervalMS: 5000, TimeoutMS: 1000, Failures: 3}
}

func app(name string, list ...nodestate.Container) nodestate.App {
	return nodestate.App{Name: name, Containers: list, DeadlineMS: 60_000}
}

func state(apps ...nodestate.App) nodestate.State { return nodestate.State{Apps: apps} }

func key(app, c string) apply.Key { return apply.Key{App: app, Container: c} }

func (r *rig) must(t *testing.T, s nodestate.State, generation int64) {
	t.Helper()
	if err := r.ApplyRaw(t.Context(), s, generation); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) container(app, name string) apply.ContainerStatus {
	for _, a := range r.Status().Apps {
		for _, c := range a.Containers {
			if a.Name == app && c.Name == name {
				return c
			}
		}
	}
	return apply.ContainerStatus{}
}
