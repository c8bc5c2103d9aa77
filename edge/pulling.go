package edge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"selvedge/edge/pull"
	"selvedge/edge/verify"
	"selvedge/internal/backoff"
	"selvedge/schema/trust"
)

// pulling asks for newer states until the context ends.
func (a *Agent) pulling(ctx context.Context) error {
	retry := backoff.Backoff{Min: time.Second, Max: 5 * time.Minute}
	validator := ""         // "" shows the newest state anew
	var nextTrust time.Time // now
	for {
		if granted, err := a.store.TakeRetry(); err != nil {
			a.cfg.Log.Error("retry by hand", "err", err)
		} else if granted {
			validator = ""
		}
		if !time.Now().Before(nextTrust) {
			changed, err := a.refreshTrust(ctx)
			if changed {
				validator = "" // what was refused for its signer may be good now
			}
			switch {
			case err == nil:
				nextTrust = time.Now().Add(backoff.Jitter(a.cfg.Trust))
			case ctx.Err() == nil && !errors.Is(err, pull.ErrUnreachable):
				a.alarm(&Refusal{Reason: "trust", Message: err.Error()})
			}
		}
		polling, stop := context.WithCancel(ctx)
		a.mu.Lock()
		a.sooner = stop
		a.mu.Unlock()
		var pause time.Duration
		pause, validator = a.poll(polling, validator, &retry)
		select {
		case <-polling.Done():
		case <-time.After(pause):
		}
		stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// poll asks once and returns how long to wait before the next time, and its validator.
func (a *Agent) poll(ctx context.Context, validator string, retry *backoff.Backoff) (time.Duration, string) {
	res, err := a.pull.State(ctx, validator)
	if err != nil {
		pause := retry.Next()
		var e *pull.Error
		if errors.As(err, &e) {
			pause = max(pause, e.RetryAfter)
			if errors.Is(err, pull.ErrNotFound) { // an answer all the same
				a.contact(err)
				return backoff.Jitter(a.cfg.Interval), ""
			}
		}
		if ctx.Err() == nil {
			a.lost(err)
		}
		return pause, validator
	}
	retry.Reset()
	a.contact(nil)
	pause := backoff.Jitter(a.cfg.Interval)
	if res.Waited || !res.NotModified {
		pause = 0 // the next request is held, or says that nothing changed
	}
	if res.NotModified {
		return pause, res.Validator
	}
	s, err := a.judge(res)
	if unknownSigner(err) { // look for the root document that lists it, and judge again
		if changed, e := a.refreshTrust(ctx); e != nil {
			a.cfg.Log.Warn("root documents", "err", e)
		} else if changed {
			s, err = a.judge(res)
		}
	}
	if err != nil {
		a.refuse(err)
	} else {
		a.accept(s)
	}
	return pause, res.Validator
}

// judge returns the first of an answer's states that verifies.
func (a *Agent) judge(res pull.Result) (verify.State, error) {
	v, floor := a.verifier(), a.store.Floor()
	s, err := v.Verify(res.Signed, floor, a.store.Rejected)
	for _, more := range res.More {
		if err == nil {
			break
		}
		if other, e := v.Verify(more, floor, a.store.Rejected); e == nil {
			s, err = other, nil
		}
	}
	return s, err
}

func unknownSigner(err error) bool {
	var e *verify.Error
	return errors.As(err, &e) && e.Reason == verify.WrongKey
}

// accept keeps a verified state and has it begun.
func (a *Agent) accept(s verify.State) {
	a.alarm(nil)
	if cur, ok := a.store.Current(); ok && cur.Digest() == s.Digest() {
		return
	}
	if err := a.store.SetPending(s); err != nil {
		a.alarm(&Refusal{Reason: "store", Message: err.Error(), Generation: s.Generation()})
		return
	}
	a.cfg.Log.Info("new state", "generation", s.Generation(), "commit", s.Commit(), "digest", s.Digest())
	a.newer()
}

// refuse notes a state that was not accepted. A state that failed here before is no news.
func (a *Agent) refuse(err error) {
	r := &Refusal{Reason: "verify", Message: err.Error()}
	var e *verify.Error
	if errors.As(err, &e) {
		r.Reason, r.Generation, r.Digest = string(e.Reason), e.Generation, e.Digest
	}
	a.alarm(r)
}

// refreshTrust walks the published root documents and reports whether trust changed.
func (a *Agent) refreshTrust(ctx context.Context) (bool, error) {
	docs, err := a.pull.Trust(ctx)
	if err != nil {
		return false, err
	}
	newest, err := trust.Walk(a.first, docs)
	if err != nil {
		return false, fmt.Errorf("published root documents are refused: %w", err)
	}
	a.mu.Lock()
	before := a.root
	a.mu.Unlock()
	if newest.Version() <= before.Version() {
		return false, nil // older ones prove nothing
	}
	if err := a.store.SaveRoot(docs); err != nil {
		return false, err
	}
	a.mu.Lock()
	a.root = newest
	a.mu.Unlock()
	a.cfg.Log.Info("trust changed", "version", newest.Version(), "before", before.Version())
	return true, nil
}
