package containerd

import (
	"context"
	"errors"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Prune removes the images of our namespace that neither keep names nor a container
// uses. Their content and snapshots are gone when it returns, unless another namespace
// has them too.
func (r *Runtime) Prune(ctx context.Context, keep []string) error {
	ctx, c, err := r.open(ctx)
	if err != nil {
		return err
	}
	r.making.RLock() // against Purge and sweeps only: starting goes on
	defer r.making.RUnlock()
	used := map[digest.Digest]bool{}
	for _, ref := range keep {
		_, d, _ := strings.Cut(ref, "@")
		used[digest.Digest(d)] = true
	}
	// images first: a container made after that is made of one that is kept
	list, err := c.ImageService().List(ctx)
	if err != nil {
		return r.wrap("list images", err)
	}
	made, err := c.ContainerService().List(ctx)
	if err != nil {
		return r.wrap("list containers", err)
	}
	names := map[string]bool{}
	for _, x := range made {
		names[x.Image] = true
	}
	var old []images.Image
	for _, i := range list {
		if !used[i.Target.Digest] && !names[i.Name] {
			old = append(old, i)
		}
	}
	var errs []error
	for n, i := range old {
		var opts []images.DeleteOpt
		if n == len(old)-1 {
			opts = append(opts, images.SynchronousDelete()) // collects what all of them left
		}
		if err := c.ImageService().Delete(ctx, i.Name, opts...); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, r.wrap("remove image "+i.Name, err))
			continue
		}
		r.log.Info("image is no longer needed and was removed", "image", i.Name)
	}
	return errors.Join(errs...)
}
