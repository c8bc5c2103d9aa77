package apply_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"selvedge/edge/apply"
	"selvedge/edge/apply/runtimetest"
	"selvedge/schema/nodestate"
)

func TestRuntimeAway(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		k := key("a", "x")
		r.must(t, state(app("a", ctr("x"))), 1)
		r.fake.Down(fmt.Errorf("%w: gone", apply.ErrUnavailable))
		time.Sleep(10 * time.Minute)
		if s := r.Status(); s.RuntimeError == "" {
			t.Errorf("status %+v", s)
		}
		if err := r.ApplyRaw(t.Context(), state(app("a", ctr("z"))), 2); !errors.Is(err, apply.ErrUnavailable) {
			t.Errorf("apply says %v", err)
		}
		r.fake.Down(nil)
		r.fake.Exit(k, 1) // it ended meanwhile
		time.Sleep(5 * time.Second)
		if i := r.fake.Get(k); i.State != apply.Running || r.Status().RuntimeError != "" {
			t.Errorf("is %v, %+v", i, r.Status())
		}
	})
}

// stuck is a runtime that takes questions and answers none, as one that was sent SIGSTOP.
type stuck struct {
	*runtimetest.Fake
	on atomic.Bool
}

func (s *stuck) Observe(ctx context.Context) ([]apply.Instance, error) {
	if s.on.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Fake.Observe(ctx)
}

func TestARuntimeThatSaysNothingIsAway(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := &stuck{Fake: runtimetest.NewFake()}
		r := newRigOn(t, f, dir)
		defer r.stop()
		r.must(t, state(app("a", ctr("x"))), 1)
		f.on.Store(true)
		time.Sleep(time.Minute)
		if s := r.Status(); !strings.Contains(s.RuntimeError, apply.ErrUnavailable.Error()) {
			t.Errorf("a minute later: %+v", s)
		}
		f.on.Store(false)
		time.Sleep(time.Minute)
		if s := r.Status(); s.RuntimeError != "" || !s.Healthy {
			t.Errorf("after it went on: %+v", s)
		}
	})
}

// A probe that cannot be made tells nothing of the container.
func TestRuntimeAwayRestartsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		down := fmt.Errorf("%w: gone", apply.ErrUnavailable)
		var away atomic.Bool
		r.Answer(func(context.Context, apply.Instance, *nodestate.Probe) error { // as by exec
			if away.Load() {
				return down
			}
			return nil
		})
		r.must(t, state(app("a", ctr("x", probed))), 1)
		was := r.fake.Get(key("a", "x"))
		r.fake.Down(down)
		away.Store(true)
		time.Sleep(10 * time.Minute)
		if c := r.container("a", "x"); c.Problem != "" {
			t.Errorf("the container is blamed: %+v", c)
		}
		r.fake.Down(nil)
		away.Store(false)
		time.Sleep(time.Minute)
		if i := r.fake.Get(key("a", "x")); i != was || !r.Status().Healthy {
			t.Errorf("is %v, was %v, %+v", i, was, r.Status())
		}
	})
}

func TestRuntimeGoesAwayDuringApply(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.fake.SlowStart(time.Second)
		go func() {
			time.Sleep(500 * time.Millisecond)
			r.fake.Down(fmt.Errorf("%w: gone", apply.ErrUnavailable))
		}()
		err := r.ApplyRaw(t.Context(), state(app("a", ctr("x"))), 1)
		var bad *apply.Unhealthy
		if errors.As(err, &bad) || !errors.Is(err, apply.ErrUnavailable) {
			t.Errorf("the state is blamed: %v", err)
		}
	})
}

func TestAdoptAfterRestartOfTheAgent(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := runtimetest.NewFake()
		s := state(app("a", ctr("x"), ctr("y", probed)), app("b", ctr("z", restart("never"))))
		r := newRig(t, f, dir)
		r.must(t, s, 1)
		r.stop()
		was := []apply.Instance{f.Get(key("a", "x")), f.Get(key("a", "y")), f.Get(key("b", "z"))}
		f.Forget()
		r = newRig(t, f, dir)
		f.FailPull("img-x", errors.New("no network"))
		if err := r.StartRaw(t.Context(), s, 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if calls := f.Calls(); len(calls) > 0 {
			t.Errorf("did %v", calls)
		}
		if now := []apply.Instance{f.Get(key("a", "x")), f.Get(key("a", "y")), f.Get(key("b", "z"))}; !slices.Equal(now, was) || !r.Status().Healthy {
			t.Errorf("is %v, was %v", now, was)
		}
		r.stop()
	})
}

func TestStartAfterReboot(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := app("a", ctr("db"), ctr("web"))
		a.Ordered = 1
		s := state(a, app("job", ctr("once", restart("never"))))
		r.must(t, s, 1)
		r.stop()
		r.fake.Reboot()
		r.fake.Forget()
		again := newRig(t, r.fake, r.dir)
		defer again.stop()
		if err := again.StartRaw(t.Context(), s, 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if calls := r.fake.Calls(); !slices.Equal(calls, []string{"start a/db", "start a/web"}) {
			t.Errorf("did %v", calls)
		}
		if c := again.container("job", "once"); c.Healthy || c.State != apply.Lost {
			t.Errorf("the job is %+v", c)
		}
	})
}

func TestMissingImageIsPulledAgain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.must(t, state(app("a", ctr("x"))), 1)
		r.fake.DropImage("img-x")
		r.fake.Delete(key("a", "x"))
		time.Sleep(5 * time.Second)
		if i := r.fake.Get(key("a", "x")); i.State != apply.Running {
			t.Errorf("is %v", i)
		}
	})
}

func TestNothingIsTouchedBeforeAState(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.fake.Plant(apply.Instance{App: "a", Container: "x", Hash: "h", State: apply.Running})
		time.Sleep(time.Minute)
		if i := r.fake.Get(key("a", "x")); i.State != apply.Running {
			t.Errorf("is %v", i)
		}
	})
}
