package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"selvedge/reconciler/hub/ops/opstest"
	"selvedge/schema/hubapi"
)

// world is the API on a real HTTPS server.
type world struct {
	*opstest.World
	api  *API
	http *httptest.Server
	doc  *openapi3.T
}

func newWorld(t testing.TB, c opstest.Config) *world {
	t.Helper()
	w := &world{World: opstest.New(t, c), doc: load(t)}
	a, err := New(Config{Ops: w.Ops, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w.api = a
	w.http = httptest.NewUnstartedServer(a)
	w.http.EnableHTTP2 = true
	w.http.StartTLS()
	t.Cleanup(w.http.Close)
	return w
}

// answer is what came back.
type answer struct {
	*http.Response
	body []byte
}

// problem reads the answer as one.
func (a answer) problem(t testing.TB) hubapi.Problem {
	t.Helper()
	var p hubapi.Problem
	if err := json.Unmarshal(a.body, &p); err != nil || a.Header.Get("Content-Type") != hubapi.MediaTypeProblem || p.Status != a.StatusCode || p.Title == "" || p.Reason == "" {
		t.Errorf("%s %s: %d %s is no problem: %s", a.Request.Method, a.Request.URL, a.StatusCode, a.Header.Get("Content-Type"), a.body)
	}
	return p
}

// request makes a request to a path below Base, as somebody ("" sends no token).
func (w *world) request(t testing.TB, who, method, path, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, w.http.URL+Base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if who != "" {
		r.Header.Set("Authorization", "Bearer "+opstest.Token(who))
	}
	return r
}

// do sends a request and checks its answer against the document.
func (w *world) do(t testing.TB, r *http.Request) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	res, err := w.http.Client().Do(r.WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v after %q", r.Method, r.URL, err, body)
	}
	a := answer{res, body}
	w.check(t, a)
	for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Referrer-Policy": "no-referrer"} {
		if res.Header.Get(name) != want {
			t.Errorf("%s: %s: %q", r.URL, name, res.Header.Get(name))
		}
	}
	if len(res.Header.Get("X-Request-Id")) != 16 || res.Header.Get("Set-Cookie") != "" {
		t.Errorf("%s: headers %v", r.URL, res.Header)
	}
	return a
}

func (w *world) get(t testing.TB, who, path string) answer {
	t.Helper()
	return w.do(t, w.request(t, who, "GET", path, ""))
}

// check holds an answer against the document: its status, type and members.
func (w *world) check(t testing.TB, a answer) {
	t.Helper()
	if a.Request.Method == http.MethodHead {
		return
	}
	path := strings.TrimPrefix(a.Request.URL.Path, Base)
	var op *openapi3.Operation
	for _, rt := range routes() {
		if matchPath(rt.pattern, path) && (op == nil || !strings.Contains(rt.pattern, "{")) && rt.method == a.Request.Method {
			op = w.doc.Paths.Value(rt.pattern).GetOperation(rt.method)
		}
	}
	if a.StatusCode >= 400 {
		a.problem(t)
		w.valid(t, a, w.doc.Components.Schemas["Problem"].Value)
		shared := slices.ContainsFunc(refusals, func(r refusal) bool { return r.status == a.StatusCode })
		if op != nil && shared && op.Responses.Status(a.StatusCode) == nil {
			t.Errorf("%s %s answers %d, which the document has for others only", a.Request.Method, path, a.StatusCode)
		}
		return
	}
	if op == nil {
		t.Errorf("%s %s answers %d and is not in the document", a.Request.Method, path, a.StatusCode)
		return
	}
	res := op.Responses.Status(a.StatusCode)
	if res == nil {
		t.Errorf("%s %s answers %d, which the document has not", a.Request.Method, path, a.StatusCode)
		return
	}
	for name := range res.Value.Headers {
		if _, announced := a.Trailer[name]; a.Header.Get(name) == "" && !announced {
			t.Errorf("%s %s answers without %s, which the document has", a.Request.Method, path, name)
		}
	}
	kind, _, _ := strings.Cut(a.Header.Get("Content-Type"), ";")
	if len(res.Value.Content) == 0 {
		if len(a.body) > 0 || kind != "" {
			t.Errorf("%s %s answers %q of %q, and the document has no content", a.Request.Method, path, a.body, kind)
		}
		return
	}
	content := res.Value.Content[kind]
	if content == nil {
		t.Errorf("%s %s answers with %q, which the document has not", a.Request.Method, path, kind)
		return
	}
	if kind == mediaJSON {
		w.valid(t, a, content.Schema.Value)
	}
}

func (w *world) valid(t testing.TB, a answer, s *openapi3.Schema) {
	t.Helper()
	var v any
	d := json.NewDecoder(bytes.NewReader(a.body))
	if err := d.Decode(&v); err != nil {
		t.Errorf("%s: %v: %s", a.Request.URL, err, a.body)
		return
	}
	if err := s.VisitJSON(v, openapi3.MultiErrors()); err != nil {
		t.Errorf("%s %s: the answer is not as the document says: %v\n%s", a.Request.Method, a.Request.URL, err, a.body)
	}
}

func matchPath(pattern, path string) bool {
	p, q := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(p) != len(q) {
		return false
	}
	for i := range p {
		if p[i] != q[i] && !strings.HasPrefix(p[i], "{") {
			return false
		}
	}
	return true
}

// example is a request to a route that root may make.
func example(rt route) (path, body string) {
	path = strings.NewReplacer("{node}", "mu-1", "{commit}", strings.Repeat("1", 40), "{code}", "AAAA-BBBB").Replace(rt.pattern)
	switch rt.id {
	case "logs":
		path += "?app=web"
	case "exec":
		path += "?app=web&command=id"
	case "restart":
		body = `{"app":"web"}`
	case "joinTokens":
		body = `{"guide":"folders/munich/line-1/box"}`
	}
	return path, body
}
