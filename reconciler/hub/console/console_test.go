package console

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"selvedge/reconciler/hub/ops/opstest"
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
