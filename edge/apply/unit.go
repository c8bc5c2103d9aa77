package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"selvedge/internal/backoff"
	"selvedge/schema/nodestate"
)

// startBound ends a start that hangs. A start that has begun is not cut off by a
// newer state or the agent's end, so that nothing half-made stays behind.
const startBound = time.Minute

// unit supervises one wanted container: it alone starts, probes and restarts it.
type unit struct {
	spec  Spec
	grace time.Duration // how long a start may take before a failing probe restarts it
	gate  []gate        // to pass once, before the first start
	a     *Applier
	log   *slog.Logger

	wake   chan struct{} // capacity 1
	ready  chan struct{} // closed when healthy for the first time
	once   sync.Once
	cancel context.CancelFunc // set by who starts run
	done   chan struct{}      // closed when run returned
	asks   chan *ask          // capacity 1
	asking atomic.Bool        // an ask has no answer yet
	asked  *ask               // the one being done; run alone uses it

	mu       sync.Mutex
	inst     Instance
	known    bool  // inst was observed at least once
	acting   bool  // observations are stale while we change it
	acted    int64 // and so are all looks up to this one
	health   health
	ran      bool
	restarts int
	byAsk    int // restarts that somebody asked for
	problem  string
	past     bool // the gates
	exit     Exit // the last
}

type gate struct {
	open <-chan struct{}
	what string
}

type health int

const (
	pending   health = iota // starting, or waiting to
	healthy                 // runs and answers, or finished well
	unhealthy               // ran and does no more; being restarted
	broken                  // ended badly and stays so
)

func newUnit(a *Applier, s Spec, grace time.Duration) *unit {
	return &unit{spec: s, grace: grace, a: a, log: a.log.With("app", s.App, "container", s.Container.Name),
		wake: make(chan struct{}, 1), ready: make(chan struct{}), done: make(chan struct{}), asks: make(chan *ask, 1)}
}

// fingerprint is everything that makes two units of one key the same.
func fingerprint(s Spec, grace time.Duration) string {
	b, err := json.Marshal([]any{s.Hash, s.Container.Probe, s.Container.Restart, grace})
	if err != nil {
		panic(err) // plain values only
	}
	return string(b)
}

// offer hands over what a look saw; looks are counted when they begin.
func (u *unit) offer(i Instance, look int64) {
	u.mu.Lock()
	fresh := !u.acting && look > u.acted
	if fresh {
		u.noteEnd(i)
		u.inst, u.known = i, true
	}
	u.mu.Unlock()
	if fresh {
		u.poke()
	}
}

func (u *unit) poke() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

func (u *unit) seen() (Instance, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.inst, u.known
}

// set notes the health and tells whoever waits for it.
func (u *unit) set(h health, problem string) {
	u.mu.Lock()
	changed := u.health != h || u.problem != problem
	u.health, u.problem = h, problem
	u.mu.Unlock()
	if h == healthy {
		u.once.Do(func() { close(u.ready) })
	}
	if !changed {
		return
	}
	switch {
	case h == healthy:
		u.log.Info("container is healthy")
	case h == pending:
		u.log.Debug("container is not healthy yet", "problem", problem)
	default:
		u.log.Warn("container is not healthy", "problem", problem)
	}
	u.a.progressed()
}

// act runs a change of the container; observations from before its end are void.
func (u *unit) act(f func() (Instance, error)) error {
	u.mu.Lock()
	u.acting = true
	u.mu.Unlock()
	i, err := f()
	u.mu.Lock()
	u.acting, u.acted = false, u.a.looks.Load()
	if err == nil {
		u.inst, u.known = i, true
	}
	u.mu.Unlock()
	u.a.look() // what happened since was overlooked
	return err
}

// pace says when to start again after an end: at once the first time, then with
// growing delays, until a stable run forgives.
type pace struct {
	off  backoff.Backoff
	used bool
}

func (p *pace) next() time.Duration {
	if !p.used {
		p.used = true
		return 0
	}
	return p.off.Next()
}

func (p *pace) forgive() {
	p.off.Reset()
	p.used = false
}

// soon is how quickly a second end after a start counts as the container's own
// fault, whoever ended it.
const soon = 5 * time.Second

// run supervises until the context ends; the container stays as it is.
func (u *unit) run(ctx context.Context) {
	defer close(u.done)
	var (
		pace    pace
		due     time.Time // when to start; zero: not decided
		started time.Time // the last time
		since   time.Time // when that was by the runtime's clock
		ended   ending    // by us
	)
	for ctx.Err() == nil {
		inst, known := u.seen()
		if !known {
			u.sleep(ctx, -1)
			continue
		}
		v := judge(u.spec.Container.Restart, inst.State, inst.ExitCode)
		if (ended != byItself || u.asked != nil) && v != watchIt {
			v = bringUp // whatever its policy
		}
		switch v {
		case finished:
			due = time.Time{}
			u.set(healthy, "")
			u.sleep(ctx, -1)
		case failed:
			due = time.Time{}
			u.set(broken, howEnded(inst)+"; its restart policy is never: mend the app and publish a new state")
			u.sleep(ctx, -1)
		case watchIt:
			due = time.Time{}
			begun := started
			if !inst.Since.Equal(since) {
				begun = time.Time{} // somebody else started it
			}
			ended = u.watch(ctx, inst, begun, &pace)
		case bringUp:
			if !u.pass(ctx) {
				return
			}
			if inst, known = u.seen(); known && inst.State == Running {
				continue // while it waited
			}
			if due.IsZero() && u.asked == nil {
				due = time.Now()
				// what others did to it is put back at once; its own ends cost patience
				if inst.State == Exited && ended == byItself || ended == forProbe || time.Since(started) < soon {
					due = due.Add(pace.next())
				}
				if inst.State == Exited && ended == byItself {
					u.set(u.down(), fmt.Sprintf("%s; starts again in %s", howEnded(inst), time.Until(due).Round(100*time.Millisecond)))
				}
			}
			if wait := time.Until(due); wait > 0 && u.asked == nil {
				u.sleep(ctx, wait)
				continue
			}
			err := u.start(ctx, inst)
			due = time.Time{}
			u.answer(err)
			switch {
			case ctx.Err() != nil:
				return
			case errors.Is(err, ErrUnavailable):
				u.set(u.down(), err.Error())
				u.sleep(ctx, -1) // until it is seen again
			case err != nil:
				u.set(u.down(), err.Error())
				due = time.Now().Add(pace.next())
			default:
				made, _ := u.seen()
				started, since = time.Now(), made.Since
			}
		}
	}
}

// ending is why a running container is not watched any more.
type ending int

const (
	byItself ending = iota // or by somebody else
	forProbe               // stopped by us: it did not answer
	forDrift               // stopped by us: its config files were changed, or its network
	forAsk                 // stopped by us: somebody asked for it
)

// down is the health of a container that does not run: pending until it was healthy once.
func (u *unit) down() health {
	select {
	case <-u.ready:
		return unhealthy
	default:
		return pending
	}
}

func howEnded(i Instance) string {
	if i.State == Lost {
		return "ended when the node went down"
	}
	return fmt.Sprintf("exited with code %d", i.ExitCode)
}

// sleep waits for a change, or that long if it is not negative.
func (u *unit) sleep(ctx context.Context, d time.Duration) {
	var c <-chan time.Time
	if d >= 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		c = t.C
	}
	select {
	case <-ctx.Done():
	case <-u.wake:
	case u.asked = <-u.asks:
	case <-c:
	}
}

// pass waits for the gates; each is passed once.
func (u *unit) pass(ctx context.Context) bool {
	for len(u.gate) > 0 {
		select {
		case <-u.gate[0].open:
		default:
			u.set(pending, "waits for "+u.gate[0].what)
			u.answer(fmt.Errorf("%w: it %s", ErrNotRunning, "waits for "+u.gate[0].what))
			select {
			case <-u.gate[0].open:
			case u.asked = <-u.asks:
				continue
			case <-ctx.Done():
				return false
			}
		}
		u.gate = u.gate[1:]
	}
	u.mu.Lock()
	u.past = true
	u.mu.Unlock()
	return ctx.Err() == nil
}

// start brings the container up, with its files and, if it has gone, its image.
func (u *unit) start(ctx context.Context, was Instance) error {
	select {
	case u.a.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	release := sync.OnceFunc(func() { <-u.a.slots })
	defer release()
	if _, err := u.a.files.ensure(u.spec.Container.Files); err != nil {
		return err
	}
	begun := time.Now()
	up := func() (Instance, error) {
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), startBound)
		defer cancel()
		return u.a.rt.Start(bound, u.spec)
	}
	err := u.act(up)
	if errors.Is(err, ErrImageMissing) {
		release() // a pull may take long, and others can start
		u.set(u.down(), "its image has gone from this node and is being pulled again")
		u.a.images.RLock()
		err = u.a.pull(ctx, u.spec.Container.Image)
		u.a.images.RUnlock()
		if err == nil {
			err = u.act(up)
		}
	}
	if err != nil {
		return err
	}
	u.mu.Lock()
	switch {
	case u.asked != nil:
		u.byAsk++
	case u.ran && was.State != Paused:
		u.restarts++
	}
	n := u.restarts
	u.mu.Unlock()
	u.log.Info("container started", "from", was.State, "restarts", n, "took", time.Since(begun).Round(time.Millisecond))
	return nil
}

// watch looks after a running container until it is no longer what it was. When we started it is
// known, if we did: the clock, which may be set meanwhile, is no measure then.
func (u *unit) watch(ctx context.Context, inst Instance, started time.Time, pace *pace) ending {
	u.mu.Lock()
	u.ran, u.past = true, true
	u.mu.Unlock()
	u.gate = nil // it is past them, wherever it was started
	if u.asked != nil {
		return u.stopAsked(ctx, inst)
	}
	w := &watchState{started: started, probe: u.spec.Container.Probe}
	if started.IsZero() { // only the clock tells
		w.started = time.Now()
		if age := time.Since(inst.Since); !inst.Since.IsZero() && age > 0 {
			w.started = w.started.Add(-age)
		}
	}
	settled := newTimer(u.a.settle - time.Since(w.started))
	defer settled.Stop()
	stable := newTimer(u.a.stable)
	defer stable.Stop()
	next := newTimer(0)
	defer next.Stop()
	files := newTimer(u.a.drift)
	defer files.Stop()
	if w.probe != nil {
		settled.Stop()
	} else {
		next.Stop()
	}

	pctx, cancel := context.WithCancel(ctx)
	answer := make(chan error, 1)
	asking, settling := false, false
	defer func() {
		cancel()
		if asking {
			<-answer
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return byItself
		case <-u.wake:
			if now, _ := u.seen(); now.ID != inst.ID || now.State != Running || !now.Since.Equal(inst.Since) {
				return byItself
			} else if now.Fault != "" {
				if u.spec.Container.Restart == "never" {
					u.set(unhealthy, now.Fault)
					continue
				}
				u.restart(ctx, inst, now.Fault, true)
				return forDrift
			}
			if settling { // looked at since
				settling = false
				u.set(healthy, "")
			}
		case u.asked = <-u.asks:
			return u.stopAsked(ctx, inst)
		case <-settled.C:
			settling = true // one more look: the event of its end may have been lost
			u.a.look()
		case <-stable.C:
			pace.forgive()
		case <-files.C:
			files.Reset(u.a.drift)
			written, err := u.a.files.ensure(u.spec.Container.Files)
			if err != nil {
				u.log.Warn("config files cannot be checked", "error", err)
			}
			if written {
				u.restart(ctx, inst, "its config files were changed on this node and are put back", false)
				return forDrift
			}
		case <-next.C:
			asking = true
			go func() { answer <- u.a.probe(pctx, inst, w.probe) }()
		case err := <-answer:
			asking = false
			if errors.Is(err, ErrUnavailable) { // says nothing about the container
				next.Reset(interval(w.probe))
				continue
			}
			next.Reset(w.answered(err))
			switch {
			case err == nil:
				u.set(healthy, "")
			case w.failing(u.grace, time.Since(w.started)):
				problem := fmt.Sprintf("probe failed %d times: %v", w.fails, err)
				if u.spec.Container.Restart == "never" {
					u.set(unhealthy, problem)
					continue
				}
				u.restart(ctx, inst, problem, true)
				return forProbe
			case !w.answeredOnce:
				u.set(u.down(), fmt.Sprintf("does not answer yet: %v", err))
			}
		}
	}
}

func newTimer(d time.Duration) *time.Timer { return time.NewTimer(max(d, 0)) }

// watchState counts the answers to probes.
type watchState struct {
	probe        *nodestate.Probe
	started      time.Time
	answeredOnce bool
	fails        int // in a row
	delay        time.Duration
}

// answered notes an answer and returns when to ask again.
func (w *watchState) answered(err error) time.Duration {
	if err == nil {
		w.answeredOnce, w.fails = true, 0
	} else {
		w.fails++
	}
	if w.answeredOnce {
		return interval(w.probe)
	}
	w.delay = retryAfter(w.probe, w.delay)
	return w.delay
}

// failing tells whether the container is to be restarted: too many failures in a
// row, once it answered or its time to start is over.
func (w *watchState) failing(grace, up time.Duration) bool {
	return w.fails >= max(w.probe.Failures, 1) && (w.answeredOnce || up >= grace)
}
