package apply_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"selvedge/edge/apply"
	"selvedge/edge/apply/runtimetest"
	"selvedge/schema/nodestate"
)

func TestOrder(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var ready sync.Map
		begun := time.Now()
		r.Answer(func(_ context.Context, i apply.Instance, _ *nodestate.Probe) error {
			if time.Since(i.Since) < 3*time.Second {
				return errors.New("not yet")
			}
			ready.LoadOrStore(i.Container, time.Since(begun))
			return nil
		})
		a := app("a", ctr("db", probed), ctr("mid", probed), ctr("web", probed), ctr("job", probed))
		a.Ordered = 2
		r.must(t, state(a), 1)
		at := func(n string) time.Duration {
			v, _ := ready.Load(n)
			d, _ := v.(time.Duration)
			return d
		}
		if at("mid")-at("db") < 3*time.Second || at("web")-at("mid") < 3*time.Second || (at("web")-at("job")).Abs() > time.Second {
			t.Errorf("healthy at db %s mid %s web %s job %s", at("db"), at("mid"), at("web"), at("job"))
		}
		var starts []string
		for _, c := range r.fake.Calls() {
			if n, ok := strings.CutPrefix(c, "start "); ok {
				starts = append(starts, n)
			}
		}
		if starts[0] != "a/db" || starts[1] != "a/mid" || len(starts) != 4 {
			t.Errorf("started %v", starts)
		}
	})
}

func TestUnhealthyByTheDeadline(t *testing.T) {
	for _, c := range []struct {
		name, want string
		c          nodestate.Container
		answer     error
		within     time.Duration
	}{
		{"exits", "exited with code 3", ctr("x", fails("exit")), nil, 61 * time.Second},
		{"crashes later", "exited with code 2", ctr("x", fails("crash-after=500ms")), nil, 61 * time.Second},
		{"does not answer", "does not answer yet: 503", ctr("x", probed), errors.New("503"), 61 * time.Second},
		{"ends and may not start again", "restart policy is never", ctr("x", fails("exit"), restart("never")), nil, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.Answer(func(context.Context, apply.Instance, *nodestate.Probe) error { return c.answer })
				begun := time.Now()
				err := r.ApplyRaw(t.Context(), state(app("good", ctr("g")), app("bad", c.c)), 5)
				var bad *apply.Unhealthy
				if !errors.As(err, &bad) {
					t.Fatalf("apply says %v", err)
				}
				if len(bad.Reasons) != 1 || bad.Reasons[0].App != "bad" || bad.Reasons[0].Container != "x" || bad.Generation != 5 || !strings.Contains(err.Error(), c.want) {
					t.Errorf("reasons %+v", bad)
				}
				if c.c.Env["FAIL"] == "exit" && !slices.Contains(bad.Reasons[0].Log, "told to fail: no such database") {
					t.Errorf("log %q", bad.Reasons[0].Log)
				}
				if d := time.Since(begun); d > c.within {
					t.Errorf("said so after %s", d)
				}
				// as a whole back to what was good
				r.Answer(func(context.Context, apply.Instance, *nodestate.Probe) error { return nil })
				r.must(t, state(app("good", ctr("g"))), 4)
				if i := r.fake.Get(key("bad", "x")); i.State != apply.Absent {
					t.Errorf("the bad one is %v", i)
				}
			})
		})
	}
}

func TestSickNeighbourIsNotJudged(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.must(t, state(app("flaky", ctr("x", fails("crash-after=1h"))), app("b", ctr("y"))), 1)
		r.fake.FailStart(key("flaky", "x"), errors.New("broken since"))
		r.fake.Exit(key("flaky", "x"), 1)
		synctest.Wait()
		other := ctr("y")
		other.Args = []string{"new"}
		r.must(t, state(app("flaky", ctr("x", fails("crash-after=1h"))), app("b", other)), 2)
		if c := r.container("flaky", "x"); c.Healthy || !strings.Contains(c.Problem, "broken since") {
			t.Errorf("status %+v", c)
		}
	})
}

// jumped is a runtime whose containers seem to have started long ago: the clock was set forward
// meanwhile, as by the first time server that a node meets.
type jumped struct{ *runtimetest.Fake }

func (j jumped) Observe(ctx context.Context) ([]apply.Instance, error) {
	list, err := j.Fake.Observe(ctx)
	for n := range list {
		list[n].Since = list[n].Since.Add(-time.Hour)
	}
	return list, err
}

func (j jumped) Start(ctx context.Context, s apply.Spec) (apply.Instance, error) {
	i, err := j.Fake.Start(ctx, s)
	i.Since = i.Since.Add(-time.Hour)
	return i, err
}

func TestAClockThatJumpsEndsNoGrace(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := newRigOn(t, jumped{runtimetest.NewFake()}, dir)
		defer r.stop()
		begun := time.Now()
		r.Answer(func(context.Context, apply.Instance, *nodestate.Probe) error {
			if time.Since(begun) < 40*time.Second {
				return errors.New("still starting")
			}
			return nil
		})
		r.must(t, state(app("a", ctr("x", probed))), 1)
		if c := r.container("a", "x"); c.Restarts != 0 || !c.Healthy {
			t.Errorf("status %+v", c)
		}
	})
}

func TestRetryOfAnInterruptedApplyStillJudges(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		bad := state(app("a", ctr("x", fails("exit"))))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_ = r.ApplyRaw(ctx, bad, 1)
		var unhealthy *apply.Unhealthy
		if err := r.ApplyRaw(t.Context(), bad, 1); !errors.As(err, &unhealthy) {
			t.Errorf("apply says %v", err)
		}
	})
}
