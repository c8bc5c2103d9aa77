package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"selvedge/schema/roster"
)

// stallTime is how long an upstream may send nothing in the middle of a blob.
const stallTime = time.Minute

// What goes through for blobs, each way. Everything else is the hub's to say.
var (
	blobAsked    = []string{"If-Range", "Range"}
	blobAnswered = []string{"Accept-Ranges", "Content-Length", "Content-Range"}
)

// image serves a part of an image that the node needs, while it is listed.
func (r *Registry) image(w http.ResponseWriter, q *http.Request, p asked, node roster.Node, listed func() bool) *fault {
	name := host(q.URL)
	u := r.upstreams[name]
	if u == nil || (p.kind != kindManifest && p.kind != kindBlob) {
		return &faultName
	}
	unknown := &faultBlob
	if p.kind == kindManifest {
		unknown = &faultManifest
	}
	d, err := digest.Parse(p.reference)
	wanted := roots(node.Images, name, p.repository)
	if err != nil || len(wanted) == 0 { // a tag is nobody's: states name digests
		return unknown
	}
	ok, err := r.needs(q.Context(), u, p, d, wanted)
	if !ok {
		if err != nil && !errors.Is(err, errNotThere) {
			return r.away(q, name, p, err)
		}
		return unknown
	}
	etag := `"` + d.String() + `"`
	h := w.Header()
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Etag", etag)
	h.Set("Cache-Control", "private, max-age=31536000, immutable")
	if v := q.Header.Get("If-None-Match"); v != "" && strings.Contains(v, etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if p.kind == kindManifest {
		m, err := r.manifests.fetch(q.Context(), u, p.repository, d)
		if errors.Is(err, errNotThere) {
			return unknown
		}
		if err != nil {
			return r.away(q, name, p, err)
		}
		h.Set("Content-Type", m.mediaType)
		h.Set("Content-Length", strconv.Itoa(len(m.raw)))
		if q.Method == http.MethodGet {
			w.Write(m.raw)
		}
		return nil
	}
	return r.blob(w, q, u, name, p, listed)
}

func (r *Registry) away(q *http.Request, name string, p asked, err error) *fault {
	if q.Context().Err() == nil && !errors.Is(err, errMissed) {
		r.seldom.images.Do(func() {
			r.c.Log.Warn("the registry behind the hub does not give a part of an image", "registry", name, "repository", p.repository, "reference", p.reference, "error", err)
		})
	}
	return &faultUpstream
}

// needs tells whether something is one of the wanted images or a part of one. What is in
// memory is looked at first; a node that asks in order finds it there.
func (r *Registry) needs(ctx context.Context, u *upstream, p asked, d digest.Digest, wanted []digest.Digest) (bool, error) {
	if p.kind == kindManifest && slices.Contains(wanted, d) {
		return true, nil
	}
	var failed error
	for _, load := range []bool{false, true} {
		level, seen := wanted, map[digest.Digest]bool{}
		for range maxNested {
			var next []digest.Digest
			for _, c := range level {
				if seen[c] {
					continue
				}
				if seen[c] = true; len(seen) > maxChildren {
					break
				}
				m := r.manifests.get(c)
				if m == nil && load {
					var err error
					if m, err = r.manifests.fetch(ctx, u, p.repository, c); err != nil {
						failed = errors.Join(failed, err)
					}
				}
				if m == nil {
					continue
				}
				if p.kind == kindBlob && m.blobs[d] || p.kind == kindManifest && slices.Contains(m.children, d) {
					return true, nil
				}
				next = append(next, m.children...)
			}
			level = next
		}
	}
	return false, failed
}

// blob streams a config or a layer. Its digest is for the node to check, as it is anyway.
func (r *Registry) blob(w http.ResponseWriter, q *http.Request, u *upstream, name string, p asked, listed func() bool) *fault {
	ctx, cancel := context.WithCancel(q.Context())
	defer cancel()
	header := http.Header{}
	if !strings.Contains(strings.Join(q.Header.Values("Range"), ","), ",") { // several would come as multipart: the whole does as well
		for _, k := range blobAsked {
			if v := q.Header.Values(k); len(v) > 0 {
				header[k] = v
			}
		}
	}
	res, err := u.ask(ctx, q.Method, p.repository, kindBlob, p.reference, header)
	if err != nil {
		return r.away(q, name, p, err)
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
	case http.StatusRequestedRangeNotSatisfiable:
		return &faultRange // registries send a length and a body here that do not agree
	case http.StatusNotFound:
		return &faultBlob
	default:
		return r.away(q, name, p, errors.New("it answers "+res.Status))
	}
	h := w.Header()
	for _, k := range blobAnswered {
		if v := res.Header[k]; len(v) > 0 {
			h[k] = v
		}
	}
	h.Set("Content-Type", "application/octet-stream")
	w.WriteHeader(res.StatusCode)
	if q.Method == http.MethodGet {
		stall := time.AfterFunc(stallTime, cancel)
		defer stall.Stop()
		pass(w, &alive{Reader: res.Body, stall: stall, listed: listed, again: r.again, asked: time.Now()})
	}
	return nil
}

// alive puts the stall off with each read that brings something, and ends what is for a node
// that Git does not list any more.
type alive struct {
	io.Reader
	stall  *time.Timer
	listed func() bool
	again  time.Duration
	asked  time.Time
}

var errGone = errors.New("the node is not listed any more")

func (a *alive) Read(p []byte) (int, error) {
	if now := time.Now(); now.Sub(a.asked) >= a.again {
		if a.asked = now; !a.listed() {
			return 0, errGone
		}
	}
	n, err := a.Reader.Read(p)
	if n > 0 {
		a.stall.Reset(stallTime)
	}
	return n, err
}
