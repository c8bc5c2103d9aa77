package apply_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

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
	a := apply.New(apply.Config{Runtime: f, FilesDir: dir, Log: slog.New(slog.DiscardHandler)})
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
	return &rig{a, f, dir, stop}
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

func TestCrashLoopBacksOffAndCancelsNothingElse(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		if err := r.StartRaw(t.Context(), state(app("loop", ctr("x", fails("crash-after=10ms"))), app("b", ctr("y"))), 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second) // images are missing at first: pulled
		before := r.fake.Get(key("b", "y"))
		r.fake.Forget()
		time.Sleep(time.Hour)
		n := len(r.fake.Calls())
		if n < 10 || n > 30 { // every 2½ to 5 min
			t.Errorf("%d starts in the hour", n)
		}
		if after := r.fake.Get(key("b", "y")); after != before || !r.container("b", "y").Healthy {
			t.Errorf("the neighbour is %v, was %v", after, before)
		}
		if c := r.container("loop", "x"); c.Healthy || c.Restarts < 10 || c.Problem == "" {
			t.Errorf("status %+v", c)
		}
	})
}

func TestRestartPolicies(t *testing.T) {
	for _, c := range []struct {
		policy string
		code   int
		back   bool
	}{{"always", 0, true}, {"always", 1, true}, {"on-failure", 0, false}, {"on-failure", 1, true}, {"never", 0, false}, {"never", 1, false}} {
		t.Run(fmt.Sprintf("%s %d", c.policy, c.code), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.must(t, state(app("a", ctr("x", restart(c.policy)))), 1)
				r.fake.Exit(key("a", "x"), c.code)
				time.Sleep(time.Second)
				s := r.container("a", "x")
				if (r.fake.Get(key("a", "x")).State == apply.Running) != c.back || c.back && s.Restarts != 1 {
					t.Errorf("status %+v", s)
				}
				if !c.back && s.Healthy != (c.code == 0) {
					t.Errorf("healthy %v", s.Healthy)
				}
				if !c.back && s.ExitCode != c.code {
					t.Errorf("exit code %d", s.ExitCode)
				}
			})
		})
	}
}

func TestDriftIsPutBackWithin5s(t *testing.T) {
	k := key("a", "x")
	for _, c := range []struct {
		name string
		do   func(r *rig)
		ok   func(r *rig, was apply.Instance) bool
	}{
		{"killed", func(r *rig) { r.fake.Exit(k, 137) }, nil},
		{"stopped", func(r *rig) { r.fake.Exit(k, 0) }, nil},
		{"paused", func(r *rig) { r.fake.Pause(k) }, func(r *rig, was apply.Instance) bool { return r.fake.Get(k) == was }},
		{"deleted", func(r *rig) { r.fake.Delete(k) }, nil},
		{"rebooted", func(r *rig) { r.fake.Reboot() }, nil},
		{"config files deleted", func(r *rig) { os.RemoveAll(r.dir) }, func(r *rig, was apply.Instance) bool { return r.fake.Get(k).ID != was.ID }},
		{"config file changed", func(r *rig) {
			list, _ := filepath.Glob(r.dir + "/*/0")
			os.WriteFile(list[0], []byte("tampered"), 0o644)
		}, func(r *rig, was apply.Instance) bool { return r.fake.Get(k).ID != was.ID }},
		{"two of them", func(r *rig) {
			i := r.fake.Get(k)
			i.State = apply.Exited
			r.fake.Plant(i)
		}, nil},
		{"a foreign version", func(r *rig) {
			r.fake.Plant(apply.Instance{App: "a", Container: "old", Hash: "?", State: apply.Running})
		},
			func(r *rig, _ apply.Instance) bool { return r.fake.Get(key("a", "old")).State == apply.Absent }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				x := ctr("x")
				x.Files = []nodestate.File{{Path: "/etc/app.conf", Content: "a = 1\n"}, {Path: "/etc/b", Content: ""}}
				r.must(t, state(app("a", x)), 1)
				was := r.fake.Get(k)
				c.do(r)
				time.Sleep(5 * time.Second)
				if i := r.fake.Get(k); i.State != apply.Running || !r.Status().Healthy {
					t.Errorf("after 5 s it is %v, %+v", i, r.Status())
				}
				if c.ok != nil && !c.ok(r, was) {
					t.Errorf("was %v, is %v", was, r.fake.Get(k))
				}
				list, _ := filepath.Glob(r.dir + "/*/0")
				if len(list) != 1 {
					t.Fatalf("files %v", list)
				}
				if b, _ := os.ReadFile(list[0]); string(b) != "a = 1\n" {
					t.Errorf("config file reads %q", b)
				}
			})
		})
	}
}

func TestStableRunForgives(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		k := key("a", "x")
		r.must(t, state(app("a", ctr("x"))), 1)
		for range 6 { // the delay grows to half a minute
			r.fake.Exit(k, 1)
			time.Sleep(40 * time.Second)
		}
		r.fake.Exit(k, 1)
		time.Sleep(5 * time.Second)
		if r.fake.Get(k).State == apply.Running {
			t.Error("no delay after seven crashes")
		}
		time.Sleep(10 * time.Minute)
		r.fake.Exit(k, 1)
		time.Sleep(time.Second)
		if r.fake.Get(k).State != apply.Running {
			t.Error("a stable run did not forgive")
		}
	})
}

func TestProbeFailuresRestart(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var sick atomic.Bool
		r.Answer(func(context.Context, apply.Instance, *nodestate.Probe) error {
			if sick.Load() {
				return errors.New("stuck")
			}
			return nil
		})
		begun := time.Now()
		r.must(t, state(app("a", ctr("x", probed))), 1)
		if d := time.Since(begun); d > time.Second {
			t.Errorf("the first probe took %s", d)
		}
		was := r.fake.Get(key("a", "x"))
		r.fake.Forget()
		sick.Store(true)
		time.Sleep(9 * time.Second) // two failures: not enough
		if calls := r.fake.Calls(); len(calls) > 0 {
			t.Errorf("did %v too early", calls)
		}
		time.Sleep(7 * time.Second)
		sick.Store(false)
		time.Sleep(2 * time.Second)
		if calls := r.fake.Calls(); !slices.Equal(calls, []string{"stop a/x", "start a/x"}) {
			t.Errorf("did %v", calls)
		}
		if i := r.fake.Get(key("a", "x")); i.ID != was.ID || !r.container("a", "x").Healthy || r.container("a", "x").Restarts != 1 {
			t.Errorf("is %v, %+v", i, r.container("a", "x"))
		}
	})
}

func TestSlowStartIsNotKilled(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var n atomic.Int64
		r.Answer(func(_ context.Context, i apply.Instance, _ *nodestate.Probe) error {
			n.Add(1)
			if time.Since(i.Since) < 50*time.Second {
				return errors.New("not yet")
			}
			return nil
		})
		r.must(t, state(app("a", ctr("x", probed))), 1) // its deadline is 60 s
		if c := r.container("a", "x"); c.Restarts != 0 || !c.Healthy {
			t.Errorf("status %+v", c)
		}
		if n.Load() > 40 {
			t.Errorf("%d probes", n.Load())
		}
	})
}

func TestPausedWhileProbeHangs(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		k := key("a", "x")
		r.Answer(func(ctx context.Context, i apply.Instance, _ *nodestate.Probe) error {
			if r.fake.Get(k).State == apply.Paused {
				<-ctx.Done()
			}
			return ctx.Err()
		})
		x := ctr("x", probed)
		x.Probe.TimeoutMS = 3_600_000
		r.must(t, state(app("a", x)), 1)
		r.fake.Pause(k)
		time.Sleep(5 * time.Second)
		if i := r.fake.Get(k); i.State != apply.Running {
			t.Errorf("is %v", i)
		}
	})
}

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

func TestNothingIsTouchedBeforeAState(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.fake.Plant(apply.Instance{App: "a", Container: "x", Hash: "h", State: apply.Running})
		time.Sleep(time.Minute)
		if i := r.fake.Get(key("a", "x")); i.State != apply.Running {
			t.Errorf("is %v", i)
		}
	})
}
