package reconciler

import (
	"context"
	"path/filepath"
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
	p.heads = heads
	if err := r.noteSigner(heads); err != nil {
		return err
	}
	older := map[string]bool{}
	for _, name := range r.signedBy.Older {
		older[name] = true
	}
	var changed []string
	for name, n := range p.result.Nodes {
		if heads[name].ContentDigest != n.Digest || older[name] {
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
		for _, a := range artifacts {
			heads[a.Node] = nodestate.Head{Generation: a.Generation, ContentDigest: p.result.Nodes[a.Node].Digest}
			r.touched[a.Node] = a.Generation
		}
	}
	var gone []string
	for name, h := range heads {
		_, kept := p.result.Nodes[name]
		_, held := p.result.Held[name]
		if h.ContentDigest != "" && !kept && !held {
			gone = append(gone, name)
		}
	}
	if len(gone) > 0 {
		slices.Sort(gone)
		p.removed = len(gone)
		r.cfg.Log.Info("states withdrawn: the nodes are no longer in the repo, or have no identity", "nodes", gone)
		if err := r.cfg.Publisher.Remove(ctx, gone); err != nil {
			return err
		}
		for _, name := range gone {
			delete(heads, name)
			delete(r.touched, name)
			r.gone[name] = struct{}{}
		}
	}
	return r.signedAnew(p)
}

// noteSigner writes down, before anything is signed with another key than before, which
// nodes have states by an older one. A pass that is killed then signs some of them twice.
func (r *Reconciler) noteSigner(heads map[string]nodestate.Head) error {
	hint := r.cfg.Signer.Hint()
	if r.signedBy.Hint == hint {
		return nil
	}
	s := signedBy{Hint: hint}
	for name, h := range heads {
		if h.ContentDigest != "" {
			s.Older = append(s.Older, name)
		}
	}
	slices.Sort(s.Older)
	if err := saveSignedBy(filepath.Join(r.cfg.DataDir, signedByFile), s); err != nil {
		return err
	}
	r.signedBy = s
	if len(s.Older) > 0 {
		r.cfg.Log.Info("the signing key is another one; states are signed anew", "nodes", len(s.Older), "key", hint)
	}
	return nil
}

// signedAnew keeps of the nodes with states by an older key those that are held: what
// they should run is not known now.
func (r *Reconciler) signedAnew(p *pass) error {
	if len(r.signedBy.Older) == 0 {
		return nil
	}
	s := signedBy{Hint: r.signedBy.Hint}
	for _, name := range r.signedBy.Older {
		if _, held := p.result.Held[name]; held {
			s.Older = append(s.Older, name)
		}
	}
	if len(s.Older) == len(r.signedBy.Older) {
		return nil
	}
	if len(s.Older) > 0 {
		r.cfg.Log.Warn("held nodes keep states by the key before; mend their workspaces before that key is taken out of trust", "nodes", s.Older)
	}
	if err := saveSignedBy(filepath.Join(r.cfg.DataDir, signedByFile), s); err != nil {
		return err
	}
	r.signedBy = s
	return nil
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
