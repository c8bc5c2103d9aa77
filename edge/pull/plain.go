package pull

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"selvedge/schema/nodestate"
)

const (
	mediaTypeIndex = "application/vnd.oci.image.index.v1+json"
	maxIndex       = 4 << 20
	maxSignatures  = 8       // of one state; the last ones of the list are taken
	maxBundle      = 1 << 20 // bytes of one
	// plainValidator marks the ETag of the tag "desired".
	plainValidator = "desired "
)

// desired pulls from a registry without the tag "signed": manifest, its referrers, their
// bundles. A state that is signed anew is not noticed by the validator alone.
func (c *session) desired(ctx context.Context, repo, etag string) (Result, error) {
	header := http.Header{"Accept": {nodestate.MediaTypeManifest}}
	if etag != "" {
		header.Set("If-None-Match", etag)
	}
	from := c.manifestURL(repo, nodestate.TagDesired)
	a, err := c.get(ctx, from, header, nodestate.MaxManifestSize, 0)
	if err != nil {
		return Result{}, err
	}
	if a.status == http.StatusNotModified {
		if etag == "" {
			return Result{}, broken(from, "304 to a request without a condition")
		}
		return Result{NotModified: true, Validator: plainValidator + etag}, nil
	}
	if err := saysDigest(from, a); err != nil {
		return Result{}, err
	}
	subject := nodestate.Describe(nodestate.MediaTypeManifest, a.body, true)
	bundles, err := c.referrers(ctx, repo, subject.Digest)
	if err != nil {
		return Result{}, err
	}
	r := Result{Validator: plainValidator + validator(a)}
	for _, d := range bundles {
		d.MediaType = nodestate.MediaTypeManifest
		d.Data = nil
		m, err := c.content(ctx, repo, from, d, nodestate.MaxManifestSize)
		if err != nil {
			return Result{}, err
		}
		var outer nodestate.Manifest
		if err := json.Unmarshal(m, &outer); err != nil {
			return Result{}, broken(from, "signature %s: %w", d.Digest, err)
		}
		if outer.Subject == nil || outer.Subject.Digest != subject.Digest {
			continue // an index may list what it likes
		}
		outer.Subject = &subject
		signed, err := c.assemble(ctx, repo, from, outer)
		if err != nil {
			return Result{}, err
		}
		if r.Signed == nil {
			r.Signed = signed
		} else {
			r.More = append(r.More, signed)
		}
	}
	if r.Signed == nil {
		return Result{}, &Error{URL: from, Class: ErrNotFound, Err: errors.New("there is a state, but no signature of it")}
	}
	return r, nil
}

// referrers lists the bundles about a manifest, newest first as far as the order tells:
// by the API, or by the fallback tag of registries that have none (distribution-spec v1.1).
func (c *session) referrers(ctx context.Context, repo, digest string) ([]nodestate.Descriptor, error) {
	header := http.Header{"Accept": {mediaTypeIndex}}
	from := c.base + "/v2/" + repo + "/referrers/" + digest + "?artifactType=" + url.QueryEscape(nodestate.MediaTypeBundle)
	a, err := c.get(ctx, from, header, maxIndex, 0)
	if errors.Is(err, ErrNotFound) {
		from = c.manifestURL(repo, strings.Replace(digest, ":", "-", 1))
		a, err = c.get(ctx, from, header, maxIndex, 0)
	}
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		return nil, statusError(from, a)
	}
	var index struct {
		Manifests []nodestate.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(a.body, &index); err != nil {
		return nil, broken(from, "referrers: %w", err)
	}
	var out []nodestate.Descriptor
	for i := len(index.Manifests) - 1; i >= 0 && len(out) < maxSignatures; i-- {
		if d := index.Manifests[i]; d.ArtifactType == nodestate.MediaTypeBundle {
			out = append(out, d)
		}
	}
	return out, nil
}

// complete returns the signed manifest with everything inlined: as it came if it is so.
func (c *session) complete(ctx context.Context, repo, from string, signed []byte) ([]byte, error) {
	var outer nodestate.Manifest
	if err := json.Unmarshal(signed, &outer); err != nil {
		return nil, broken(from, "manifest: %w", err)
	}
	if outer.Subject == nil || len(outer.Layers) == 0 {
		return nil, broken(from, "manifest: not one of a signature")
	}
	if len(outer.Subject.Data) > 0 && len(outer.Layers[0].Data) > 0 {
		return signed, nil
	}
	return c.assemble(ctx, repo, from, outer)
}

// assemble fetches what the manifest of a signature does not inline and puts it in. Nobody
// signed that manifest, so it may be written anew; the state's own, which is signed, is
// put in as it stands, and inlines the state itself.
func (c *session) assemble(ctx context.Context, repo, from string, outer nodestate.Manifest) ([]byte, error) {
	if len(outer.Layers) != 1 || outer.Layers[0].MediaType != nodestate.MediaTypeBundle {
		return nil, broken(from, "manifest: not one of a sigstore bundle")
	}
	about := *outer.Subject
	about.MediaType = nodestate.MediaTypeManifest
	subject, err := c.content(ctx, repo, from, about, nodestate.MaxManifestSize)
	if err != nil {
		return nil, err
	}
	bundle, err := c.content(ctx, repo, from, outer.Layers[0], maxBundle)
	if err != nil {
		return nil, err
	}
	described := nodestate.Describe(nodestate.MediaTypeManifest, subject, true)
	signed, err := json.Marshal(nodestate.Manifest{
		SchemaVersion: 2, MediaType: nodestate.MediaTypeManifest, ArtifactType: nodestate.MediaTypeBundle,
		Config:      nodestate.Describe(nodestate.MediaTypeEmpty, []byte(nodestate.EmptyContent), true),
		Layers:      []nodestate.Descriptor{nodestate.Describe(nodestate.MediaTypeBundle, bundle, true)},
		Subject:     &described,
		Annotations: outer.Annotations,
	})
	if err != nil {
		return nil, broken(from, "manifest: %w", err)
	}
	if len(signed) > nodestate.MaxManifestSize {
		return nil, broken(from, "state and signature of more than %d bytes", nodestate.MaxManifestSize)
	}
	return signed, nil
}
