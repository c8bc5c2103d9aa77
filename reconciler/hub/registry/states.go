package registry

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	stateTime = 2 * time.Minute        // for an answer of the store, its wait for a change included
	waited    = 100 * time.Millisecond // after which an answer is one that waited
)

// What goes through, each way.
var (
	stateAsked    = []string{"Accept", "If-None-Match", "If-Range", "Prefer", "Range"}
	stateAnswered = []string{"Accept-Ranges", "Cache-Control", "Content-Length", "Content-Range", "Content-Type", "Docker-Content-Digest",
		"Etag", "Link", "Oci-Filters-Applied", "Preference-Applied", "Retry-After", "Vary"}
)

// state passes a request for states or trust on to the store.
func (r *Registry) state(w http.ResponseWriter, q *http.Request, name string) *fault {
	ctx, cancel := context.WithTimeout(q.Context(), stateTime)
	defer cancel()
	u := *r.c.Base
	u.Path, u.RawPath, u.RawQuery = strings.TrimRight(u.Path, "/")+q.URL.Path, "", pages(q.URL.Query()).Encode()
	out := &http.Request{Method: q.Method, URL: &u, Host: u.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}}
	for _, k := range stateAsked {
		if v := q.Header.Values(k); len(v) > 0 {
			out.Header[k] = v
		}
	}
	asked := time.Now()
	res, err := r.c.States.RoundTrip(out.WithContext(ctx))
	if err != nil {
		if q.Context().Err() == nil {
			r.seldom.states.Do(func() { r.c.Log.Warn("the store of states does not answer", "error", err) })
		}
		return &faultStates
	}
	defer res.Body.Close()
	if time.Since(asked) > waited { // is it still a node of the fleet?
		again, _, f := r.asks(q)
		if f != nil {
			return f
		}
		if again != name {
			return &faultNobody
		}
	}
	if res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden || res.StatusCode >= 300 && res.StatusCode < 400 && res.StatusCode != http.StatusNotModified {
		r.seldom.states.Do(func() { r.c.Log.Warn("the store of states refuses the hub", "status", res.Status) })
		return &faultStates
	}
	for _, k := range stateAnswered {
		if v := res.Header[k]; len(v) > 0 {
			w.Header()[k] = v
		}
	}
	w.WriteHeader(res.StatusCode)
	pass(w, res.Body)
	return nil
}

// pages keeps what the distribution spec knows of a query.
func pages(q url.Values) url.Values {
	out := url.Values{}
	for _, k := range []string{"n", "last", "artifactType"} {
		if q.Has(k) {
			out.Set(k, q.Get(k))
		}
	}
	return out
}

// pass copies an answer; one that breaks off must not look whole.
func pass(w http.ResponseWriter, body io.Reader) {
	if _, err := io.Copy(w, body); err != nil {
		panic(http.ErrAbortHandler)
	}
}
