package console

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"selvedge/reconciler/hub/ops"
	"selvedge/reconciler/hub/ops/opstest"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// fill gives a pattern's wildcards values.
func fill(pattern string) string {
	return strings.NewReplacer("{$}", "", "{node}", "mu-1", "{commit}", strings.Repeat("1", 40), "{code}", "AAAA-BBBB", "{hash}", "x", "{file}", "console.js").Replace(pattern)
}

// TestNobody asks every route without a session, with a forged one and with tokens that are none.
func TestNobody(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	good := w.signIn("root")
	other, err := New(Config{Ops: w.Ops, Key: bytes.Repeat([]byte{8}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	bad := map[string]string{
		"none": "", "of another key": other.sealed(opstest.Token("root"), time.Now().Add(time.Hour)), "expired": w.sealed(opstest.Token("root"), time.Now().Add(-time.Second)),
		"of a token that is none": w.sealed(opstest.Token("stranger"), time.Now().Add(time.Hour)), "of an expired token": w.sealed(opstest.Token("expired"), time.Now().Add(time.Hour)),
		"cut": good.Value[:len(good.Value)-2], "turned": good.Value[:40] + "A" + good.Value[41:], "the token itself": opstest.Token("root"), "long": strings.Repeat("A", 4000),
	}
	n := 0
	for _, rt := range routes() {
		if rt.public {
			continue
		}
		paths := []string{fill(rt.pattern)}
		if rt.page != nil {
			paths = append(paths, livePath(paths[0]))
		}
		for _, path := range paths {
			n++
			for what, value := range bad {
				r := httptest.NewRequest(rt.method, "https://hub.example"+path, nil)
				if value != "" {
					r.AddCookie(&http.Cookie{Name: cookie, Value: value})
				}
				a := w.do(r)
				login := a.StatusCode == http.StatusSeeOther && strings.HasPrefix(a.Header.Get("Location"), "/login")
				if !login && a.StatusCode != http.StatusUnauthorized || login && rt.method != "GET" {
					t.Errorf("%s %s with a session that is %s: %d", rt.method, path, what, a.StatusCode)
				}
				for _, secret := range []string{"mu-1</", "Line 1", "berlin"} {
					if strings.Contains(a.body, secret) {
						t.Errorf("%s %s with a session that is %s tells %q", rt.method, path, what, secret)
					}
				}
			}
			for _, header := range []string{"Bearer", "Bearer x", "Basic cm9vdDpyb290", "Bearer " + opstest.Token("expired")} {
				r := httptest.NewRequest(rt.method, "https://hub.example"+path, nil)
				r.Header.Set("Authorization", header)
				r.AddCookie(good) // the header is what counts
				if a := w.do(r); a.StatusCode != http.StatusUnauthorized && a.StatusCode != http.StatusTooManyRequests {
					t.Errorf("%s %s with %q: %d", rt.method, path, header, a.StatusCode)
				}
			}
		}
	}
	if n < 15 {
		t.Errorf("only %d paths were asked", n)
	}
	if a := w.ask("GET", "/no/such/page", "", nil); a.StatusCode != http.StatusSeeOther {
		t.Errorf("a path that there is not: %d", a.StatusCode)
	}
}

func TestSession(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	c := w.signIn("viewer")
	if c.Name != "__Host-selvedge" || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || strings.Contains(c.Value, "viewer") {
		t.Errorf("%+v", c)
	}
	if d := time.Until(c.Expires); d < 300*24*time.Hour || d > 366*24*time.Hour {
		t.Errorf("the session ends in %v, the token in a year", d)
	}
	if again := w.signIn("viewer"); again.Value == c.Value {
		t.Error("two sessions are the same")
	}
	a := w.ask("POST", "/logout", "viewer", url.Values{})
	if len(a.Cookies()) != 1 || a.Cookies()[0].MaxAge >= 0 || a.StatusCode != http.StatusSeeOther {
		t.Errorf("%d %v", a.StatusCode, a.Cookies())
	}
	for who, want := range map[string]string{"nonsense": "no token that Git knows", "expired": "expired"} {
		a := w.ask("POST", "/login", "", url.Values{"token": {opstest.Token(who)}})
		if a.StatusCode != http.StatusUnauthorized || len(a.Cookies()) != 0 || !strings.Contains(a.body, want) {
			t.Errorf("%s: %d %s", who, a.StatusCode, a.body)
		}
	}
	// somebody whom Git gives no role is signed in and told so
	if a := w.ask("GET", "/", "nobody", nil); a.StatusCode != http.StatusForbidden || !strings.Contains(a.body, "roleBinding") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	r := httptest.NewRequest("GET", "https://hub.example/nodes", nil)
	r.Header.Set("Authorization", "Bearer "+opstest.Token("viewer"))
	if a := w.do(r); a.StatusCode != 200 || !strings.Contains(a.body, "mu-1") {
		t.Errorf("by bearer: %d", a.StatusCode)
	}
	w.ChangeFleet(t, func(f *roster.Fleet) { delete(f.Identities, "viewer") })
	r = httptest.NewRequest("GET", "https://hub.example/nodes", nil)
	r.AddCookie(c)
	if a := w.do(r); a.StatusCode != http.StatusSeeOther || a.Header.Get("Location") != "/login?ended=1&next=%2Fnodes" {
		t.Errorf("a revoked token: %d %s", a.StatusCode, a.Header.Get("Location"))
	}
}

func TestGuessing(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	for range 200 {
		if a := w.ask("POST", "/login", "", url.Values{"token": {opstest.Token("guess")}}); a.StatusCode == http.StatusTooManyRequests {
			return
		}
	}
	t.Error("200 wrong tokens from one address, and no end")
}

func TestOtherSites(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	n := w.Join(t, "mu-1")
	for _, rt := range routes() {
		if rt.method != "POST" {
			continue
		}
		for _, h := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"}} {
			if a := w.ask("POST", fill(rt.pattern), "root", url.Values{"app": {"web"}, "token": {opstest.Token("root")}}, h...); a.StatusCode != http.StatusForbidden || len(a.Cookies()) > 0 {
				t.Errorf("%s with %v: %d", rt.pattern, h, a.StatusCode)
			}
		}
	}
	if got := n.Requests(); len(got) > 0 {
		t.Errorf("another site did %q", got)
	}
	// the control: the page itself may
	if a := w.ask("POST", "/nodes/mu-1/restart", "root", url.Values{"app": {"web"}}, "Sec-Fetch-Site", "same-origin", "Hx-Request", "true"); a.StatusCode != 200 || !strings.Contains(a.body, "Restarted") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	// a link from a chat comes without the cookie, and asks again from here
	a := w.ask("GET", "/nodes", "", nil, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
	if a.StatusCode != 200 || !strings.Contains(a.body, `http-equiv="refresh"`) {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

func TestNext(t *testing.T) {
	for to, want := range map[string]string{"/nodes?q=a&status=Ready": "/nodes?q=a&status=Ready", "": "/", "//evil.example": "/", "/\\evil.example": "/", "https://evil.example/": "/", "javascript:alert(1)": "/", "/login?next=/login": "/", "/live/nodes": "/",
		"/\t/evil.example": "/", "nodes": "/", "/" + strings.Repeat("a", 3000): "/"} {
		if got := next(to); got != want {
			t.Errorf("%q: %q, want %q", to, got, want)
		}
	}
}

// TestWhoLooksOn is a viewer: they see, and change nothing, and see nothing of others.
func TestWhoLooksOn(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	n := w.Join(t, "mu-1")
	w.Join(t, "be-1")
	w.report("mu-1", func(*wire.Status) {})
	a := w.ask("GET", "/nodes/mu-1", "viewer", nil)
	if a.StatusCode != 200 || strings.Contains(a.body, "/restart") || strings.Contains(a.body, "/pending") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a := w.ask("GET", "/nodes/mu-1", "editor", nil); !strings.Contains(a.body, "/nodes/mu-1/restart") || !strings.Contains(a.body, `href="/pending"`) {
		t.Error("an editor sees no button")
	}
	for _, path := range []string{"/nodes/mu-1/restart", "/nodes/be-1/restart", "/pending/AAAA-BBBB/reject"} {
		a := w.ask("POST", path, "viewer", url.Values{"app": {"web"}})
		if a.StatusCode != http.StatusForbidden && a.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
		}
	}
	if got := n.Requests(); len(got) > 0 {
		t.Errorf("a viewer did %q", got)
	}
	for _, path := range append([]string{"/nodes?q=be-", "/events?q=be"}, pages...) {
		for _, secret := range []string{"be-1", "berlin"} {
			if a := w.ask("GET", path, "viewer", nil); strings.Contains(strings.ReplaceAll(a.body, "q=be-", ""), secret) {
				t.Errorf("%s tells a viewer of munich %q:\n%s", path, secret, a.body)
			}
		}
	}
	if a := w.ask("GET", "/nodes/be-1", "viewer", nil); a.StatusCode != http.StatusNotFound {
		t.Errorf("%d", a.StatusCode)
	}
	n.Refuse.Store(&wire.Error{Code: wire.CodeFailed, Message: "<b>no</b>"})
	if a := w.ask("POST", "/nodes/mu-1/restart", "editor", url.Values{"app": {"web"}}, "Hx-Request", "true"); a.StatusCode < 400 || !strings.Contains(a.body, "&lt;b&gt;no&lt;/b&gt;") || !strings.Contains(a.body, "notice bad") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// TestHtmx asks as the page's script does: what goes wrong is a notice beside the page, and
// whoever has to sign in comes back to where they were.
func TestHtmx(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	a := w.ask("GET", "/nodes/nowhere", "root", nil, "Hx-Request", "true")
	h := a.Header
	if a.StatusCode != http.StatusNotFound || strings.Contains(a.body, "<html") || !strings.Contains(a.body, "data-notice") || h.Get("Hx-Retarget") != "#notices" || h.Get("Hx-Reswap") != "beforeend" || h.Get("Hx-Push-Url") != "false" {
		t.Errorf("%d %v %s", a.StatusCode, h, a.body)
	}
	for current, want := range map[string]string{"https://hub.example/nodes?q=a": "/login?next=%2Fnodes%3Fq%3Da", "https://hub.example/": "/login", "https://evil.example//evil.example": "/login", "": "/login"} {
		if a := w.ask("GET", "/nodes", "", nil, "Hx-Request", "true", "Hx-Current-Url", current); a.StatusCode != http.StatusUnauthorized || a.Header.Get("Hx-Redirect") != want {
			t.Errorf("%s: %d %s", current, a.StatusCode, a.Header.Get("Hx-Redirect"))
		}
	}
}

func TestPacked(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	css := w.files.path("console.css")
	for _, path := range []string{"/nodes", css} {
		plain := w.ask("GET", path, "root", nil)
		small := w.ask("GET", path, "root", nil, "Accept-Encoding", "br, gzip;q=0.8")
		z, err := gzip.NewReader(strings.NewReader(small.body))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		b, err := io.ReadAll(z)
		if err != nil || string(b) != plain.body || len(small.body) > len(plain.body)/2 {
			t.Errorf("%s: %d bytes of %d, %v", path, len(small.body), len(plain.body), err)
		}
		if a := w.ask("GET", path, "root", nil, "Accept-Encoding", "gzip;q=0, br"); a.body != plain.body {
			t.Errorf("%s is packed for who takes none", path)
		}
	}
	if a := w.ask("GET", css, "", nil); a.StatusCode != 200 || !strings.Contains(a.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("%d %v", a.StatusCode, a.Header)
	}
	if a := w.ask("GET", "/favicon.ico", "", nil); a.StatusCode != 200 || strings.Contains(a.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("an address without a hash, kept for good: %d %v", a.StatusCode, a.Header)
	}
	if a := w.ask("GET", "/assets/"+w.files.hash+"/..%2fconsole.go", "", nil); a.StatusCode != http.StatusNotFound {
		t.Errorf("a file that is none: %d", a.StatusCode)
	}
}

// TestStopping asks while the hub stops, which ends what requests wait for: nothing looks as if
// it had been done.
func TestStopping(t *testing.T) {
	w := newWorld(t, opstest.Config{Ops: func(c *ops.Config) { c.RestartTime = 100 * time.Millisecond }})
	w.Join(t, "mu-1").Silent.Store(true)
	r := httptest.NewRequest("POST", "https://hub.example/nodes/mu-1/restart", strings.NewReader("app=web"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Hx-Request", "true")
	r.AddCookie(w.signIn("root"))
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if a := w.do(r.WithContext(ctx)); a.StatusCode < 500 || !strings.Contains(a.body, "notice bad") {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
}
