package apply_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"selvedge/edge/apply"
)

func TestApplyTouchesOnlyWhatChanged(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.must(t, state(app("a", ctr("x"), ctr("y")), app("b", ctr("z"))), 1)
		before := r.fake.Get(key("a", "x"))
		r.fake.Forget()
		changed := ctr("y")
		changed.Env = map[string]string{"NEW": "1"}
		r.must(t, state(app("a", ctr("x"), changed), app("c", ctr("w"))), 2)
		calls := r.fake.Calls()
		slices.Sort(calls)
		want := []string{"pull img-w", "pull img-x", "pull img-y", "remove a/y", "remove b/z", "start a/y", "start c/w"}
		if d := cmp.Diff(want, calls); d != "" {
			t.Error(d)
		}
		if after := r.fake.Get(key("a", "x")); after != before {
			t.Errorf("a/x was touched: %v, was %v", after, before)
		}
		s := r.Status()
		if !s.Healthy || s.Generation != 2 || s.Digest != "sha256:test" || len(s.Apps) != 2 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestPullsEverythingBeforeTouchingAnything(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.must(t, state(app("a", ctr("x"))), 1)
		r.fake.Forget()
		r.fake.FailPull("img-z", errors.New("not in the registry"))
		err := r.ApplyRaw(t.Context(), state(app("b", ctr("y"), ctr("z"))), 2)
		var bad *apply.Unhealthy
		if err == nil || errors.As(err, &bad) || !strings.Contains(err.Error(), `app "b": pull img-z: not in the registry`) {
			t.Errorf("apply says %v", err)
		}
		if calls := r.fake.Calls(); !slices.Equal(calls, []string{"pull img-y"}) {
			t.Errorf("did %v", calls)
		}
		if s := r.Status(); s.Generation != 1 || !s.Healthy {
			t.Errorf("status %+v", s)
		}
	})
}

func TestProbeAndPolicyChangesRestartNothing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.must(t, state(app("a", ctr("x"))), 1)
		before := r.fake.Get(key("a", "x"))
		r.must(t, state(app("a", ctr("x", probed, restart("on-failure")))), 2)
		if after := r.fake.Get(key("a", "x")); after != before {
			t.Errorf("was touched: %v, was %v", after, before)
		}
	})
}

func TestNewerStateInTheMiddle(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := app("a", ctr("db", fails("exit")), ctr("web"))
		a.Ordered = 1
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := r.ApplyRaw(ctx, state(a), 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("apply says %v", err)
		}
		a.Containers[0] = ctr("db") // web is the same, and was waiting for the old db
		r.must(t, state(a), 2)
		if s := r.Status(); !s.Healthy {
			t.Errorf("status %+v", s)
		}
	})
}

func TestStuckRemovalDoesNotHoldUpOthers(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.must(t, state(app("a", ctr("x"))), 1)
		r.fake.FailStop(key("a", "x"), errors.New("device busy"))
		r.must(t, state(app("b", ctr("y"))), 2)
		if i := r.fake.Get(key("a", "x")); i.State != apply.Running {
			t.Fatalf("is %v", i)
		}
		r.fake.FailStop(key("a", "x"), nil)
		time.Sleep(5 * time.Second)
		if i := r.fake.Get(key("a", "x")); i.State != apply.Absent {
			t.Errorf("is %v", i)
		}
	})
}

func TestEmptyStateRemovesEverything(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.must(t, state(app("a", ctr("x"), ctr("y"))), 1)
		r.must(t, state(), 2)
		time.Sleep(3 * time.Second)
		if list, _ := r.fake.Observe(t.Context()); len(list) > 0 {
			t.Errorf("left %v", list)
		}
	})
}
