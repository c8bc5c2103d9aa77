package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"selvedge/schema/nodestate"
)

// logLines are the last lines of a failed container that a report quotes.
const logLines = 10

// await waits until every app that this target changes is healthy, or one is not
// by its deadline. Apps that are as they were in the last good state are not
// judged: going back to it would not mend them.
func (a *Applier) await(ctx context.Context, t *target) error {
	select {
	case <-t.taken:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-t.clean: // stopping the old ones has its own bounds
	case <-ctx.Done():
		return ctx.Err()
	}
	begun := time.Now()
	judged := a.judged(t)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		left, bad := progress(t, judged, time.Since(begun))
		switch {
		case len(bad) > 0:
			if err := a.runtimeDown(); err != nil {
				return fmt.Errorf("apply generation %d: %w", t.generation, err)
			}
			return a.unhealthy(ctx, t, bad)
		case left == 0:
			return nil
		}
		timer.Reset(left)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.progress:
		case <-timer.C:
		}
	}
}

// runtimeDown says that the runtime is away: no fault of any state.
func (a *Applier) runtimeDown() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down == nil || errors.Is(a.down, ErrUnavailable) {
		return a.down
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, a.down)
}

// judged returns the apps of the target of which anything differs from the last good state.
func (a *Applier) judged(t *target) []nodestate.App {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []nodestate.App
	last := ""
	for app, s := range t.each() {
		if a.accepted[s.Key()] != fingerprint(s, grace(app)) && app.Name != last {
			last = app.Name
			out = append(out, app)
		}
	}
	return out
}

// progress returns how long to wait at most for the apps that are not healthy yet,
// zero if all are, and the containers of those whose time is over.
func progress(t *target, apps []nodestate.App, spent time.Duration) (left time.Duration, bad []*unit) {
	for _, app := range apps {
		var waiting []*unit
		hopeless := false
		for _, c := range app.Containers {
			u := t.units[Key{app.Name, c.Name}]
			u.mu.Lock()
			h := u.health
			u.mu.Unlock()
			if h != healthy {
				waiting = append(waiting, u)
			}
			hopeless = hopeless || h == broken
		}
		if len(waiting) == 0 {
			continue
		}
		rest := grace(app) - spent
		if hopeless || rest <= 0 {
			bad = append(bad, waiting...)
			continue
		}
		if left == 0 || rest < left {
			left = rest
		}
	}
	return left, bad
}

func (a *Applier) unhealthy(ctx context.Context, t *target, bad []*unit) error {
	e := &Unhealthy{Generation: t.generation}
	for _, u := range bad {
		u.mu.Lock()
		i, problem := u.inst, u.problem
		u.mu.Unlock()
		if problem == "" {
			problem = "did not become healthy in time"
		}
		r := Reason{App: u.spec.App, Container: u.spec.Container.Name, Problem: problem}
		if tail, ok := a.rt.(Tailer); ok && i.ID != "" {
			lines, err := tail.Tail(ctx, i.ID, logLines)
			if err != nil {
				a.log.Debug("no log for the report", "container", u.spec.Key().String(), "error", err)
			}
			r.Log = lines
		}
		e.Reasons = append(e.Reasons, r)
	}
	return e
}
