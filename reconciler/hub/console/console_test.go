package console

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"selvedge/reconciler/hub/ops"
	"selvedge/reconciler/hub/ops/opstest"
	"selvedge/schema/nodestate"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// world is a console over real services.
type world struct {
	*opstest.World
	*Console
	t   testing.TB
	log *bytes.Buffer
}

func newWorld(t testing.TB, c opstest.Config) *world {
	t.Helper()
	w := &world{World: opstest.New(t, c), t: t, log: &bytes.Buffer{}}
	var err error
	w.Console, err = New(Config{Ops: w.Ops, Key: bytes.Repeat([]byte{7}, 32), Log: slog.New(slog.NewTextHandler(w.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// answer is what came back.
type answer struct {
	*http.Response
	body string
}

// ask sends a request as the holder of a token, by a session; "" sends none.
func (w *world) ask(method, path, who string, form url.Values, headers ...string) answer {
	w.t.Helper()
	r := httptest.NewRequest(method, "https://hub.example"+path, strings.NewReader(form.Encode()))
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if who != "" {
		r.AddCookie(w.signIn(who))
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return w.do(r)
}

func (w *world) do(r *http.Request) answer {
	w.t.Helper()
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, r)
	res := rec.Result()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if strings.Contains(w.log.String(), "level=ERROR") {
		w.t.Errorf("%s %s: %s", r.Method, r.URL, w.log)
		w.log.Reset()
	}
	return answer{res, string(b)}
}

// signIn gets a session for a token's name.
func (w *world) signIn(who string) *http.Cookie {
	w.t.Helper()
	r := httptest.NewRequest("POST", "https://hub.example/login", strings.NewReader(url.Values{"token": {opstest.Token(who)}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	a := w.do(r)
	if len(a.Cookies()) != 1 {
		w.t.Fatalf("%s: no session: %d %s", who, a.StatusCode, a.body)
	}
	return a.Cookies()[0]
}

// pages are all that people look at.
var pages = []string{"/", "/nodes", "/nodes/mu-1", "/nodes/mu-2", "/nodes/mu-3", "/changes", "/changes/" + strings.Repeat("1", 40), "/pending", "/events"}

func TestPages(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	w.Join(t, "mu-1")
	w.Join(t, "be-1")
	for _, path := range pages {
		a := w.ask("GET", path, "root", nil)
		if a.StatusCode != 200 || !strings.Contains(a.body, "</html>") || strings.Contains(a.body, "ZgotmplZ") || strings.Contains(a.body, "%!") {
			t.Errorf("%s: %d\n%s", path, a.StatusCode, a.body)
		}
		if got := a.Header.Get("Content-Security-Policy"); got != csp {
			t.Errorf("%s: CSP %q", path, got)
		}
		for _, bad := range []string{"style=", "<style", "onclick", "onload", "javascript:", "<script>"} {
			if strings.Contains(a.body, bad) {
				t.Errorf("%s holds %s, which the policy forbids", path, bad)
			}
		}
	}
	for path, want := range map[string][]string{
		"/":            {"Example", "Line 1", "berlin&#39;s own problem", "secret words of a commit"},
		"/nodes":       {"mu-1", "mu-3", "be-1", "4 nodes"},
		"/nodes/mu-1":  {"nginx", "Restart", "has started", "Generations"},
		"/nodes?q=be-": {"be-1", "1 node"},
	} {
		a := w.ask("GET", path, "root", nil)
		for _, s := range want {
			if !strings.Contains(a.body, s) {
				t.Errorf("%s lacks %q:\n%s", path, s, a.body)
			}
		}
	}
}

// report lets a node tell something of itself.
func (w *world) report(node string, change func(*wire.Status)) {
	w.t.Helper()
	now := time.Now()
	s := wire.Status{
		Node: node, Epoch: "e2", Seq: uint64(now.UnixNano()), Time: now, Well: true, Remote: nodestate.Remote{Logs: true, Restart: true, Exec: true},
		State: wire.State{Phase: "idle"}, Apps: []wire.App{{Name: "web", Healthy: true, Containers: []wire.Instance{{Name: "nginx", State: "running", Healthy: true}}}},
	}
	change(&s)
	b, err := json.Marshal(s)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Status.Report(node, b)
}

// TestHostileTexts lets a node, a stranger and a commit say what would do harm as HTML.
func TestHostileTexts(t *testing.T) {
	evil := `<script>x()</script><img src=x onerror=x()>"'\x60 javascript:x() ` + "\x1b]0;t\x07\x00\u202e\u2028" + strings.Repeat("W", 4000)
	f := opstest.Fleet()
	f.Platform, f.Error, f.InForce.Subject, f.InForce.Author, f.Seen.Subject = evil, evil, evil, evil, evil
	f.Problems = []roster.Problem{{Severity: evil, Workspace: evil, Text: evil}}
	f.Scopes["folders/munich/line-1"] = roster.Scope{Kind: "workspace", Title: evil}
	nodes := opstest.Nodes()
	n := nodes["mu-1"]
	n.Labels, n.Held = map[string]string{evil: evil}, evil
	nodes["mu-1"] = n
	w := newWorld(t, opstest.Config{Fleet: f, Nodes: nodes})
	w.Join(t, "mu-1")
	w.report("mu-1", func(s *wire.Status) {
		s.Well, s.Why = false, evil
		s.Machine = wire.Machine{Hostname: evil, OS: evil, Kernel: evil, Arch: evil}
		s.Agent = wire.Agent{Version: evil, Runtime: evil}
		s.State.Problem, s.State.Hold, s.State.Rejected = evil, &wire.Hold{Reason: evil}, []wire.Rejected{{Generation: 7, Reason: evil}}
		s.Conditions = []wire.Condition{{Type: evil, Message: evil}}
		s.Apps = []wire.App{{Name: evil, Containers: []wire.Instance{{Name: evil, Image: evil, State: evil, Problem: evil}}}}
	})
	w.Status.Note("mu-1", wire.Event{Severity: evil, Reason: evil, App: evil, Container: evil, Message: evil})
	q := url.QueryEscape(evil[:900])
	for _, path := range append([]string{"/nodes?q=" + q, "/nodes?labels=" + q, "/nodes?workspace=" + q + "&app=" + q + "&condition=" + q + "&status=" + q + "&sort=" + q, "/events?q=" + q + "&severity=" + q,
		"/nodes?continue=" + q + "&from=" + q, "/changes?continue=" + q, "/changes/1111111?state=" + q, "/nodes/" + url.PathEscape(evil[:100]), "/changes/" + url.PathEscape(evil[:100]), "/login?next=" + q}, pages...) {
		a := w.ask("GET", path, "root", nil)
		if a.StatusCode >= 500 || !strings.Contains(a.body, "</html>") && a.StatusCode != http.StatusSeeOther {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
		}
		for _, bad := range []string{"<script>", "<img", "onerror=x()>", `href="javascript`, "\x1b", "\x00", "\x07", "\u202e"} {
			if strings.Contains(strings.ReplaceAll(a.body, "&lt;img src=x onerror=x()&gt;", ""), bad) {
				t.Errorf("%s holds %q", path, bad)
			}
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{"plain – ünï": "plain – ünï", "a\x1b[1mb": "a␛[1mb", "a\u202eb": "a\ufffdb", "\xff": "\ufffd", "a\tb\nc": "a\tb\nc", "\x7f\x00": "␡␀"} {
		if got := clean(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := string(encodeLines([]byte("\x1b[31mred\x1b[0m\x1b]0;title\x07 ok\r\nx</script>"))); got != `"red ok\nx\u003c/script\u003e"` {
		t.Error(got)
	}
	if got := clip(5, "éééééééé"); got != "éééé…" {
		t.Error(got)
	}
}

func FuzzEncodeLines(f *testing.F) {
	f.Add([]byte("\x1b[31mred\x1b[0m\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s string
		if err := json.Unmarshal(encodeLines(b), &s); err != nil {
			t.Fatal(err)
		}
		for _, r := range s {
			if odd(r) {
				t.Fatalf("%q of %q", s, b)
			}
		}
	})
}

func FuzzOpened(f *testing.F) {
	s, err := New(Config{Key: make([]byte, 32)})
	if err != nil {
		f.Fatal(err)
	}
	good := s.sealed("token", time.Now().Add(time.Hour))
	f.Add(good)
	f.Fuzz(func(t *testing.T, text string) {
		if token, ok := s.opened(text); ok && token != "token" {
			t.Fatalf("%q opens as %q", text, token)
		}
	})
}

// TestLive reads a page's stream: all parts, then what changes, then that the token is gone.
func TestLive(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	srv := httptest.NewTLSServer(w.Console)
	defer srv.Close()
	r, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/live/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.AddCookie(w.signIn("root"))
	res, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	in := bufio.NewScanner(res.Body)
	in.Buffer(nil, 1<<20)
	await := func(want string) {
		t.Helper()
		for in.Scan() {
			if strings.Contains(in.Text(), want) {
				return
			}
		}
		t.Fatalf("the stream ended before %q: %v", want, in.Err())
	}
	await("event: totals")
	await("Example")
	w.ChangeFleet(t, func(f *roster.Fleet) { f.Platform = "Renamed" })
	await("Renamed")
	w.ChangeFleet(t, func(f *roster.Fleet) { delete(f.Identities, "root") })
	await("event: signedout")
}

// TestBusy opens more pages than may be live: the next is told so, with what is new.
func TestBusy(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	c, err := w.Ops.Authenticate(opstest.Token("root"), "192.0.2.1:1")
	for n := 0; err == nil; n++ {
		if _, _, err = w.Ops.Watch(t.Context(), c, ops.Query{}); n > 1000 {
			t.Fatal("no end of streams")
		}
	}
	a := w.ask("GET", "/live/nodes", "root", nil, "Accept", "text/event-stream")
	if a.StatusCode != 200 || !strings.Contains(a.body, "event: busy") || !strings.Contains(a.body, "mu-1") || strings.Contains(a.body, "event: beat") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	// a browser would never ask again if the stream of what is gone were a plain 404
	if a := w.ask("GET", "/live/nodes/nowhere", "root", nil, "Accept", "text/event-stream"); a.StatusCode != 200 || !strings.Contains(a.body, "event: reload") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// TestLog reads logs as the page does, and what stands in their way.
func TestLog(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	w.Join(t, "mu-1")
	for _, c := range []struct {
		who, path string
		want      []string
	}{
		{"viewer", "/nodes/mu-1/log?app=web&previous=true", []string{`"line 1\n"`, "the file is damaged"}},
		{"viewer", "/nodes/mu-2/log?app=web", []string{"event: end", "does not grant logs"}},
		{"viewer", "/nodes/be-1/log?app=web", []string{"event: end", "no node"}},
		{"viewer", "/nodes/mu-1/log?app=none", []string{"event: end", "runs no app"}},
	} {
		a := w.ask("GET", c.path, c.who, nil)
		for _, s := range c.want {
			if !strings.Contains(a.body, s) {
				t.Errorf("%s lacks %q:\n%s", c.path, s, a.body)
			}
		}
	}
}

// TestNotGranted is a node whose state, which is not yet that of Git, grants nothing: what is
// missing is named where a person looks for it.
func TestNotGranted(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	if a := w.ask("GET", "/nodes/mu-1", "editor", nil); !strings.Contains(a.body, "has not reported what it runs") {
		t.Error(a.body)
	}
	w.Join(t, "mu-1")
	w.report("mu-1", func(s *wire.Status) { s.Remote = nodestate.Remote{} })
	a := w.ask("GET", "/nodes/mu-1", "editor", nil)
	for _, want := range []string{"The state that it runs does not let the cloud read logs", "The state that it runs does not let the cloud restart apps"} {
		if !strings.Contains(a.body, want) {
			t.Errorf("it lacks %q:\n%s", want, a.body)
		}
	}
	if strings.Contains(a.body, "<select data-log-source>") || strings.Contains(a.body, "data-log-open") {
		t.Error("a log is offered in vain")
	}
}

func TestStarting(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	s, err := New(Config{Ops: w.Unstarted(), Key: bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "https://hub.example/", nil)
	r.AddCookie(w.signIn("root"))
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, r)
	if rec.Code != http.StatusServiceUnavailable || !strings.Contains(rec.Body.String(), `content="3"`) || !strings.Contains(rec.Body.String(), "tries again by itself") {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}
