package edge_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"selvedge/edge"
	"selvedge/edge/apply"
	"selvedge/schema/nodestate"
)

func TestUpdates(t *testing.T) {
	b := newBed(t)
	b.start()
	b.until("the answer that there is no state", func() bool { return strings.Contains(b.status().Link.Error, "not found") })
	b.publish(1, app("a", "1"), app("b", "1"))
	b.good(1)
	b.rt.Forget()
	b.publish(2, app("a", "1"), app("b", "2"))
	b.good(2)
	if !b.runs("a", "1") || !b.runs("b", "2") {
		t.Error("not what generation 2 says")
	}
	if slices.Contains(b.rt.Calls(), "remove a/main") {
		t.Error("an app that did not change was touched")
	}
	if s := b.status(); !s.Well() || s.Update.Phase != edge.Idle || s.Link.Error != "" {
		t.Errorf("status %+v", s)
	}
	b.publish(3) // drained
	b.good(3)
	b.until("the containers to go", func() bool { return !b.runs("a", "1") && !b.runs("b", "2") })
}

func TestGoesBackAsAWhole(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1", file("one")), app("b", "1"))
	b.good(1)
	b.publish(2, app("a", "2", file("two")), app("b", "2", failing))
	b.rejected(2)
	b.until("all of generation 1 to run", func() bool { return b.runs("a", "1") && b.runs("b", "1") && slices.Contains(b.content(), "one") })
	s := b.status()
	if s.Well() || s.Update.Phase != edge.RolledBack || !strings.Contains(s.Update.Error, "exited with code 3") || !strings.Contains(s.Update.Error, "no such database") {
		t.Errorf("update %+v", s.Update)
	}
	b.stays("generation 2 is not tried again", func() bool { return b.runs("a", "1") })
	b.restart()
	b.until("generation 1 to run after a restart", func() bool { s := b.status(); return s.Running && s.Apply.Healthy && b.runs("b", "1") })
	b.stays("nor after a restart, and it is no alarm", func() bool { return b.runs("a", "1") && b.status().Refused == nil })
	b.publish(3, app("a", "3", file("three")), app("b", "3"))
	b.good(3)
	if got := b.content(); !slices.Contains(got, "three") || slices.Contains(got, "two") {
		t.Errorf("config files %q", got)
	}
}

func TestReleaseTriesAgain(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1"))
	b.good(1)
	k := apply.Key{App: "a", Container: "main"}
	b.rt.FailStart(k, errors.New("the port is taken"))
	b.publish(2, app("a", "2", func(a *nodestate.App) { a.DeadlineMS = 300 }))
	b.rejected(2)
	b.rt.FailStart(k, nil)
	b.until("generation 1 to run", func() bool { return b.runs("a", "1") })
	b.release()
	b.good(2)
	if s := b.status(); !s.Well() || len(s.Store.Rejected) != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestFirstStateHasNothingToGoBackTo(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1", failing), app("b", "1"))
	b.until("the first state's trouble to be told", func() bool { return strings.Contains(b.status().Update.Error, "not healthy") })
	if s := b.status(); len(s.Store.Rejected) != 0 || s.Store.Current == nil || !b.runs("b", "1") {
		t.Errorf("status %+v", s)
	}
	b.restart()
	b.until("it to run on after a restart", func() bool { return b.status().Running && b.runs("b", "1") })
	b.publish(2, app("a", "2"), app("b", "1"))
	b.good(2)
}

func TestFirstStateGetsHealthyLate(t *testing.T) {
	b := newBed(t)
	k := apply.Key{App: "a", Container: "main"}
	b.rt.ExecCode(k, 1)
	b.start()
	b.publish(1, app("a", "1", func(a *nodestate.App) { a.DeadlineMS = 200 }))
	b.until("its trouble to be told", func() bool { return strings.Contains(b.status().Update.Error, "not healthy") })
	b.rt.ExecCode(k, 0)
	b.good(1)
	if s := b.status(); s.Update.Phase != edge.Idle || s.Update.Error != "" {
		t.Errorf("update %+v", s.Update)
	}
}

func TestNewerTakesOver(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1"))
	b.good(1)
	b.publish(2, app("a", "2", hopeless))
	b.until("generation 2 to be on its way", func() bool { return b.status().Store.Current.Generation == 2 })
	b.publish(3, app("a", "3"))
	b.good(3)
	if s := b.status(); len(s.Store.Rejected) != 0 {
		t.Errorf("rejected %+v: nobody knows whether it would have failed", s.Store.Rejected)
	}
}

// What cannot be fetched must not keep a failed state in place.
func TestUnfetchableDoesNotShieldUnhealthy(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1"))
	b.good(1)
	b.rt.FailPull(image("3"), errors.New("no such image"))
	b.publish(2, app("a", "2", failing, func(a *nodestate.App) { a.DeadlineMS = 1000 }))
	b.until("generation 2 to be on its way", func() bool { return b.status().Store.Current.Generation == 2 })
	b.publish(3, app("a", "3"))
	b.rejected(2)
	b.until("generation 1 to run", func() bool { return b.runs("a", "1") })
	b.until("generation 3's trouble to be told", func() bool {
		u := b.status().Update
		return u.Generation == 3 && u.Phase == edge.Prefetch && strings.Contains(u.Error, "nothing was changed") && strings.Contains(u.Error, "no such image")
	})
	b.rt.FailPull(image("3"), nil)
	b.good(3)
}

func TestNewerEndsAPrefetch(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1"))
	b.good(1)
	b.rt.FailPull(image("2"), errors.New("no such image"))
	b.publish(2, app("a", "2"))
	b.until("generation 2 to be stuck", func() bool { return strings.Contains(b.status().Update.Error, "no such image") })
	b.publish(3, app("a", "3"))
	b.good(3)
}

func TestBrokenBeforeIsNotTheUpdatesFault(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1"), app("b", "1"))
	b.good(1)
	b.rt.ExecCode(apply.Key{App: "b", Container: "main"}, 1) // its database is gone, say
	b.rt.SlowStart(50 * 1e6)
	b.publish(2, app("a", "2", hopeless), app("b", "1"))
	b.until("generation 2 to be on its way", func() bool { return b.status().Store.Current.Generation == 2 })
	b.halt() // in the middle of it
	b.publish(3, app("a", "3", func(a *nodestate.App) { a.DeadlineMS = 2000 }), app("b", "1", func(a *nodestate.App) { a.DeadlineMS = 60000 }))
	b.start()
	b.good(3)
}

func TestHold(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1"))
	b.good(1)
	b.hold("the auditor is here")
	b.publish(2, app("a", "2"))
	b.until("the hold to be told", func() bool { u := b.status().Update; return u.Phase == edge.OnHold && u.Generation == 2 })
	b.publish(3, app("a", "3"))
	b.until("the newest to wait", func() bool { s := b.status(); return s.Store.Pending != nil && s.Store.Pending.Generation == 3 })
	b.stays("held", func() bool { return b.runs("a", "1") })
	if s := b.status(); s.Well() || s.Store.Hold == nil || s.Store.Hold.Reason != "the auditor is here" {
		t.Errorf("status %+v", s)
	}
	b.rt.Exit(apply.Key{App: "a", Container: "main"}, 1)
	b.until("what died under a hold to be restarted", func() bool { return b.runs("a", "1") })
	b.restart()
	b.until("the agent", func() bool { return b.status().Running })
	b.stays("held over a restart", func() bool { return b.runs("a", "1") })
	b.release()
	b.good(3)
	if slices.Contains(b.rt.Calls(), "pull "+image("2")) {
		t.Error("a state in between was begun")
	}
}

func TestHoldWhileFetching(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1"))
	b.good(1)
	b.rt.FailPull(image("2"), errors.New("no such image"))
	b.publish(2, app("a", "2"))
	b.until("generation 2 to be stuck", func() bool { return strings.Contains(b.status().Update.Error, "no such image") })
	b.hold("stop that")
	b.rt.FailPull(image("2"), nil)
	b.until("the hold to be told", func() bool { return b.status().Update.Phase == edge.OnHold })
	b.stays("held", func() bool { return b.runs("a", "1") })
	b.release()
	b.good(2)
}

// A hold begins nothing new; what is on its way still ends as it must.
func TestHoldLetsAnUpdateEnd(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1"))
	b.good(1)
	b.publish(2, app("a", "2", failing, func(a *nodestate.App) { a.DeadlineMS = 1500 }))
	b.until("generation 2 to be on its way", func() bool { return b.status().Store.Current.Generation == 2 })
	b.hold("too late")
	b.publish(3, app("a", "3"))
	b.rejected(2)
	b.until("generation 1 to run", func() bool { return b.runs("a", "1") })
	b.stays("held", func() bool { return b.runs("a", "1") })
	b.release()
	b.good(3)
}

func TestWithdrawnKeepsRunning(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1"))
	b.good(1)
	if err := b.store.Remove(t.Context(), []string{"gw-1"}); err != nil {
		t.Fatal(err)
	}
	b.until("it to be told", func() bool { return strings.Contains(b.status().Link.Error, "not found") })
	b.stays("running", func() bool { return b.runs("a", "1") && b.status().Refused == nil })
	b.publish(2, app("a", "2"))
	b.good(2)
	if s := b.status(); s.Link.Error != "" {
		t.Errorf("link %+v", s.Link)
	}
}

func TestRegistryComesAndGoes(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1"))
	b.good(1)
	for n, f := range []http.HandlerFunc{away, status(503), status(401), status(500), status(418)} {
		b.with(f)
		b.until("it to be told", func() bool { return b.status().Link.Error != "" })
		if s := b.status(); s.Refused != nil || !b.runs("a", string('1'+rune(n))) {
			t.Errorf("status %+v", s)
		}
		b.publish(int64(n+2), app("a", string('2'+rune(n))))
		b.with(nil)
		b.wake() // delays have grown
		b.good(int64(n + 2))
	}
}

// A registry that ignores conditions and waits for nothing must not keep a node busy.
func TestBusyRegistryIsAskedSeldom(t *testing.T) {
	b := newBed(t)
	b.cfg.Interval = 3600e9
	real := b.store.Handler()
	b.with(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("If-None-Match")
		r.Header.Del("Prefer")
		w.Header().Set("Preference-Applied", "wait=30")
		real.ServeHTTP(w, r)
	})
	b.publish(1, app("a", "1"))
	b.start()
	b.good(1)
	b.stays("asked seldom", func() bool { return b.asked.Load() <= 5 })
}

func TestPlainRegistry(t *testing.T) {
	b := newBed(t)
	real := b.store.Handler()
	b.with(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Prefer")
		if strings.HasSuffix(r.URL.Path, "/signed") { // only copied: state and signature
			w.WriteHeader(http.StatusNotFound)
			return
		}
		real.ServeHTTP(w, r)
	})
	b.publish(1, app("a", "1"))
	b.start()
	b.good(1)
	b.publish(2, app("a", "2"))
	b.good(2)
}
