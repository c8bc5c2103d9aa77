package reconciler

import (
	"context"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"selvedge/reconciler/sign"
	"selvedge/schema/nodestate"
)

// batch is how many states are signed and published together: enough to share the
// store's sync, few enough to stay small in memory.
const batch = 512

// publish signs and publishes what changed, and withdraws what is gone.
func (r *Reconciler) publish(ctx context.Context, p *pass) error {
	heads, err := r.cfg.Publisher.Heads()
	if err != nil {
		return err
	}
	var changed []string
	for name, n := range p.result.Nodes {
		if heads[name].ContentDigest != n.Digest {
			changed = append(changed, name)
		}
	}
	slices.Sort(changed)
	for names := range slices.Chunk(changed, batch) {
		artifacts, err := r.sign(ctx, p, names, heads)
		if err != nil {
			return err
		}
		if err := r.cfg.Publisher.Put(ctx, artifacts); err != nil {
			return err
		}
		p.signed += len(artifacts)
	}
	var gone []string
	for name, h := range heads {
		_, kept := p.result.Nodes[name]
		_, held := p.result.Held[name]
		if h.ContentDigest != "" && !kept && !held {
			gone = append(gone, name)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	slices.Sort(gone)
	p.removed = len(gone)
	r.cfg.Log.Info("states withdrawn: the nodes are no longer in the repo, or have no identity", "nodes", gone)
	return r.cfg.Publisher.Remove(ctx, gone)
}

func (r *Reconciler) sign(ctx context.Context, p *pass, names []string, heads map[string]nodestate.Head) ([]nodestate.Artifact, error) {
	now := time.Now()
	out := make([]nodestate.Artifact, len(names))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, name := range names {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			var err error
			out[i], err = r.cfg.Signer.Sign(p.result.Nodes[name].Bytes(), sign.Meta{
				Node:       name,
				Generation: nodestate.NextGeneration(heads[name].Generation, now),
				Commit:     p.commit.Hash,
				Created:    now,
			})
			return err
		})
	}
	return out, g.Wait()
}
