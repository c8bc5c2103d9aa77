package apply

import (
	"context"
	"errors"

	"selvedge/edge/verify"
)

var errNoState = errors.New("there is no verified state to run")

// Apply makes the node run a state and waits for the outcome: nil when every app
// that it changes is healthy, *Unhealthy when one is not by its deadline, another
// error when that cannot be told (an image that cannot be pulled, the runtime away,
// the context over) and a later try may succeed. All images are pulled before
// anything is touched. After *Unhealthy the caller applies the last good state.
//
// Run must be running. One Apply goes on at a time; others wait.
func (a *Applier) Apply(ctx context.Context, s verify.State) error {
	if s.IsZero() {
		return errNoState
	}
	return a.apply(ctx, s.Desired(), s.Generation(), s.Digest())
}

// Start makes the node run a state that was good before, at the agent's start. It
// pulls nothing, waits for no verdict and may be called before Run; containers that
// still run are adopted as they are.
func (a *Applier) Start(ctx context.Context, s verify.State) error {
	if s.IsZero() {
		return errNoState
	}
	return a.start(ctx, s.Desired(), s.Generation(), s.Digest())
}

// Accept notes which state was good last, as Start does of its own: Apply does not judge
// apps that are as they were in it. The zero State means none was.
func (a *Applier) Accept(s verify.State) error {
	t := &target{}
	if !s.IsZero() {
		var err error
		if t, err = a.build(s.Desired(), s.Generation(), s.Digest()); err != nil {
			return err
		}
	}
	a.accept(t)
	return nil
}

// Prefetch makes all images of a state local and touches nothing else, so that a
// caller can note that it begins a state when nothing more can be missing.
func (a *Applier) Prefetch(ctx context.Context, s verify.State) error {
	if s.IsZero() {
		return errNoState
	}
	t, err := a.build(s.Desired(), s.Generation(), s.Digest())
	if err != nil {
		return err
	}
	return a.prefetch(ctx, t.specs)
}
