package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	ocidigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"selvedge/schema/nodestate"
)

func (r *Remote) repository(name string) (*remote.Repository, error) {
	ref := registry.Reference{Registry: r.config.Registry, Repository: name}
	if err := ref.Validate(); err != nil {
		return nil, err
	}
	return &remote.Repository{
		Client: r.client, Reference: ref, PlainHTTP: r.config.PlainHTTP,
		MaxMetadataBytes: nodestate.MaxManifestSize,
		// the fallback tag of a manifest that is gone is left to the registry's own clean-up
		SkipReferrersGC: true,
	}, nil
}

// push uploads one state. Tags move last and "desired" after "signed": whoever sees a
// state there finds its signature.
func (r *Remote) push(ctx context.Context, it *item) error {
	repo, err := r.repository(nodestate.NodeRepository(r.config.Prefix, it.Node))
	if err != nil {
		return err
	}
	u := it.unpacked
	if err := pushMissing(ctx, repo, nodestate.MediaTypeEmpty, emptyBytes); err != nil {
		return err
	}
	if err := pushBlob(ctx, repo, nodestate.MediaTypeState, u.Layer); err != nil {
		return err
	}
	if err := pushBlob(ctx, repo, nodestate.MediaTypeBundle, u.Bundle); err != nil {
		return err
	}
	manifest, signed := descriptor(nodestate.MediaTypeManifest, u.Manifest), descriptor(nodestate.MediaTypeManifest, it.Signed)
	if err := repo.Push(ctx, manifest, bytes.NewReader(u.Manifest)); err != nil {
		return fmt.Errorf("push manifest: %w", err)
	}
	// with a subject: oras also keeps the referrers' fallback tag where it is needed
	if err := repo.PushReference(ctx, signed, bytes.NewReader(it.Signed), nodestate.TagSigned); err != nil {
		return fmt.Errorf("push signature: %w", err)
	}
	if err := repo.PushReference(ctx, manifest, bytes.NewReader(u.Manifest), nodestate.TagDesired); err != nil {
		return fmt.Errorf("tag manifest: %w", err)
	}
	return nil
}

func descriptor(mediaType string, b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: ocidigest.FromBytes(b), Size: int64(len(b))}
}

func pushBlob(ctx context.Context, repo *remote.Repository, mediaType string, b []byte) error {
	if err := repo.Blobs().Push(ctx, descriptor(mediaType, b), bytes.NewReader(b)); err != nil {
		return fmt.Errorf("push blob: %w", err)
	}
	return nil
}

func pushMissing(ctx context.Context, repo *remote.Repository, mediaType string, b []byte) error {
	ok, err := repo.Blobs().Exists(ctx, descriptor(mediaType, b))
	if err != nil {
		return fmt.Errorf("look for blob: %w", err)
	}
	if ok {
		return nil
	}
	return pushBlob(ctx, repo, mediaType, b)
}

// fetch returns the manifest of a tag, or nil if there is none.
func fetch(ctx context.Context, repo *remote.Repository, tag string, most int64) ([]byte, error) {
	desc, body, err := repo.Manifests().FetchReference(ctx, tag)
	if errors.Is(err, errdef.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("fetch tag %s: %w", tag, err)
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, most+1))
	if err != nil {
		return nil, fmt.Errorf("fetch tag %s: %w", tag, err)
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("fetch tag %s: more than %d bytes", tag, most)
	}
	if desc.Digest != ocidigest.FromBytes(b) {
		return nil, fmt.Errorf("fetch tag %s: the content is not that of digest %s", tag, desc.Digest)
	}
	return b, nil
}

// generation returns the published generation of a node; 0: none.
func (r *Remote) generation(ctx context.Context, node string) (int64, error) {
	repo, err := r.repository(nodestate.NodeRepository(r.config.Prefix, node))
	if err != nil {
		return 0, err
	}
	b, err := fetch(ctx, repo, nodestate.TagSigned, nodestate.MaxManifestSize)
	if err != nil || b == nil {
		return 0, err
	}
	u, err := nodestate.Unpack(b)
	if err != nil || u.Node != node {
		return 0, nil // somebody else's; ours replaces it
	}
	return u.Generation, nil
}

func (r *Remote) remove(ctx context.Context, node string) error {
	repo, err := r.repository(nodestate.NodeRepository(r.config.Prefix, node))
	if err != nil {
		return err
	}
	for _, tag := range []string{nodestate.TagSigned, nodestate.TagDesired} {
		desc, err := repo.Resolve(ctx, tag)
		if errors.Is(err, errdef.ErrNotFound) {
			continue
		}
		if err == nil {
			err = repo.Manifests().Delete(ctx, desc)
		}
		var answer *errcode.ErrorResponse
		if errors.As(err, &answer) && answer.StatusCode == http.StatusMethodNotAllowed {
			return errdef.ErrUnsupported
		}
		if err != nil && !errors.Is(err, errdef.ErrNotFound) {
			return fmt.Errorf("delete tag %s: %w", tag, err)
		}
	}
	return nil
}

// PutTrust pushes all root documents, oldest first. They must form a chain and begin
// with those that the registry holds already.
func (r *Remote) PutTrust(ctx context.Context, roots [][]byte) error {
	manifest, err := trustManifest(roots)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		err = r.putTrust(ctx, roots, manifest)
	}
	if err != nil {
		return fmt.Errorf("publish trust to %s: %w", r.config.Registry, err)
	}
	return nil
}

func (r *Remote) putTrust(ctx context.Context, roots [][]byte, manifest []byte) error {
	repo, err := r.repository(nodestate.TrustRepository(r.config.Prefix))
	if err != nil {
		return err
	}
	old, err := fetch(ctx, repo, nodestate.TagTrust, nodestate.MaxTrustSize)
	if err != nil || bytes.Equal(old, manifest) {
		return err
	}
	if old != nil {
		if err := extends(old, roots); err != nil {
			return err
		}
	}
	if err := pushMissing(ctx, repo, nodestate.MediaTypeEmpty, emptyBytes); err != nil {
		return err
	}
	for _, doc := range roots {
		if err := pushMissing(ctx, repo, nodestate.MediaTypeRoot, doc); err != nil {
			return err
		}
	}
	if err := repo.PushReference(ctx, descriptor(nodestate.MediaTypeManifest, manifest), bytes.NewReader(manifest), nodestate.TagTrust); err != nil {
		return fmt.Errorf("push manifest: %w", err)
	}
	return nil
}
