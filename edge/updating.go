package edge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"selvedge/edge/apply"
	"selvedge/edge/verify"
	"selvedge/internal/backoff"
	"selvedge/schema/wire"
)

// maxTrials is how often a state may be begun before it is good: one that takes the
// machine down with it would otherwise do so for ever.
const maxTrials = 3

// Phase is what an update is doing.
type Phase string

// The phases of an update.
const (
	Idle       Phase = "idle"
	OnHold     Phase = "held"       // a person keeps the node where it is
	Prefetch   Phase = "prefetch"   // pulling images; nothing is touched yet
	Applying   Phase = "applying"   // containers change, probes are awaited
	RolledBack Phase = "rolledback" // the newest state failed; the last good one runs
)

// Update is where the node stands between two states.
type Update struct {
	Phase      Phase     `json:"phase"`
	Generation int64     `json:"generation,omitempty"`
	Error      string    `json:"error,omitempty"` // why it does not get on, or was refused
	Since      time.Time `json:"since,omitzero"`
}

// boot starts what the store holds, before any network is asked.
func (a *Agent) boot(ctx context.Context) {
	cur, ok := a.store.Current()
	if !ok || a.store.Good() {
		a.start(ctx, cur)
		return
	}
	// It was on its way when the agent ended; updating takes it up again. Its images are
	// local already, or it would not be current.
	n, err := a.store.Trial()
	if err != nil {
		a.cfg.Log.Error("count a start of a state that is not good yet", "error", err)
	}
	good, hasGood := a.store.LastGood()
	if n > maxTrials && hasGood {
		a.reject(cur, fmt.Errorf("it was begun %d times and never got healthy before the agent or the machine ended; 'selvedge-edge release' tries it again", n-1))
		a.start(ctx, good)
		return
	}
	a.measure(good)
}

func (a *Agent) start(ctx context.Context, s verify.State) {
	if s.IsZero() {
		return
	}
	if err := a.apply.Start(ctx, s); err != nil {
		a.cfg.Log.Error("start from disk", "generation", s.Generation(), "error", err)
		return
	}
	a.cfg.Log.Info("started from disk", "generation", s.Generation(), "digest", s.Digest())
	a.changed() // it may grant less than the one before
}

// measure has the state on its way judged by what it changes against the last good one:
// what was broken before it is not its fault.
func (a *Agent) measure(good verify.State) {
	if err := a.apply.Accept(good); err != nil {
		a.cfg.Log.Error("compare with the last good state", "generation", good.Generation(), "error", err)
	}
}

// updating begins states, one at a time, until the context ends. A state that is on its way
// goes on until the images of a newer one are there: one whose images cannot be had keeps nobody
// from getting healthy, or from going back.
func (a *Agent) updating(ctx context.Context) error {
	var current trying
	defer current.end()
	retry := backoff.Backoff{Min: time.Second, Max: time.Minute}
	tried := ""
	for {
		// a hold is a file that another process may write: look at it now and then
		pause := 2 * time.Second
		if s, ok := a.store.Pending(); ok {
			if s.Digest() != tried {
				tried = s.Digest()
				retry.Reset()
			}
			if h, held := a.store.Held(); held {
				a.note(&a.next, Update{Phase: OnHold, Generation: s.Generation(), Error: h.Reason})
			} else if a.prefetch(ctx, s) {
				if a.activate(s) {
					current.end()
					current = a.try(ctx, s)
				} else {
					pause = retry.Next()
				}
			} else if p, _ := a.store.Pending(); p.Digest() == s.Digest() {
				pause = retry.Next()
			} else {
				pause = 0 // a newer one came in between
			}
		} else {
			a.note(&a.next, Update{})
		}
		if cur, ok := a.store.Current(); ok && !a.store.Good() && current.over() {
			current = a.try(ctx, cur)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.wake:
		case <-time.After(pause):
		}
	}
}

// prefetch makes the images of a pending state local, and reports whether they are. A newer
// state ends it.
func (a *Agent) prefetch(ctx context.Context, s verify.State) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.mu.Lock()
	a.abandon = cancel
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.abandon = nil
		a.mu.Unlock()
	}()
	if p, _ := a.store.Pending(); p.Digest() != s.Digest() {
		return false // before there was something to abandon
	}
	a.note(&a.next, Update{Phase: Prefetch, Generation: s.Generation()})
	err := a.apply.Prefetch(ctx, s)
	if err != nil && ctx.Err() == nil {
		a.stuck(&a.next, Update{Phase: Prefetch, Generation: s.Generation(), Error: "nothing was changed: " + err.Error()})
	}
	return err == nil && ctx.Err() == nil
}

// activate makes a pending state current, unless a newer one or a hold came in between.
func (a *Agent) activate(s verify.State) bool {
	a.slots.Lock()
	defer a.slots.Unlock()
	if p, _ := a.store.Pending(); p.Digest() != s.Digest() {
		return false
	}
	if _, held := a.store.Held(); held {
		return false
	}
	if err := a.store.Activate(); err != nil { // as when the disk is full
		a.stuck(&a.next, Update{Phase: Prefetch, Generation: s.Generation(), Error: "nothing was changed: " + err.Error()})
		return false
	}
	if _, err := a.store.Trial(); err != nil {
		a.cfg.Log.Error("count the start of a state", "error", err)
	}
	a.note(&a.next, Update{})
	a.changed() // it may grant less than the one before
	return true
}

// trying is a state on its way to be good, as a child of updating. The zero value is over.
type trying struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func (a *Agent) try(ctx context.Context, s verify.State) trying {
	inner, cancel := context.WithCancel(ctx)
	t := trying{cancel, make(chan struct{})}
	go func() {
		defer close(t.done)
		defer cancel()
		a.settle(inner, ctx, s)
		a.look()
	}()
	return t
}

// end waits for its child.
func (t trying) end() {
	if t.done != nil {
		t.cancel()
		<-t.done
	}
}

func (t trying) over() bool {
	if t.done == nil {
		return true
	}
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

// settle makes the node run the current state until it is good, or has failed, or a newer
// one takes over and ctx ends. What must not be left half done goes by the agent's context.
func (a *Agent) settle(ctx, agent context.Context, s verify.State) {
	retry := backoff.Backoff{Min: time.Second, Max: 30 * time.Second}
	instead := false
	for {
		a.note(&a.now, Update{Phase: Applying, Generation: s.Generation()})
		err := a.apply.Apply(ctx, s)
		var bad *apply.Unhealthy
		switch {
		case err == nil:
			before, _ := a.store.LastGood()
			if err = a.commit(s); err == nil {
				a.prune(ctx, before)
				return
			}
		case ctx.Err() != nil:
			return
		case errors.As(err, &bad):
			if a.goBack(agent, s, err) {
				return
			}
			// there is nothing to go back to: keep it, and keep watching
		case !instead && a.apply.Status().Digest == "" && !errors.Is(err, apply.ErrUnavailable):
			instead = true
			a.meanwhile(agent, s)
		}
		a.stuck(&a.now, Update{Phase: Applying, Generation: s.Generation(), Error: err.Error()})
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry.Next()):
		}
	}
}

// meanwhile runs what can be run while a state cannot go on that was on its way when the
// agent ended, as one whose image is gone while the network is.
func (a *Agent) meanwhile(ctx context.Context, s verify.State) {
	good, ok := a.store.LastGood()
	if ok {
		a.start(ctx, good)
		return
	}
	a.start(ctx, s)
	a.measure(good) // it was never good
}

// commit makes the current state last-good, if it is still this one.
func (a *Agent) commit(s verify.State) error {
	a.slots.Lock()
	defer a.slots.Unlock()
	if cur, _ := a.store.Current(); cur.Digest() != s.Digest() {
		return nil
	}
	if err := a.store.Commit(); err != nil {
		return err
	}
	a.cfg.Log.Info("state is healthy", "generation", s.Generation(), "digest", s.Digest())
	a.event(wire.Event{Severity: "info", Reason: "Applied", Generation: s.Generation(), Message: fmt.Sprintf("everything is healthy, commit %.12s", s.Commit())})
	a.note(&a.now, Update{Phase: Idle})
	return nil
}

// prune removes the images that no state needs which may run here. Those of the state that was
// good before stay too: a change that people take back needs no network then.
func (a *Agent) prune(ctx context.Context, before verify.State) {
	err := a.apply.Prune(ctx, func() []verify.State {
		a.slots.Lock()
		defer a.slots.Unlock()
		cur, _ := a.store.Current()
		good, _ := a.store.LastGood()
		next, _ := a.store.Pending()
		return []verify.State{before, cur, good, next}
	})
	if err != nil && ctx.Err() == nil {
		a.cfg.Log.Warn("images that are not needed stay; the next good state tries again", "error", err)
	}
}

// goBack rejects the current state for the last good one, if there is one. If a newer state
// is current by now, that one goes on instead.
func (a *Agent) goBack(ctx context.Context, s verify.State, why error) bool {
	a.slots.Lock()
	defer a.slots.Unlock()
	if cur, _ := a.store.Current(); cur.Digest() != s.Digest() {
		return true
	}
	good, ok := a.store.LastGood()
	if !ok || good.Digest() == s.Digest() {
		return false
	}
	a.reject(s, why)
	a.start(ctx, good)
	return true
}

// reject refuses a state for good and says so.
func (a *Agent) reject(s verify.State, why error) {
	a.counts.rollbacks.Add(1)
	a.cfg.Log.Error("state failed; going back to the last good one", "generation", s.Generation(), "digest", s.Digest(), "error", why)
	a.event(wire.Event{Severity: "error", Reason: "RolledBack", Generation: s.Generation(), Message: why.Error()})
	if err := a.store.Reject(s.Digest(), why.Error()); err != nil {
		a.cfg.Log.Error("remember the failed state", "error", err)
	}
	a.note(&a.now, Update{Phase: RolledBack, Generation: s.Generation(), Error: why.Error()})
}

// newer ends the prefetch on its way, if there is one, and has the newest state begun.
func (a *Agent) newer() {
	a.mu.Lock()
	if a.abandon != nil {
		a.abandon()
	}
	a.mu.Unlock()
	a.look()
}

func (a *Agent) note(u *Update, to Update) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if u.Phase != to.Phase || u.Generation != to.Generation {
		to.Since = time.Now()
	} else {
		to.Since = u.Since
	}
	if to.Error == "" && u.Phase == to.Phase && u.Generation == to.Generation {
		to.Error = u.Error // the last try's, until this one says something else
	}
	*u = to
}

// stuck notes an update that does not get on, and logs each reason once.
func (a *Agent) stuck(u *Update, to Update) {
	a.mu.Lock()
	same := u.Error == to.Error && u.Generation == to.Generation
	a.mu.Unlock()
	a.note(u, to)
	if !same {
		a.event(wire.Event{Severity: "warning", Reason: "UpdateStuck", Generation: to.Generation, Message: to.Error})
		a.cfg.Log.Warn("update does not get on; trying again", "phase", to.Phase, "generation", to.Generation, "error", to.Error)
	}
}
