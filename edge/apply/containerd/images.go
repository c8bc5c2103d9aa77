package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/nerdctl/v2/pkg/api/types"
	"github.com/containerd/nerdctl/v2/pkg/cmd/image"
	"github.com/containerd/nerdctl/v2/pkg/platformutil"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"

	"selvedge/edge/apply"
)

// errStalled ends a pull that gets nothing any more.
var errStalled = errors.New("the registry sends nothing")

// Pull makes an image local. It must be named with a digest: a tag may be another
// image tomorrow.
func (r *Runtime) Pull(ctx context.Context, ref string) error {
	if err := pinned(ref); err != nil {
		return err
	}
	ctx, c, err := r.open(ctx)
	if err != nil {
		return err
	}
	opts, err := r.pullOptions("missing")
	if err != nil {
		return err
	}
	pctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		r.watchPull(pctx, c, ref, cancel)
	}()
	err = image.Pull(pctx, c, ref, opts)
	stalled := errors.Is(context.Cause(pctx), errStalled)
	cancel(nil)
	<-watched
	switch {
	case err == nil:
		return nil
	case stalled:
		return fmt.Errorf("%w since %s; check the link to it, the pull goes on where it stopped", errStalled, r.c.Stall)
	case strings.Contains(err.Error(), "no match for platform"):
		return fmt.Errorf("it is not made for this node's processor (%s/%s): %w; name an image that is, or place the app on other nodes", runtime.GOOS, runtime.GOARCH, err)
	case errdefs.IsNotFound(err) || strings.Contains(err.Error(), "404 Not Found"):
		return fmt.Errorf("the registry does not have it: %w; push the image, or correct the reference", err)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fmt.Errorf("%w; plain http is for loopback only: give the registry a certificate, or name it in %s/<host>/hosts.toml", err, r.c.HostsDir)
	case strings.Contains(err.Error(), "connection refused") && !strings.Contains(err.Error(), r.c.Address):
		return fmt.Errorf("the registry cannot be reached: %w; check its address and that it runs", err)
	}
	return r.wrap("fetch it", err)
}

// pinned refuses a reference without a digest.
func pinned(ref string) error {
	_, d, ok := strings.Cut(ref, "@")
	if !ok {
		return fmt.Errorf("image %q has no digest; write it as name@sha256:…", ref)
	}
	if err := digest.Digest(d).Validate(); err != nil {
		return fmt.Errorf("image %q: %w; write it as name@sha256:…", ref, err)
	}
	return nil
}

func (r *Runtime) pullOptions(mode string) (types.ImagePullOptions, error) {
	p, err := platformutil.NewOCISpecPlatformSlice(false, []string{platforms.DefaultString()})
	if err != nil {
		return types.ImagePullOptions{}, fmt.Errorf("find this node's platform: %w", err)
	}
	return types.ImagePullOptions{GOptions: r.globals(), Stdout: io.Discard, Stderr: io.Discard, Quiet: true, Mode: mode,
		OCISpecPlatform: p, VerifyOptions: types.ImageVerifyOptions{Provider: "none"}}, nil
}

// watchPull logs progress and ends a pull that gets nothing.
func (r *Runtime) watchPull(ctx context.Context, c *client.Client, ref string, cancel context.CancelCauseFunc) {
	const told = 10 * time.Second
	tick := time.NewTicker(min(r.c.Stall/4, 2*time.Second))
	defer tick.Stop()
	var last int64 = -1
	moved, said := time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		have, total, err := progress(ctx, c, min(r.c.Stall, askBound))
		if err == nil && have != last { // an answer that does not come is no progress
			last, moved = have, time.Now()
		}
		if time.Since(moved) > r.c.Stall {
			cancel(errStalled)
			return
		}
		if time.Since(said) > told && total > 0 {
			said = time.Now()
			r.log.Info("pulling", "image", ref, "bytes", have, "of", total)
		}
	}
}

// progress returns how much of all pulls is there, and how much it will be as far as is known.
func progress(ctx context.Context, c *client.Client, bound time.Duration) (have, total int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	list, err := c.ContentStore().ListStatuses(ctx)
	for _, s := range list {
		have += s.Offset
		total += s.Total
	}
	// unpacking a large layer onto a slow disk is progress too
	return have + unpacked(ctx, c), total, err
}

// unpacked returns how much of the layers that are being unpacked is on disk.
func unpacked(ctx context.Context, c *client.Client) (size int64) {
	sn := c.SnapshotService(snapshotter)
	_ = sn.Walk(ctx, func(ctx context.Context, i snapshots.Info) error { // what cannot be told counts as nothing
		if i.Kind == snapshots.KindActive && strings.Contains(i.Name, "extract-") {
			if u, err := sn.Usage(ctx, i.Name); err == nil {
				size += u.Size
			}
		}
		return nil
	})
	return size
}

// missing tells apart an image that is not local.
func missing(err error) error {
	if err != nil && strings.Contains(err.Error(), "image not available") {
		return fmt.Errorf("%w: %w", apply.ErrImageMissing, err)
	}
	return err
}
