package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"selvedge/edge/apply"
	"selvedge/schema/nodestate"
)

// Bed is a runtime under test and what can be done to it from outside.
type Bed struct {
	Runtime apply.Runtime
	Image   string // a hello image that can be pulled
	Missing string // one that cannot
	Kill    func(t *testing.T, i apply.Instance)
	Pause   func(t *testing.T, i apply.Instance)
	Delete  func(t *testing.T, i apply.Instance)
}

// Run holds a runtime to its contract. The bed must be empty, and is empty again after.
func Run(t *testing.T, b Bed) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Bed)
	}{
		{"image", image},
		{"life", life},
		{"exit code and log", exitCode},
		{"another version", otherVersion},
		{"killed", killed},
		{"paused", paused},
		{"deleted", deleted},
		{"never runs twice after its end is lost", never},
		{"watch", watch},
		{"exec", exec},
		{"prune", prune},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.test(t, b)
			for _, i := range list(t, b) {
				if err := b.Runtime.Stop(t.Context(), i.ID, false); err != nil {
					t.Errorf("remove %s: %v", i.Key(), err)
				}
			}
			if left := list(t, b); len(left) > 0 {
				t.Errorf("still there: %v", left)
			}
		})
	}
}

func (b Bed) spec(change ...func(*nodestate.Container)) apply.Spec {
	c := nodestate.Container{Name: "main", Image: b.Image, Network: "none", Restart: "always", StopSignal: "SIGTERM", StopMS: 5000, LogBytes: 1 << 20, LogFiles: 2}
	for _, f := range change {
		f(&c)
	}
	return apply.Spec{App: "suite", Generation: 42, Hash: fmt.Sprintf("h-%x", fmt.Append(nil, c.Env, c.Args, c.Restart)), Container: c}
}

func list(t *testing.T, b Bed) []apply.Instance {
	t.Helper()
	l, err := b.Runtime.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// one returns the only container, or an absent one.
func one(t *testing.T, b Bed) apply.Instance {
	t.Helper()
	switch l := list(t, b); len(l) {
	case 0:
		return apply.Instance{State: apply.Absent}
	case 1:
		return l[0]
	default:
		t.Fatalf("more than one container: %v", l)
	}
	return apply.Instance{}
}

func start(t *testing.T, b Bed, s apply.Spec) apply.Instance {
	t.Helper()
	if err := b.Runtime.Pull(t.Context(), s.Container.Image); err != nil {
		t.Fatal(err)
	}
	i, err := b.Runtime.Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if i.State != apply.Running || i.ID == "" || i.Key() != s.Key() || i.Hash != s.Hash || i.Since.IsZero() {
		t.Fatalf("started as %+v", i)
	}
	return i
}

// state waits for the container to be in a state.
func state(t *testing.T, b Bed, want apply.State) apply.Instance {
	t.Helper()
	var i apply.Instance
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if i = one(t, b); i.State == want {
			return i
		}
	}
	t.Fatalf("state is %s and not %s", i.State, want)
	return i
}

func image(t *testing.T, b Bed) {
	if err := b.Runtime.Pull(t.Context(), b.Missing); err == nil {
		t.Errorf("pulled %s", b.Missing)
	}
	_, err := b.Runtime.Start(t.Context(), b.spec(func(c *nodestate.Container) { c.Image = b.Missing }))
	if !errors.Is(err, apply.ErrImageMissing) {
		t.Errorf("start without the image: %v", err)
	}
	if i := one(t, b); i.State != apply.Absent {
		t.Errorf("left %v", i)
	}
	for range 2 {
		if err := b.Runtime.Pull(t.Context(), b.Image); err != nil {
			t.Error(err)
		}
	}
}

func life(t *testing.T, b Bed) {
	s := b.spec()
	i := start(t, b, s)
	seen := one(t, b)
	if seen.State != apply.Running || seen.ID != i.ID || seen.Hash != s.Hash || seen.Generation != 42 || seen.Image != b.Image || !seen.Since.Equal(i.Since) {
		t.Errorf("observed as %+v, started as %+v", seen, i)
	}
	if again := start(t, b, s); again.ID != i.ID || !one(t, b).Since.Equal(i.Since) {
		t.Errorf("a second start touched it: %v", again)
	}
	if err := b.Runtime.Stop(t.Context(), i.ID, true); err != nil {
		t.Fatal(err)
	}
	if x := one(t, b); x.State == apply.Running || x.ID != i.ID {
		t.Errorf("kept as %v", x)
	}
	if again := start(t, b, s); again.ID != i.ID || again.Since.Equal(i.Since) {
		t.Errorf("started again as %v", again)
	}
	for range 2 {
		if err := b.Runtime.Stop(t.Context(), i.ID, false); err != nil {
			t.Error(err)
		}
		if x := one(t, b); x.State != apply.Absent {
			t.Errorf("removed, but %v", x)
		}
	}
	if again := start(t, b, s); again.ID == i.ID {
		t.Errorf("a removed container came back: %v", again)
	}
}

func exitCode(t *testing.T, b Bed) {
	s := b.spec(func(c *nodestate.Container) { c.Env = map[string]string{"FAIL": "exit"} })
	i := start(t, b, s)
	if x := state(t, b, apply.Exited); x.ExitCode != 3 || x.ID != i.ID {
		t.Errorf("exited as %v", x)
	}
	if tail, ok := b.Runtime.(apply.Tailer); ok {
		var lines []string
		for end := time.Now().Add(5 * time.Second); len(lines) == 0 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			var err error
			if lines, err = tail.Tail(t.Context(), i.ID, 5); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Contains(lines, "told to fail: no such database") {
			t.Errorf("it printed %q", lines)
		}
	}
	if again := start(t, b, s); again.ID != i.ID {
		t.Errorf("started again as %v", again)
	}
	state(t, b, apply.Exited)
}

func otherVersion(t *testing.T, b Bed) {
	i := start(t, b, b.spec())
	next := b.spec(func(c *nodestate.Container) { c.Env = map[string]string{"GREETING": "you"} })
	if _, err := b.Runtime.Start(t.Context(), next); err == nil {
		t.Error("two versions at once")
	}
	if x := one(t, b); x.ID != i.ID || x.State != apply.Running {
		t.Errorf("the first is %v", x)
	}
	if err := b.Runtime.Stop(t.Context(), i.ID, false); err != nil {
		t.Fatal(err)
	}
	start(t, b, next)
}

func killed(t *testing.T, b Bed) {
	if b.Kill == nil {
		t.Skip("nothing to kill it with")
	}
	s := b.spec()
	i := start(t, b, s)
	b.Kill(t, i)
	if x := state(t, b, apply.Exited); x.ExitCode != 137 {
		t.Errorf("exit code %d", x.ExitCode)
	}
	if again := start(t, b, s); again.ID != i.ID {
		t.Errorf("started again as %v", again)
	}
}

func paused(t *testing.T, b Bed) {
	if b.Pause == nil {
		t.Skip("nothing to pause it with")
	}
	s := b.spec()
	i := start(t, b, s)
	b.Pause(t, i)
	state(t, b, apply.Paused)
	if _, err := b.Runtime.Start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if x := state(t, b, apply.Running); x.ID != i.ID || !x.Since.Equal(i.Since) {
		t.Errorf("resumed as %v, was %v", x, i)
	}
	b.Pause(t, i) // and a paused one can be removed
	state(t, b, apply.Paused)
}

func deleted(t *testing.T, b Bed) {
	if b.Delete == nil {
		t.Skip("nothing to delete it with")
	}
	s := b.spec()
	i := start(t, b, s)
	b.Delete(t, i)
	state(t, b, apply.Absent)
	if again := start(t, b, s); again.ID == i.ID {
		t.Errorf("came back as %v", again)
	}
}

func never(t *testing.T, b Bed) {
	s := b.spec(func(c *nodestate.Container) { c.Restart = "never" })
	i := start(t, b, s)
	if err := b.Runtime.Stop(t.Context(), i.ID, true); err != nil { // forgets how it ended, as a reboot does
		t.Fatal(err)
	}
	if f, ok := b.Runtime.(*Fake); ok {
		f.Reboot()
	}
	if x := one(t, b); x.State != apply.Lost {
		t.Errorf("state %s", x.State)
	}
}

func watch(t *testing.T, b Bed) {
	w, ok := b.Runtime.(apply.Watcher)
	if !ok || b.Kill == nil {
		t.Skip("does not watch")
	}
	s := b.spec()
	i := start(t, b, s)
	ctx, cancel := context.WithCancel(t.Context())
	var told atomic.Int64
	done := make(chan error, 1)
	go func() { done <- w.Watch(ctx, func() { told.Add(1) }) }()
	time.Sleep(200 * time.Millisecond) // let it subscribe, and earlier events pass
	before := told.Load()
	b.Kill(t, i)
	for end := time.Now().Add(5 * time.Second); told.Load() == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not told of the exit")
		}
	}
	cancel()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Error("Watch outlives its context")
	}
}

func exec(t *testing.T, b Bed) {
	x, ok := b.Runtime.(apply.Execer)
	if !ok {
		t.Skip("does not exec")
	}
	i := start(t, b, b.spec())
	var code int
	var out string
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if code, out, err = x.Exec(t.Context(), i.ID, []string{"/hello", "check"}); err == nil && code == 0 {
			break // it listens by now
		}
	}
	if err != nil || code != 0 {
		t.Errorf("check: %d, %q, %v", code, out, err)
	}
	if code, _, err := x.Exec(t.Context(), i.ID, []string{"/nothing"}); err == nil && code == 0 {
		t.Error("ran a program that is not there")
	}
	if _, _, err := x.Exec(t.Context(), strings.Repeat("0", 64), []string{"/hello", "check"}); err == nil {
		t.Error("ran in a container that is not there")
	}
}

func prune(t *testing.T, b Bed) {
	p, ok := b.Runtime.(apply.Pruner)
	if !ok {
		t.Skip("does not prune")
	}
	s := b.spec()
	for _, c := range []struct {
		name string
		keep []string
		stop bool
		want error
	}{
		{"used by a container", nil, false, nil},
		{"kept", []string{b.Image}, true, nil},
		{"used and kept by nobody", nil, true, apply.ErrImageMissing},
	} {
		i := start(t, b, s)
		remove := func() {
			if err := b.Runtime.Stop(t.Context(), i.ID, false); err != nil {
				t.Fatal(err)
			}
		}
		if c.stop {
			remove()
		}
		if err := p.Prune(t.Context(), c.keep); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if !c.stop {
			remove()
		}
		i, err := b.Runtime.Start(t.Context(), s)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: start says %v", c.name, err)
		}
		if err == nil {
			if err := b.Runtime.Stop(t.Context(), i.ID, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	start(t, b, s) // pulled again, it is whole
}
