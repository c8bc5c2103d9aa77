package apply

import (
	"context"

	"selvedge/schema/nodestate"
)

// ApplyRaw is Apply without a proof: only tests may.
func (a *Applier) ApplyRaw(ctx context.Context, s nodestate.State, generation int64) error {
	return a.apply(ctx, s, generation, "sha256:test")
}

// StartRaw is Start without a proof.
func (a *Applier) StartRaw(ctx context.Context, s nodestate.State, generation int64) error {
	return a.start(ctx, s, generation, "sha256:test")
}

// Answer replaces the probes.
func (a *Applier) Answer(probe func(context.Context, Instance, *nodestate.Probe) error) {
	a.probe = probe
}
