package apply_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"selvedge/edge/apply"
	"selvedge/schema/nodestate"
)

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

// What runs again tells how it ended before.
func TestLastExit(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		k := key("a", "x")
		last := func(code int, reason string) {
			t.Helper()
			time.Sleep(10 * time.Second)
			c := r.container("a", "x")
			if c.State != apply.Running || c.ExitCode != 0 || c.LastExit.Code != code || !strings.HasPrefix(c.LastExit.Reason, reason) || reason == "" && c.LastExit.Reason != "" {
				t.Errorf("status %+v", c)
			}
			if age := time.Since(c.LastExit.At); age < 5*time.Second || age > 30*time.Second {
				t.Errorf("%v ago: %+v", age, c.LastExit)
			}
		}
		r.must(t, state(app("a", ctr("x"))), 1)
		if c := r.container("a", "x"); c.LastExit != (apply.Exit{}) {
			t.Errorf("at first: %+v", c)
		}
		r.fake.Exit(k, 3)
		last(3, "")
		if err := r.Restart(t.Context(), "a", "x"); err != nil {
			t.Fatal(err)
		}
		last(0, "somebody asked")
		r.fake.Exit(k, 137)
		last(137, "")
		r.fake.Damage(k, "its network was taken away")
		last(0, "its network was taken away")
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
		{"its network damaged", func(r *rig) { r.fake.Damage(k, "its rules were removed") }, func(r *rig, was apply.Instance) bool {
			now := r.fake.Get(k)
			return now.Fault == "" && now.ID == was.ID && now.Since.After(was.Since)
		}},
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
