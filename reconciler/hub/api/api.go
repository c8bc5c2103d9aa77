package api

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"selvedge/reconciler/hub/ops"
	"selvedge/schema/hubapi"
)

// Config configures the API.
type Config struct {
	Ops *ops.Ops
	// Origins are hosts besides the hub's own whose pages may open a WebSocket, as host[:port].
	Origins []string
	Log     *slog.Logger // nil: slog.Default()
}

// API serves Base and all below it.
type API struct {
	c      Config
	mux    *http.ServeMux
	routes []route
	doc    []byte

	beat, silence time.Duration // of commands
}

// New returns the API's handler.
func New(c Config) (*API, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	doc, err := OpenAPI()
	if err != nil {
		return nil, err
	}
	a := &API{c: c, mux: http.NewServeMux(), routes: routes(), doc: doc, beat: heartbeat, silence: silence}
	for i := range a.routes {
		rt := &a.routes[i]
		a.mux.HandleFunc(rt.method+" "+Base+rt.pattern, func(w http.ResponseWriter, r *http.Request) { a.serve(rt, w, r) })
	}
	return a, nil
}

// exchange is a request on its way through.
type exchange struct {
	*API
	r      *http.Request
	caller ops.Caller
	q      values
	body   any // a pointer to a value of the route's body
	id     string
}

// ServeHTTP answers a request below Base.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var raw [8]byte
	_, _ = rand.Read(raw[:]) // never fails
	id := hex.EncodeToString(raw[:])
	h := w.Header()
	h.Set("X-Request-Id", id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Authorization")
	r.Header.Set("X-Request-Id", id) // in place of what a stranger may have sent
	if _, pattern := a.mux.Handler(r); pattern == "" || path.Clean(r.URL.Path) != r.URL.Path {
		a.fail(w, r, a.nowhere(w, r))
		return
	}
	a.mux.ServeHTTP(w, r)
}

// nowhere says that there is no such path, or not with this method.
func (a *API) nowhere(w http.ResponseWriter, r *http.Request) error {
	var allow []string
	if path.Clean(r.URL.Path) == r.URL.Path {
		for _, m := range []string{"GET", "HEAD", "POST", "DELETE"} {
			try := r.Clone(r.Context())
			try.Method = m
			_, pattern := a.mux.Handler(try)
			if pattern != "" && (m != http.MethodHead || !a.streams(pattern)) {
				allow = append(allow, m)
			}
		}
	}
	if len(allow) == 0 {
		return &hubapi.Problem{Title: "not found", Status: http.StatusNotFound, Reason: hubapi.ReasonNotFound,
			Detail: "the API has no such path; " + Base + "/openapi.json describes those that there are"}
	}
	w.Header().Set("Allow", strings.Join(allow, ", "))
	return &hubapi.Problem{Title: "method not allowed", Status: http.StatusMethodNotAllowed, Reason: hubapi.ReasonInvalid,
		Detail: fmt.Sprintf("this path takes %s", strings.Join(allow, ", "))}
}

// streams reports whether a pattern of the mux is of a stream, which has no head to ask for.
func (a *API) streams(pattern string) bool {
	return slices.ContainsFunc(a.routes, func(rt route) bool { return rt.stream != nil && rt.method+" "+Base+rt.pattern == pattern })
}

// serve runs a route: who asks, what for, and only then the operation.
func (a *API) serve(rt *route, w http.ResponseWriter, r *http.Request) {
	x := &exchange{API: a, r: r, id: r.Header.Get("X-Request-Id")}
	if err := x.prepare(rt, w); err != nil {
		a.fail(w, r, err)
		return
	}
	if rt.stream != nil {
		if r.Method == http.MethodHead {
			w.Header().Set("Allow", http.MethodGet)
			a.fail(w, r, &hubapi.Problem{Title: "method not allowed", Status: http.StatusMethodNotAllowed, Reason: hubapi.ReasonInvalid, Detail: "a stream has no head to ask for; use GET"})
			return
		}
		if err := rt.stream(x, w); err != nil {
			a.fail(w, r, err)
		}
		return
	}
	answer, err := rt.give(x)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.c.Log.Debug("request", "id", x.id, "operation", rt.id, "subject", x.caller.Subject.String(), "remote", r.RemoteAddr)
	if answer == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	body, ok := answer.([]byte)
	if !ok {
		if body, err = json.Marshal(answer); err != nil {
			a.fail(w, r, err)
			return
		}
	}
	h := w.Header()
	h.Set("Content-Type", mediaJSON)
	if rt.tagged() {
		tag := etag(body)
		h.Set("ETag", tag)
		h.Set("Cache-Control", "private, no-cache") // keep it, and ask each time whether it holds
		if matches(r.Header.Values("If-None-Match"), tag) {
			h.Del("Content-Type")
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the caller left
}

// prepare signs the caller in, then reads parameters and body.
func (x *exchange) prepare(rt *route, w http.ResponseWriter) (err error) {
	if !rt.public {
		if x.caller, err = x.authenticate(w); err != nil {
			return err
		}
		x.caller.Request = x.id
	}
	if x.q, err = parse(rt.params, x.r); err != nil {
		return err
	}
	if rt.body != nil {
		v := reflect.New(reflect.TypeOf(rt.body))
		if err := decode(w, x.r, v.Interface()); err != nil {
			return err
		}
		x.body = v.Interface()
	}
	return nil
}

// authenticate takes the token from the Authorization header, and from nowhere else: what a
// browser sends by itself must not act for anybody.
func (x *exchange) authenticate(w http.ResponseWriter) (ops.Caller, error) {
	const challenge = `Bearer realm="selvedge"`
	got := x.r.Header.Values("Authorization")
	scheme, token := "", ""
	if len(got) == 1 {
		scheme, token, _ = strings.Cut(got[0], " ")
	}
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		w.Header().Set("WWW-Authenticate", challenge)
		return ops.Caller{}, &hubapi.Problem{Title: "not signed in", Status: http.StatusUnauthorized, Reason: hubapi.ReasonUnauthorized,
			Detail: "send an API token in the header Authorization: Bearer TOKEN; selvedge token create makes one"}
	}
	c, err := x.c.Ops.Authenticate(strings.TrimSpace(token), x.r.RemoteAddr)
	if p, ok := errors.AsType[*hubapi.Problem](err); ok && p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", challenge+`, error="invalid_token"`)
	}
	return c, err
}

// fail answers with a problem. What is not one is the hub's own fault: the caller learns an
// ID, the log learns the rest. It always answers: a request's context also ends when the hub
// stops, and who is still there would take silence for success.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	id := r.Header.Get("X-Request-Id")
	p, ok := errors.AsType[*hubapi.Problem](err)
	switch {
	case !ok && r.Context().Err() != nil:
		a.c.Log.Debug("the caller left, or the hub stops", "id", id, "path", r.URL.Path, "error", err)
		p = &hubapi.Problem{Title: "the hub is stopping", Status: http.StatusServiceUnavailable, Reason: hubapi.ReasonUnavailable,
			Detail: "the hub stops and did not finish this; ask again soon"}
	case !ok:
		a.c.Log.Error("a request failed", "id", id, "method", r.Method, "path", r.URL.Path, "error", err)
		p = &hubapi.Problem{Title: "internal error", Status: http.StatusInternalServerError, Reason: hubapi.ReasonUnavailable,
			Detail: "the hub could not do it; its log has the cause under request " + id}
	default:
		a.c.Log.Debug("request refused", "id", id, "method", r.Method, "path", r.URL.Path, "status", p.Status, "detail", p.Detail, "remote", r.RemoteAddr)
	}
	q := *p
	q.Instance = "urn:selvedge:request:" + id
	if q.Status == http.StatusTooManyRequests || q.Status == http.StatusServiceUnavailable && q.Reason == hubapi.ReasonUnavailable {
		w.Header().Set("Retry-After", "5")
	}
	body, err := json.Marshal(&q)
	if err != nil {
		a.c.Log.Error("a problem cannot be told", "id", id, "error", err)
	}
	h := w.Header()
	h.Set("Content-Type", hubapi.MediaTypeProblem)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(q.Status)
	_, _ = w.Write(body) // the caller left
}

func etag(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + hex.EncodeToString(sum[:16]) + `"`
}

// matches reports whether If-None-Match names the tag (RFC 9110, 13.1.2).
func matches(headers []string, tag string) bool {
	for _, h := range headers {
		if slices.ContainsFunc(strings.Split(h, ","), func(s string) bool {
			s = strings.TrimSpace(s)
			return s == "*" || strings.TrimPrefix(s, "W/") == tag
		}) {
			return true
		}
	}
	return false
}
