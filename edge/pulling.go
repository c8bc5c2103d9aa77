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
	"selvedge/schema/wire"
)

// errTrust marks published root documents that prove nothing: an alarm.
var errTrust = errors.New("published root documents are refused")

// pulling asks for newer states until the context ends.
func (a *Agent) pulling(ctx context.Context) error {
	p := poller{a: a, retry: backoff.Backoff{Min: time.Second, Max: 5 * time.Minute}}
	for {
		round, stop := context.WithCancel(ctx)
		a.mu.Lock()
		a.sooner = stop // from here on: what is asked for now is looked at in the next round
		a.mu.Unlock()
		pause := p.round(round)
		p.rest(round, pause)
		stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// poller is what pulling remembers from round to round.
type poller struct {
	a         *Agent
	retry     backoff.Backoff
	validator string    // "" shows the newest state anew
	nextTrust time.Time // zero: now
	eager     int       // answers in a row that came at once

	told    time.Time     // when the last round began that news brought about
	spacing time.Duration // to the next such round
	brought bool          // the last round brought a state
}

// Between rounds that news bring about: a hub that tells of nothing again and again must not keep
// a node busy.
const (
	minSpacing = time.Second
	maxSpacing = time.Minute
)

// rest waits for the next round, or for news.
func (p *poller) rest(round context.Context, pause time.Duration) {
	over := time.NewTimer(pause)
	defer over.Stop()
	gate := time.NewTimer(p.spacing - time.Since(p.told))
	defer gate.Stop()
	var news chan struct{}
	for {
		select {
		case <-round.Done():
			return
		case <-over.C:
			return
		case <-gate.C:
			news = p.a.news
		case <-news:
			p.spacing = min(max(2*p.spacing, minSpacing), maxSpacing)
			if p.brought || time.Since(p.told) > maxSpacing {
				p.spacing = minSpacing
			}
			p.told, p.brought = time.Now(), false
			return
		}
	}
}

// interval is between rounds when requests are not held.
func (a *Agent) interval() time.Duration {
	if a.live() {
		return a.cfg.Fallback
	}
	return a.cfg.Interval
}

// maxEager is how many answers may come at once before the interval is kept: a registry that
// knows no conditions, or means ill, must not keep a node busy.
const maxEager = 3

// round asks once and returns how long to wait before the next time.
func (p *poller) round(ctx context.Context) time.Duration {
	a := p.a
	if granted, err := a.store.TakeRetry(); err != nil {
		a.cfg.Log.Error("retry by hand", "error", err)
	} else if granted {
		p.validator = ""
	}
	if a.trustDue.Swap(false) || !time.Now().Before(p.nextTrust) {
		p.trust(ctx)
	}
	if r := a.behind(); r != nil && ctx.Err() == nil {
		a.alarm(r)
		p.nextTrust = time.Time{}
		return p.retry.Next()
	}
	began := time.Now()
	res, err := a.pull.State(ctx, p.validator)
	if ctx.Err() != nil {
		return 0 // asked to look again, or to end
	}
	a.counts.pulls.Add(1)
	if err != nil {
		return p.failed(err)
	}
	p.retry.Reset()
	p.validator = res.Validator
	a.contact(nil)
	if res.NotModified {
		p.eager = 0
		if res.Waited {
			return 0 // the next request is held, too
		}
		return backoff.Jitter(a.interval())
	}
	if !a.consider(ctx, res) {
		p.validator = "" // it is to be had again
		return p.retry.Next()
	}
	p.brought = true
	if p.eager++; time.Since(began) > time.Second {
		p.eager = 1
	}
	if p.eager > maxEager {
		return backoff.Jitter(a.interval())
	}
	return 0 // the next request is held, or says that nothing changed
}

// failed notes that there was no state.
func (p *poller) failed(err error) time.Duration {
	if errors.Is(err, pull.ErrNotFound) { // an answer all the same
		p.retry.Reset()
		p.validator = ""
		p.a.contact(err)
		return backoff.Jitter(p.a.cfg.Interval)
	}
	p.a.counts.pullErrors.Add(1)
	p.a.lost(err)
	pause := p.retry.Next()
	var e *pull.Error
	if errors.As(err, &e) {
		pause = max(pause, e.RetryAfter)
	}
	return pause
}

// trust looks for newer root documents, before states: a state of a signer that was revoked
// meanwhile must find the newest root.
func (p *poller) trust(ctx context.Context) {
	a := p.a
	changed, err := a.refreshTrust(ctx)
	if changed {
		p.validator = "" // what was refused for its signer may be good now, and the other way round
	}
	again := a.cfg.Trust
	switch {
	case ctx.Err() != nil:
		return
	case errors.Is(err, errTrust), errors.Is(err, pull.ErrMalformed):
		a.alarm(&Refusal{Reason: reasonTrust, Message: err.Error()})
	case err == nil:
		a.calm(reasonTrust)
	default: // no answer, or none of use: asking for the state says so
		again = min(again, a.cfg.Interval)
	}
	p.nextTrust = time.Now().Add(backoff.Jitter(again))
}

// consider judges an answer and keeps the state if it is good. It returns false if that
// cannot be told, or kept, so that the answer is wanted again.
func (a *Agent) consider(ctx context.Context, res pull.Result) bool {
	s, err := a.judge(res)
	if unknownSigner(err) { // look for the root document that lists it, and judge again
		if changed, e := a.refreshTrust(ctx); e != nil {
			a.cfg.Log.Warn("root documents", "error", e)
		} else if changed {
			s, err = a.judge(res)
		}
	}
	if err != nil {
		a.refuse(err)
		return true
	}
	return a.accept(s)
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

// accept keeps a verified state and has it begun. It returns false if it could not be kept.
func (a *Agent) accept(s verify.State) bool {
	a.slots.Lock()
	cur, _ := a.store.Current()
	var err error
	if cur.Digest() != s.Digest() {
		err = a.store.SetPending(s)
	}
	a.slots.Unlock()
	a.changed() // it may grant less than the one that runs
	if err != nil {
		a.alarm(&Refusal{Reason: reasonStore, Message: err.Error(), Generation: s.Generation(), Digest: s.Digest()})
		return false
	}
	a.alarm(nil)
	if cur.Digest() != s.Digest() {
		a.cfg.Log.Info("new state", "generation", s.Generation(), "commit", s.Commit(), "digest", s.Digest())
		a.event(wire.Event{Severity: "info", Reason: "NewState", Generation: s.Generation(), Message: fmt.Sprintf("a new state was verified, commit %.12s", s.Commit())})
		a.newer()
	}
	return true
}

// refuse notes a state that was not accepted. One that failed here before is no news: it
// stands among the rejected.
func (a *Agent) refuse(err error) {
	r := &Refusal{Reason: "verify", Message: err.Error()}
	var e *verify.Error
	if errors.As(err, &e) {
		r.Reason, r.Generation, r.Digest = string(e.Reason), e.Generation, e.Digest
	}
	if r.Reason == string(verify.Rejected) {
		r = nil
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
		return false, fmt.Errorf("%w: %w", errTrust, err)
	}
	a.mu.Lock()
	before := a.root
	a.mu.Unlock()
	if reached := a.store.Status().TrustVersion; newest.Version() < reached {
		return false, fmt.Errorf("%w: they end with version %d, and this node was at %d", errTrust, newest.Version(), reached)
	} else if newest.Version() > reached {
		if err := a.store.SaveRoot(docs); err != nil { // as when the disk is full: a revoked key is not trusted for that
			a.cfg.Log.Error("keep root documents; they count until the agent ends", "error", err)
		}
	}
	if newest.Version() <= before.Version() {
		return false, nil
	}
	a.mu.Lock()
	a.root = newest
	a.mu.Unlock()
	a.cfg.Log.Info("trust changed", "version", newest.Version(), "before", before.Version())
	a.event(wire.Event{Severity: "info", Reason: "TrustChanged", Message: fmt.Sprintf("root documents up to version %d, %d before", newest.Version(), before.Version())})
	return true, nil
}

// behind says that this node knew newer root documents than it has: nothing may be judged by
// those it has left, since a key that they list may be revoked.
func (a *Agent) behind() *Refusal {
	a.mu.Lock()
	have := a.root.Version()
	a.mu.Unlock()
	reached := a.store.Status().TrustVersion
	if have >= reached {
		return nil
	}
	return &Refusal{Reason: reasonTrust, Message: fmt.Sprintf(
		"root documents up to version %d were lost, %d is left; no state is accepted until the registry gives them again", reached, have)}
}
