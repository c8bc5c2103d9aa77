package ops

import (
	"context"
	"sync"
	"time"

	"selvedge/reconciler/access"
	"selvedge/reconciler/hub/follow"
)

// guard watches over a stream: it ends it when its caller loses the right to it.
type guard struct {
	caller Caller
	node   string // "" if it is of none
	check  func(*entry) error
	end    context.CancelCauseFunc
}

// guarded takes a place for a stream and returns a context that ends with the caller's right,
// with a *hubapi.Problem as its cause. check is asked again at each change in Git. The
// place is given back when release is called, which may be more than once.
func (o *Ops) guarded(ctx context.Context, e *entry, node string, check func(*entry) error) (_ context.Context, release func(), err error) {
	who := e.Subject.String()
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.open[who] >= o.c.CallerStreams:
		return nil, nil, busy("%s has %d streams open, which is the most; close one", who, o.open[who])
	case o.total >= o.c.Streams:
		return nil, nil, busy("%d streams are open, which is the most for this hub; try again soon", o.total)
	}
	ctx, end := context.WithCancelCause(ctx)
	g := &guard{caller: e.Caller, node: node, check: check, end: end}
	// the context's own deadline would do, but knows only the machine's clock
	timer := time.AfterFunc(e.Expires.Sub(o.c.Now()), func() { end(unauthorized("the token %s expired", e.Token)) })
	o.guards[g] = struct{}{}
	o.open[who]++
	o.total++
	var once sync.Once
	release = func() {
		once.Do(func() {
			timer.Stop()
			end(context.Canceled)
			o.mu.Lock()
			defer o.mu.Unlock()
			delete(o.guards, g)
			if o.open[who]--; o.open[who] <= 0 {
				delete(o.open, who)
			}
			o.total--
		})
	}
	// Git may have changed since e was made, and this guard was not yet there to be asked
	if err := o.recheck(g); err != nil {
		end(err)
	}
	return ctx, release, nil
}

// recheck asks whether a stream may go on.
func (o *Ops) recheck(g *guard) error {
	e, err := o.enter(g.caller)
	if err != nil {
		return err
	}
	return g.check(e)
}

// delta takes in a change of the roster.
func (o *Ops) delta(v *follow.View, d follow.Delta) {
	if d.Fleet || d.Reset || o.tokens.Load() == nil {
		o.tokens.Store(access.NewTokens(&v.Fleet))
	}
	removed := map[string]bool{}
	for _, name := range d.Removed {
		removed[name] = true
	}
	o.mu.Lock()
	var ask []*guard
	for g := range o.guards {
		_, changed := d.Nodes[g.node]
		if d.Fleet || d.Reset || g.node != "" && (changed || removed[g.node]) {
			ask = append(ask, g)
		}
	}
	o.mu.Unlock()
	for _, g := range ask {
		if err := o.recheck(g); err != nil {
			o.c.Log.Info("a stream ends: its right is gone", "subject", g.caller.Subject.String(), "node", g.node, "error", err)
			g.end(err)
		}
	}
}
