package publish

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"selvedge/schema/nodestate"
)

// MaxWait is the longest time that a request may wait for a change.
const MaxWait = 60 * time.Second

const mediaTypeIndex = "application/vnd.oci.image.index.v1+json"

// Grammar of the OCI distribution spec.
var (
	nameRE   = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagRE    = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	digestRE = regexp.MustCompile(`^[a-z0-9]+([+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$`)
)

func validName(s string) bool { return len(s) <= 255 && nameRE.MatchString(s) }

// Handler serves the pull half of the OCI distribution spec: manifests by tag or
// digest, blobs with ranges, referrers with filter, tags with pagination.
//
// A conditional request for a tag may wait for its change: with "If-None-Match" and
// "Prefer: wait=N" (RFC 7240, at most [MaxWait]) the answer is 200 as soon as the tag
// changed, or 304 after N seconds, with "Preference-Applied: wait=N". When too many wait
// already, it comes at once and without that header.
//
// Who may read what is not decided here.
func (s *Store) Handler() http.Handler { return handler{s} }

type handler struct{ store *Store }

// fault is an answer of the distribution spec's error form.
type fault struct {
	status        int
	code, message string
}

func (f fault) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(f.status)
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	json.NewEncoder(w).Encode(map[string][]one{"errors": {{f.code, f.message}}}) // a client that left is no error
}

var (
	faultNoEndpoint = fault{http.StatusNotFound, "UNSUPPORTED", "no such endpoint"}
	faultReadOnly   = fault{http.StatusMethodNotAllowed, "UNSUPPORTED", "read only: states are published by the reconciler"}
	faultName       = fault{http.StatusBadRequest, "NAME_INVALID", "invalid repository name"}
	faultNoName     = fault{http.StatusNotFound, "NAME_UNKNOWN", "repository name not known to registry"}
	faultDigest     = fault{http.StatusBadRequest, "DIGEST_INVALID", "invalid digest"}
	faultNoManifest = fault{http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown to registry"}
	faultNoBlob     = fault{http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry"}
	faultPages      = fault{http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "n is not a number"}
	faultStore      = fault{http.StatusInternalServerError, "UNKNOWN", "the store cannot be read"}
)

// request is a path of the distribution spec, taken apart.
type request struct {
	kind      string // manifests, blobs, referrers or tags
	name      string
	reference string // tag, digest, or "list"
}

// parsePath takes /v2/<name>/<kind>/<reference> apart. Names may hold the words that
// kinds are named by, so it is read from the end.
func parsePath(path string) (request, *fault) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return request{}, &faultNoEndpoint
	}
	i := strings.LastIndexByte(rest, '/')
	j := -1
	if i >= 0 {
		j = strings.LastIndexByte(rest[:i], '/')
	}
	if j < 0 {
		return request{}, &faultNoEndpoint
	}
	r := request{name: rest[:j], kind: rest[j+1 : i], reference: rest[i+1:]}
	switch r.kind {
	case "manifests", "blobs", "referrers":
	case "tags":
		if r.reference != "list" {
			return r, &faultNoEndpoint
		}
	default:
		return r, &faultNoEndpoint
	}
	if !validName(r.name) {
		return r, &faultName
	}
	return r, nil
}

func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		faultReadOnly.write(w)
		return
	}
	if r.URL.Path == "/v2/" || r.URL.Path == "/v2" {
		w.Header().Set("Content-Type", "application/json")
		w.Write(emptyBytes)
		return
	}
	req, f := parsePath(r.URL.Path)
	if f == nil {
		f = h.serve(w, r, req)
	}
	if f != nil {
		f.write(w)
	}
}

func (h handler) serve(w http.ResponseWriter, r *http.Request, req request) *fault {
	var d digest
	if isDigest := strings.Contains(req.reference, ":"); isDigest || req.kind == "blobs" || req.kind == "referrers" {
		var ok bool
		if d, ok = parseDigest(req.reference); !ok {
			if strings.HasPrefix(req.reference, "sha256:") || !digestRE.MatchString(req.reference) {
				return &faultDigest
			}
			// another algorithm: well formed, and nothing here has such a digest
			d = digest{}
		}
	}
	repo, ok := h.store.repository(req.name)
	if !ok {
		return &faultNoName
	}
	switch {
	case req.kind == "manifests" && strings.Contains(req.reference, ":"):
		c, err := h.store.manifest(repo, d)
		if err != nil {
			return faultOf(err, &faultNoManifest)
		}
		w.Header().Set("Cache-Control", "max-age=31536000, immutable")
		sendManifest(w, r, c)
	case req.kind == "manifests":
		return h.tag(w, r, repo, req.reference)
	case req.kind == "blobs":
		c, err := h.store.blob(repo, d)
		if err != nil {
			return faultOf(err, &faultNoBlob)
		}
		w.Header().Set("Cache-Control", "max-age=31536000, immutable")
		w.Header().Set("Content-Type", "application/octet-stream")
		describe(w, c)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(c.data)) // ranges, If-None-Match
	case req.kind == "referrers":
		return h.referrers(w, r, repo, d)
	default:
		return h.tags(w, r, repo)
	}
	return nil
}

func faultOf(err error, unknown *fault) *fault {
	switch {
	case errors.Is(err, errNoRepository):
		return &faultNoName
	case errors.Is(err, errNoContent):
		return unknown
	}
	return &faultStore
}

// tag answers about a tag, after its change if the request says so.
func (h handler) tag(w http.ResponseWriter, r *http.Request, repo repository, tag string) *fault {
	if !tagRE.MatchString(tag) {
		return &faultNoManifest // as the distribution spec's conformance tests want it
	}
	has := matcher(r.Header.Values("If-None-Match"))
	want := func(digest string) bool { return r.Method == http.MethodGet && !has(digest) }
	wait := preferredWait(r.Header.Values("Prefer"))
	var change *change
	if wait > 0 && len(r.Header.Values("If-None-Match")) > 0 {
		var ok bool
		if change, ok = h.store.waiters.join(repo.key); ok {
			defer h.store.waiters.leave(repo.key, change)
			w.Header().Set("Preference-Applied", "wait="+strconv.Itoa(int(wait/time.Second)))
		}
	}
	c, err := h.store.tag(repo, tag, want)
	if err == nil && change != nil && has(c.digest) {
		change.wait(r.Context(), wait)
		c, err = h.store.tag(repo, tag, want)
	}
	if err != nil {
		w.Header().Del("Preference-Applied")
		return faultOf(err, &faultNoManifest)
	}
	w.Header().Set("Cache-Control", "no-cache")
	sendManifest(w, r, c)
	return nil
}

// preferredWait returns the wait of a Prefer header (RFC 7240), at most MaxWait; 0: none.
func preferredWait(values []string) time.Duration {
	for _, v := range values {
		for p := range strings.SplitSeq(v, ",") {
			p, _, _ = strings.Cut(p, ";")
			name, value, ok := strings.Cut(p, "=")
			if !ok || !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			n, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 32)
			if err != nil {
				return 0
			}
			return min(time.Duration(n)*time.Second, MaxWait) // the first one counts
		}
	}
	return 0
}

// matcher returns whether an entity tag with the digest is in If-None-Match (RFC 9110, weakly).
func matcher(values []string) func(digest string) bool {
	return func(digest string) bool {
		for _, v := range values {
			for t := range strings.SplitSeq(v, ",") {
				t = strings.TrimPrefix(strings.TrimSpace(t), "W/")
				if t == "*" || strings.Trim(t, `"`) == digest {
					return true
				}
			}
		}
		return false
	}
}

// describe sets the headers that name content.
func describe(w http.ResponseWriter, c content) {
	h := w.Header()
	h.Set("Docker-Content-Digest", c.digest)
	h.Set("Etag", `"`+c.digest+`"`)
	h.Set("X-Content-Type-Options", "nosniff")
}

func sendManifest(w http.ResponseWriter, r *http.Request, c content) {
	describe(w, c)
	if matcher(r.Header.Values("If-None-Match"))(c.digest) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", nodestate.MediaTypeManifest)
	w.Header().Set("Content-Length", strconv.Itoa(c.size))
	if r.Method == http.MethodGet {
		w.Write(c.data)
	}
}

func (h handler) referrers(w http.ResponseWriter, r *http.Request, repo repository, d digest) *fault {
	list, err := h.store.referrers(repo, d)
	if err != nil {
		return faultOf(err, &faultNoManifest)
	}
	if filter := r.URL.Query().Get("artifactType"); filter != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
		kept := list[:0]
		for _, l := range list {
			if l.ArtifactType == filter {
				kept = append(kept, l)
			}
		}
		list = kept
	}
	sendJSON(w, r, mediaTypeIndex, map[string]any{"schemaVersion": 2, "mediaType": mediaTypeIndex, "manifests": list})
	return nil
}

func (h handler) tags(w http.ResponseWriter, r *http.Request, repo repository) *fault {
	tags, err := h.store.tags(repo)
	if err != nil {
		return faultOf(err, &faultNoName)
	}
	q := r.URL.Query()
	if last := q.Get("last"); last != "" {
		tags = tags[sort.SearchStrings(tags, last+"\x00"):]
	}
	if q.Has("n") {
		n, err := strconv.ParseUint(q.Get("n"), 10, 31)
		if err != nil {
			return &faultPages
		}
		if int(n) < len(tags) {
			tags = tags[:n]
			if n > 0 {
				w.Header().Set("Link", fmt.Sprintf(`</v2/%s/tags/list?n=%d&last=%s>; rel="next"`, repo.name, n, url.QueryEscape(tags[n-1])))
			}
		}
	}
	sendJSON(w, r, "application/json", map[string]any{"name": repo.name, "tags": tags})
	return nil
}

func sendJSON(w http.ResponseWriter, r *http.Request, mediaType string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		faultStore.write(w)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	if r.Method == http.MethodGet {
		w.Write(b)
	}
}
