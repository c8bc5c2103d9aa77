package apply_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"selvedge/edge/apply"
)

func TestRestartByRequest(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.must(t, state(app("a", ctr("x"), ctr("y")), app("b", ctr("z"))), 1)
		r.fake.Forget()
		was := r.container("a", "x")
		if err := r.Restart(t.Context(), "a", ""); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.fake.Calls(), ", "); got != "stop a/x, start a/x, stop a/y, start a/y" {
			t.Errorf("did %s", got)
		}
		time.Sleep(5 * time.Second)
		for range 5 { // no patience is lost by it
			if err := r.Restart(t.Context(), "a", "x"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(5 * time.Second)
		now := r.container("a", "x")
		if now.ID != was.ID || now.Restarts != 0 || now.Asked != 6 || !now.Healthy || !r.Status().Healthy {
			t.Errorf("%+v", now)
		}
		for _, c := range []struct{ app, container, want string }{
			{"none", "", `app "none": not on this node; it runs: a, b`},
			{"a", "none", `app "a": container "none": not on this node; the app has: x, y`},
			{"", "", `app ""`},
		} {
			if err := r.Restart(t.Context(), c.app, c.container); !errors.Is(err, apply.ErrUnknown) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q/%q: %v", c.app, c.container, err)
			}
		}
	})
}

func TestRestartOfWhatHasEnded(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.must(t, state(app("a", ctr("job", restart("never")), ctr("crashes", restart("on-failure")))), 1)
		r.fake.Exit(key("a", "job"), 0)
		r.fake.Exit(key("a", "crashes"), 1)
		time.Sleep(100 * time.Millisecond)
		r.fake.Exit(key("a", "crashes"), 1) // waits now before its next start
		time.Sleep(10 * time.Millisecond)
		r.fake.Forget()
		begun := time.Now()
		if err := r.Restart(t.Context(), "a", ""); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.fake.Calls(), ", "); got != "start a/job, start a/crashes" || time.Since(begun) > 50*time.Millisecond {
			t.Errorf("did %s in %s", got, time.Since(begun))
		}
		time.Sleep(3 * time.Second)
		if s := r.Status(); !s.Healthy || r.container("a", "crashes").Restarts != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestRestartThatFails(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.must(t, state(app("a", ctr("x"))), 1)
		sick := errors.New("device busy")
		r.fake.FailStop(key("a", "x"), sick)
		if err := r.Restart(t.Context(), "a", "x"); !errors.Is(err, sick) || !strings.Contains(err.Error(), "restart a/x") {
			t.Errorf("%v", err)
		}
		r.fake.FailStop(key("a", "x"), nil)
		r.fake.FailStart(key("a", "x"), sick)
		if err := r.Restart(t.Context(), "a", "x"); !errors.Is(err, sick) {
			t.Errorf("%v", err)
		}
		r.fake.FailStart(key("a", "x"), nil)
		time.Sleep(10 * time.Second) // it is brought up all the same
		if s := r.Status(); !s.Healthy {
			t.Errorf("%+v", s)
		}
	})
}

func TestOneRestartAtATime(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.must(t, state(app("a", ctr("x"))), 1)
		r.fake.SlowStart(time.Second)
		first := make(chan error, 1)
		go func() { first <- r.Restart(t.Context(), "a", "x") }()
		synctest.Wait()
		if err := r.Restart(t.Context(), "a", "x"); !errors.Is(err, apply.ErrBusy) {
			t.Errorf("meanwhile: %v", err)
		}
		if err := <-first; err != nil {
			t.Error(err)
		}
		// who gives up leaves no trace
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := r.Restart(ctx, "a", "x"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		time.Sleep(2 * time.Second)
		if err := r.Restart(t.Context(), "a", "x"); err != nil {
			t.Error(err)
		}
	})
}

func TestRestartOfWhatIsReplaced(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.must(t, state(app("a", ctr("x"))), 1)
		r.fake.SlowStart(time.Minute)
		asked := make(chan error, 1)
		go func() { asked <- r.Restart(t.Context(), "a", "x") }()
		synctest.Wait()
		r.stop() // the agent ends in the middle
		if err := <-asked; err != nil && !strings.Contains(err.Error(), "restart a/x") {
			t.Error(err)
		}
	})
}

func TestRestartOfWhatWaits(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := app("a", ctr("db", fails("exit")), ctr("web"))
		a.Ordered = 1
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_ = r.ApplyRaw(ctx, state(a), 1) // runs into the timeout
		if err := r.Restart(t.Context(), "a", "web"); !errors.Is(err, apply.ErrNotRunning) || !strings.Contains(err.Error(), `waits for container "db"`) {
			t.Errorf("%v", err)
		}
	})
}

func TestFind(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		find := func(app, container string, previous bool) string {
			list, err := r.Find(t.Context(), app, container, previous)
			if err != nil {
				if !errors.Is(err, apply.ErrUnknown) {
					t.Errorf("%s/%s: %v", app, container, err)
				}
				return "unknown"
			}
			var out []string
			for _, i := range list {
				out = append(out, i.ID+" "+i.Key().String()+" "+string(i.State))
			}
			return strings.Join(out, ", ")
		}
		if got := find("a", "", false); got != "unknown" {
			t.Errorf("before any state: %s", got)
		}
		r.must(t, state(app("a", ctr("x"), ctr("y"))), 1)
		id := func(name string) string { return r.container("a", name).ID }
		oldX := id("x")
		for _, c := range []struct {
			app, container string
			previous       bool
			want           string
		}{
			{"a", "", false, id("x") + " a/x running, " + id("y") + " a/y running"},
			{"a", "y", false, id("y") + " a/y running"},
			{"a", "z", false, "unknown"},
			{"b", "", false, "unknown"},
			{"a", "x", true, "unknown"},
		} {
			if got := find(c.app, c.container, c.previous); got != c.want {
				t.Errorf("%+v: %s", c, got)
			}
		}
		changed := ctr("x")
		changed.Env = map[string]string{"NEW": "1"}
		r.must(t, state(app("a", changed)), 2)
		time.Sleep(3 * time.Second)
		if got := find("a", "x", true); got != oldX+" a/x exited" {
			t.Errorf("before x: %s", got)
		}
		if got := find("a", "x", false); got != id("x")+" a/x running" {
			t.Errorf("x: %s", got)
		}
		if got := find("a", "y", false); !strings.HasSuffix(got, " a/y exited") {
			t.Errorf("y, which is gone: %s", got)
		}
		r.must(t, state(), 3)
		time.Sleep(3 * time.Second)
		if got := find("a", "", false); strings.Count(got, "exited") != 2 || strings.Contains(got, oldX) {
			t.Errorf("the app, which is gone: %s", got)
		}
	})
}
