package registry

import (
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"
)

const (
	maxManifest  = 4 << 20  // bytes, as registries bound them
	maxManifests = 64 << 20 // bytes of those kept
	maxChildren  = 512      // manifests that an index names
	maxNested    = 3        // an index of indexes, and their manifests
	manifestTime = 45 * time.Second
	notAgain     = 10 * time.Second // after a manifest could not be had
	maxMissed    = 10000
)

// Media types of manifests, for Accept.
var manifestTypes = []string{
	"application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json",
	"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json", "*/*",
}

// manifest is one whose digest was checked, with what it names.
type manifest struct {
	digest    digest.Digest
	mediaType string
	raw       []byte
	children  []digest.Digest
	blobs     map[digest.Digest]bool
}

// manifests keeps the ones used last. What a digest names never changes, so none is too old.
type manifests struct {
	flights singleflight.Group

	mu     sync.Mutex
	order  *list.List // of *manifest, the last used in front
	by     map[digest.Digest]*list.Element
	size   int
	missed map[digest.Digest]time.Time
}

func newManifests() *manifests {
	return &manifests{order: list.New(), by: map[digest.Digest]*list.Element{}, missed: map[digest.Digest]time.Time{}}
}

func (m *manifests) get(d digest.Digest) *manifest {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.by[d]
	if e == nil {
		return nil
	}
	m.order.MoveToFront(e)
	return e.Value.(*manifest)
}

// cost is what a manifest takes in memory, about: what it names is kept twice.
func (m *manifest) cost() int { return 2*len(m.raw) + 1<<10 }

func (m *manifests) put(one *manifest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.by[one.digest] != nil {
		return
	}
	m.by[one.digest] = m.order.PushFront(one)
	m.size += one.cost()
	for m.size > maxManifests && m.order.Len() > 1 {
		old := m.order.Remove(m.order.Back()).(*manifest)
		delete(m.by, old.digest)
		m.size -= old.cost()
	}
}

var (
	errMissed   = errors.New("it could not be had a moment ago")
	errNotThere = errors.New("the registry does not have it")
)

func (m *manifests) missedLately(d digest.Digest) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.missed[d]
	if ok && time.Since(at) > notAgain {
		delete(m.missed, d)
		return false
	}
	return ok
}

func (m *manifests) miss(d digest.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.missed) >= maxMissed {
		clear(m.missed)
	}
	m.missed[d] = time.Now()
}

// fetch returns a manifest, from memory or from its registry; several that want it wait for one.
func (m *manifests) fetch(ctx context.Context, u *upstream, repository string, d digest.Digest) (*manifest, error) {
	if one := m.get(d); one != nil {
		return one, nil
	}
	key := u.base.Host + "/" + repository + "@" + d.String()
	if m.missedLately(digest.Digest(key)) {
		return nil, errMissed
	}
	done := m.flights.DoChan(key, func() (any, error) {
		// one that leaves must not fail those that wait too
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), manifestTime)
		defer cancel()
		one, err := download(ctx, u, repository, d)
		if err != nil {
			m.miss(digest.Digest(key))
			return nil, err
		}
		m.put(one)
		return one, nil
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*manifest), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func download(ctx context.Context, u *upstream, repository string, d digest.Digest) (*manifest, error) {
	res, err := u.ask(ctx, http.MethodGet, repository, kindManifest, d.String(), http.Header{"Accept": {strings.Join(manifestTypes, ", ")}})
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, errNotThere
	default:
		return nil, fmt.Errorf("%s answers %s", u.base, res.Status)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxManifest+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxManifest {
		return nil, fmt.Errorf("a manifest of more than %d bytes", maxManifest)
	}
	return parseManifest(d, b)
}

// parseManifest checks the digest and reads what a manifest or an index names.
func parseManifest(d digest.Digest, b []byte) (*manifest, error) {
	if d.Validate() != nil || d.Algorithm().FromBytes(b) != d {
		return nil, fmt.Errorf("the registry sent something else than %s", d)
	}
	type descriptor struct {
		Digest string `json:"digest"`
	}
	var doc struct {
		MediaType string       `json:"mediaType"`
		Config    *descriptor  `json:"config"`
		Layers    []descriptor `json:"layers"`
		Manifests []descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("%s is no manifest: %w", d, err)
	}
	m := &manifest{digest: d, mediaType: doc.MediaType, raw: b, blobs: map[digest.Digest]bool{}}
	if m.mediaType == "" { // OCI allows to leave it out
		m.mediaType = manifestTypes[0]
		if doc.Manifests != nil {
			m.mediaType = manifestTypes[1]
		}
	}
	if doc.Config != nil {
		doc.Layers = append(doc.Layers, *doc.Config)
	}
	for _, l := range doc.Layers {
		if c, err := digest.Parse(l.Digest); err == nil {
			m.blobs[c] = true
		}
	}
	if len(doc.Manifests) > maxChildren {
		return nil, fmt.Errorf("%s names more than %d manifests", d, maxChildren)
	}
	for _, l := range doc.Manifests {
		if c, err := digest.Parse(l.Digest); err == nil {
			m.children = append(m.children, c)
		}
	}
	return m, nil
}
