package edge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"selvedge/edge/apply"
	"selvedge/edge/verify"
	"selvedge/internal/backoff"
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
		a.cfg.Log.Error("count a start of a state that is not good yet", "err", err)
	}
	good, hasGood := a.store.LastGood()
	if n > maxTrials && hasGood {
		a.reject(cur, fmt.Errorf("it was begun %d times and never got healthy before the agent or the machine ended", n-1))
		a.start(ctx, good)
	}
}

func (a *Agent) start(ctx context.Context, s verify.State) {
	if s.IsZero() {
		return
	}
	if err := a.apply.Start(ctx, s); err != nil {
		a.cfg.Log.Error("start from disk", "generation", s.Generation(), "err", err)
		return
	}
	a.cfg.Log.Info("started from disk", "generation", s.Generation(), "digest", s.Digest())
}

// updating begins states, one at a time, until the context ends.
func (a *Agent) updating(ctx context.Context) error {
	if cur, ok := a.store.Current(); ok && !a.store.Good() {
		a.finish(ctx, cur)
	}
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
				a.note(Update{Phase: OnHold, Generation: s.Generation(), Error: h.Reason})
			} else if !a.begin(ctx, s) {
				pause = retry.Next()
			} else {
				continue
			}
		} else if cur, ok := a.store.Current(); ok && !a.store.Good() && a.idle() {
			a.finish(ctx, cur) // nothing to go back to: wait for its health once more
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.wake:
		case <-time.After(pause):
		}
	}
}

// begin makes a pending state current, unless its images cannot be had.
func (a *Agent) begin(ctx context.Context, s verify.State) bool {
	ctx, done := a.interruptible(ctx)
	defer done()
	a.note(Update{Phase: Prefetch, Generation: s.Generation()})
	if err := a.apply.Prefetch(ctx, s); err != nil {
		if ctx.Err() == nil {
			a.stuck(Update{Phase: Prefetch, Generation: s.Generation(), Error: "nothing was changed: " + err.Error()})
		}
		return ctx.Err() != nil
	}
	if err := a.store.Activate(); err != nil { // as when the disk is full
		a.stuck(Update{Phase: Prefetch, Generation: s.Generation(), Error: "nothing was changed: " + err.Error()})
		return false
	}
	if _, err := a.store.Trial(); err != nil {
		a.cfg.Log.Error("count the start of a state", "err", err)
	}
	a.settle(ctx, s)
	return true
}

// finish takes up the current state, which is not good yet.
func (a *Agent) finish(ctx context.Context, s verify.State) {
	ctx, done := a.interruptible(ctx)
	defer done()
	a.settle(ctx, s)
}

// settle makes the node run the current state until it is good, or has failed, or a newer
// one is there.
func (a *Agent) settle(ctx context.Context, s verify.State) {
	retry := backoff.Backoff{Min: time.Second, Max: 30 * time.Second}
	for {
		a.note(Update{Phase: Applying, Generation: s.Generation()})
		err := a.apply.Apply(ctx, s)
		var bad *apply.Unhealthy
		switch {
		case err == nil:
			if err = a.store.Commit(); err == nil {
				a.cfg.Log.Info("state is healthy", "generation", s.Generation(), "digest", s.Digest())
				a.note(Update{Phase: Idle})
				return
			}
		case ctx.Err() != nil:
			return
		case errors.As(err, &bad):
			if good, ok := a.store.LastGood(); ok && good.Digest() != s.Digest() {
				a.reject(s, err)
				a.start(ctx, good)
				return
			}
			// there is nothing to go back to: keep it, and keep watching
		}
		a.stuck(Update{Phase: Applying, Generation: s.Generation(), Error: err.Error()})
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry.Next()):
		}
	}
}

// reject refuses a state for good and says so.
func (a *Agent) reject(s verify.State, why error) {
	a.cfg.Log.Error("state failed; going back to the last good one", "generation", s.Generation(), "digest", s.Digest(), "err", why)
	if err := a.store.Reject(s.Digest(), why.Error()); err != nil {
		a.cfg.Log.Error("remember the failed state", "err", err)
	}
	a.note(Update{Phase: RolledBack, Generation: s.Generation(), Error: why.Error()})
}

// interruptible is a context that ends when a newer state is there.
func (a *Agent) interruptible(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	a.mu.Lock()
	a.abandon = cancel
	a.mu.Unlock()
	return ctx, func() {
		a.mu.Lock()
		a.abandon = nil
		a.mu.Unlock()
		cancel()
	}
}

// newer ends the update on its way, if there is one, and has the newest begun.
func (a *Agent) newer() {
	a.mu.Lock()
	if _, held := a.store.Held(); a.abandon != nil && !held {
		a.abandon()
	}
	a.mu.Unlock()
	a.look()
}

func (a *Agent) idle() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.abandon == nil
}

func (a *Agent) note(u Update) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.update.Phase != u.Phase || a.update.Generation != u.Generation {
		u.Since = time.Now()
	} else {
		u.Since = a.update.Since
	}
	if u.Error == "" && a.update.Phase == u.Phase && a.update.Generation == u.Generation {
		u.Error = a.update.Error // the last try's, until this one says something else
	}
	a.update = u
}

// stuck notes an update that does not get on, and logs each reason once.
func (a *Agent) stuck(u Update) {
	a.mu.Lock()
	same := a.update.Error == u.Error && a.update.Generation == u.Generation
	a.mu.Unlock()
	a.note(u)
	if !same {
		a.cfg.Log.Warn("update does not get on; trying again", "phase", u.Phase, "generation", u.Generation, "err", u.Error)
	}
}
