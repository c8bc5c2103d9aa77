package apply

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"selvedge/edge/verify"
)

// pruneBound ends a Prune that hangs: until its end nothing can be pulled.
const pruneBound = time.Minute

// Prune removes the images that neither the states to keep nor what runs refer to, if the
// Runtime is a Pruner. While images are being pulled it does nothing; keep is asked when
// none can be.
func (a *Applier) Prune(ctx context.Context, keep func() []verify.State) error {
	p, ok := a.rt.(Pruner)
	if !ok || !a.images.TryLock() {
		return nil
	}
	defer a.images.Unlock()
	used := map[string]bool{}
	for _, s := range keep() {
		if s.IsZero() {
			continue
		}
		for _, app := range s.Desired().Apps {
			for _, c := range app.Containers {
				used[c.Image] = true
			}
		}
	}
	a.mu.Lock()
	for _, t := range []*target{a.cur, a.next} {
		if t != nil {
			for _, s := range t.specs {
				used[s.Container.Image] = true
			}
		}
	}
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, pruneBound)
	defer cancel()
	if err := p.Prune(ctx, slices.Sorted(maps.Keys(used))); err != nil {
		return fmt.Errorf("prune images: %w", err)
	}
	return nil
}

// prefetch makes all images local.
func (a *Applier) prefetch(ctx context.Context, specs []Spec) error {
	a.images.RLock()
	defer a.images.RUnlock()
	images := map[string]string{}
	for _, s := range specs {
		if _, ok := images[s.Container.Image]; !ok {
			images[s.Container.Image] = s.App
		}
	}
	var g errgroup.Group // all are tried, so that one report names all that is missing
	g.SetLimit(a.pulls)
	errs := make([]error, len(images))
	for n, image := range slices.Sorted(maps.Keys(images)) {
		g.Go(func() error {
			if err := a.pull(ctx, image); err != nil {
				errs[n] = fmt.Errorf("app %q: %w", images[image], err)
			}
			return nil
		})
	}
	_ = g.Wait() // always nil: the errors are in errs
	return errors.Join(errs...)
}

func (a *Applier) pull(ctx context.Context, image string) error {
	begun := time.Now()
	if err := a.rt.Pull(ctx, image); err != nil {
		return fmt.Errorf("pull %s: %w", image, err)
	}
	a.log.Debug("image is local", "image", image, "took", time.Since(begun).Round(time.Millisecond))
	return nil
}
