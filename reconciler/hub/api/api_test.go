package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"selvedge/reconciler/access"
	"selvedge/reconciler/hub/ops/opstest"
	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
)

// TestEveryRoute calls each route in every way that must not work, and then as root.
func TestEveryRoute(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	node := w.Join(t, "mu-1")
	bad := map[string]func(*http.Request){
		"no token":           func(r *http.Request) { r.Header.Del("Authorization") },
		"an unknown token":   func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+opstest.Token("guess")) },
		"an expired token":   func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+opstest.Token("expired")) },
		"another scheme":     func(r *http.Request) { r.Header.Set("Authorization", "Basic "+opstest.Token("root")) },
		"a token without it": func(r *http.Request) { r.Header.Set("Authorization", opstest.Token("root")) },
		"two headers":        func(r *http.Request) { r.Header.Add("Authorization", "Bearer "+opstest.Token("nobody")) },
		"a cookie": func(r *http.Request) {
			r.Header.Del("Authorization")
			r.AddCookie(&http.Cookie{Name: "token", Value: opstest.Token("root")})
			r.AddCookie(&http.Cookie{Name: "Authorization", Value: opstest.Token("root")})
		},
		"a parameter": func(r *http.Request) {
			r.Header.Del("Authorization")
			r.URL.RawQuery = "access_token=" + opstest.Token("root") + "&" + r.URL.RawQuery
		},
		"a login in the URL": func(r *http.Request) { r.Header.Del("Authorization"); r.SetBasicAuth("root", opstest.Token("root")) },
	}
	for _, rt := range routes() {
		path, body := example(rt)
		for what, spoil := range bad {
			r := w.request(t, "root", rt.method, path, body)
			spoil(r)
			a := w.do(t, r)
			if rt.public {
				if a.StatusCode != 200 && what != "a parameter" {
					t.Errorf("%s with %s: %d", rt.id, what, a.StatusCode)
				}
				continue
			}
			if guess := a.StatusCode == http.StatusTooManyRequests && strings.HasSuffix(what, "token"); a.StatusCode != http.StatusUnauthorized && !guess {
				t.Errorf("%s with %s: %d %s", rt.id, what, a.StatusCode, a.body)
			} else if !guess && !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), `Bearer realm="selvedge"`) {
				t.Errorf("%s with %s: WWW-Authenticate %q", rt.id, what, a.Header.Get("WWW-Authenticate"))
			}
		}
		if a := w.do(t, w.request(t, "nobody", rt.method, path, body)); !rt.public && rt.id != "whoami" && rt.id != "exec" && a.StatusCode != http.StatusForbidden {
			t.Errorf("%s without a role: %d %s", rt.id, a.StatusCode, a.body)
		}
	}
	if asked := node.Requests(); len(asked) > 0 {
		t.Fatalf("the node was asked: %q", asked)
	}
	for _, rt := range routes() {
		if rt.id == "watch" {
			continue // has no end: TestWatch
		}
		path, body := example(rt)
		a := w.do(t, w.request(t, "root", rt.method, path, body))
		want := map[string]int{"restart": 204, "dropPending": 404, "exec": 426}[rt.id]
		if want == 0 {
			want = 200
		}
		if a.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", rt.id, a.StatusCode, a.body, want)
		}
		// HEAD goes with GET
		if rt.method == "GET" && rt.stream == nil {
			if h := w.do(t, w.request(t, "root", "HEAD", path, "")); h.StatusCode != 200 || len(h.body) > 0 || h.Header.Get("ETag") == "" && rt.id != "audit" {
				t.Errorf("HEAD %s: %d, %d bytes, %v", path, h.StatusCode, len(h.body), h.Header)
			}
		}
	}
}

// TestRefused asks for what there is not, and asks wrongly.
func TestRefused(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/nope", "", 404, "openapi.json"},
		{"GET", "", "", 404, ""},
		{"GET", "/nodes/", "", 404, ""},
		{"GET", "//nodes", "", 404, ""},
		{"GET", "/nodes/../whoami", "", 404, ""},
		{"GET", "/nodes/%2e%2e/whoami", "", 404, ""},
		{"GET", "/nodes/mu-1%2Fevents", "", 404, "no node"},
		{"POST", "/nodes", "{}", 405, "GET, HEAD"},
		{"GET", "/join-tokens", "", 405, "POST"},
		{"PATCH", "/pending/x", "", 405, "DELETE"},
		{"TRACE", "/whoami", "", 405, ""},
		{"GET", "/nodes?colour=red", "", 400, `unknown parameter "colour"; known are: labels, workspace`},
		{"GET", "/whoami?x=1", "", 400, "takes none"},
		{"GET", "/nodes?limit=0", "", 400, "from 1 to 1000"},
		{"GET", "/nodes?limit=1001", "", 400, ""},
		{"GET", "/nodes?limit=ten", "", 400, ""},
		{"GET", "/nodes?limit=1&limit=2", "", 400, "given 2 times"},
		{"GET", "/nodes?status=Happy", "", 400, "Ready, NotReady, Unknown, Waiting"},
		{"GET", "/nodes?sort=colour", "", 400, "lastSeen"},
		{"GET", "/nodes?labels=a%20b%20c", "", 400, ""},
		{"GET", "/nodes?continue=@@@", "", 400, ""},
		{"GET", "/nodes?q=" + strings.Repeat("x", 2000), "", 400, "more than 1024"},
		{"GET", "/nodes?%zz", "", 400, ""},
		{"GET", "/nodes?a=1;b=2", "", 400, ""},
		{"GET", "/events?since=yesterday", "", 400, "a duration before now"},
		{"GET", "/events?since=-5m", "", 400, ""},
		{"GET", "/events?severity=loud", "", 400, ""},
		{"GET", "/nodes/mu-1/logs?tail=x&app=web", "", 400, ""},
		{"GET", "/nodes/mu-1/logs?follow=yes&app=web", "", 400, "true or false"},
		{"GET", "/nodes/mu-1/logs", "", 400, "name an app"},
		{"GET", "/nodes/mu-1/exec?app=web", "", 400, "command is missing"},
		{"GET", "/nodes/mu-1/exec?app=web&command=id", "", 426, "WebSocket"},
		{"GET", "/changes/ffff", "", 404, ""},
		{"GET", "/guides?continue=x", "", 400, ""},
		{"GET", "/audit?continue=-1", "", 400, ""},
		{"GET", "/apps?sort=cpu", "", 400, "want one of name"},
		{"GET", "/instances?sort=lastSeen", "", 400, "restarts"},
		{"GET", "/watch?sort=name", "", 400, `unknown parameter "sort"`},
		{"POST", "/join-tokens", `{"guide":"box","colour":1}`, 400, `unknown member "colour"; known are: guide, ttl, count`},
		{"POST", "/join-tokens", `{"GUIDE":"box"}`, 400, `unknown member "GUIDE"`},
		{"POST", "/join-tokens", `{"guide":"box"} {}`, 400, "no JSON"},
		{"POST", "/join-tokens", `{"guide":"box"}}`, 400, "no JSON"},
		{"POST", "/join-tokens", `{"guide":"box"} ]`, 400, "no JSON"},
		{"POST", "/join-tokens", `{"guide":7}`, 400, "the member guide: want a string, and not a number"},
		{"POST", "/join-tokens", `{"guide":"box","count":"two"}`, 400, "the member count: want a whole number, and not a string"},
		{"POST", "/join-tokens", `[`, 400, "no JSON"},
		{"POST", "/join-tokens", `[1]`, 400, "no JSON object"},
		{"POST", "/join-tokens", `null`, 400, "no JSON object"},
		{"POST", "/join-tokens", `{"guide":"nope"}`, 404, "accessGuide"},
		{"POST", "/join-tokens", `{"guide":"` + strings.Repeat("x", 70<<10) + `"}`, 413, ""},
		{"POST", "/nodes/mu-1/restart", `{}`, 400, "name the app"},
		{"HEAD", "/watch", "", 405, ""},
		{"HEAD", "/nodes/mu-1/logs?app=web", "", 405, ""},
	} {
		r := w.request(t, "root", c.method, c.path, c.body)
		a := w.do(t, r)
		if a.StatusCode != c.status || !strings.Contains(string(a.body)+a.Header.Get("Allow"), strings.ReplaceAll(c.says, `"`, `\"`)) {
			t.Errorf("%s %.100s: %d %s, want %d %q", c.method, c.path, a.StatusCode, a.body, c.status, c.says)
		}
		if c.status == 405 && a.Header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
	}
	r := w.request(t, "root", "POST", "/join-tokens", `{"guide":"box"}`)
	r.Header.Set("Content-Type", "text/plain") // what a form of another origin may send
	if a := w.do(t, r); a.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("a form's body: %d", a.StatusCode)
	}
}

// TestRefusalHeaders holds what the headers of a refusal tell a program.
func TestRefusalHeaders(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	if a := w.do(t, w.request(t, "root", "POST", "/watch", "")); a.Header.Get("Allow") != "GET" { // a stream has no head
		t.Errorf("%d, Allow %q", a.StatusCode, a.Header.Get("Allow"))
	}
	res := w.open(t, &http.Client{Transport: w.http1()}, w.request(t, "root", "GET", "/nodes/mu-1/exec?app=web&command=id", ""))
	if res.StatusCode != http.StatusUpgradeRequired || res.Header.Get("Upgrade") != "websocket" || res.Header.Get("Connection") != "Upgrade" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
}

func TestETag(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	a := w.get(t, "root", "/guides")
	tag := a.Header.Get("ETag")
	if a.Header.Get("Cache-Control") != "private, no-cache" || !slices.Contains(a.Header.Values("Vary"), "Authorization") {
		t.Errorf("%v", a.Header)
	}
	for _, c := range []struct {
		who, match string
		want       int
	}{{"root", tag, 304}, {"root", "W/" + tag, 304}, {"root", `"x", ` + tag, 304}, {"root", "*", 304}, {"root", `"x"`, 200}, {"berlin", tag, 200}} {
		r := w.request(t, c.who, "GET", "/guides", "")
		r.Header.Set("If-None-Match", c.match)
		if a := w.do(t, r); a.StatusCode != c.want {
			t.Errorf("%s, %s: %d, want %d", c.who, c.match, a.StatusCode, c.want)
		}
	}
	for path, want := range map[string]string{"/audit": "no-store", "/whoami": "private, no-cache"} {
		if a := w.get(t, "root", path); a.Header.Get("Cache-Control") != want {
			t.Errorf("%s: %v", path, a.Header)
		}
	}
}

func TestPages(t *testing.T) {
	w := newWorld(t, opstest.Config{Nodes: func() map[string]roster.Node {
		all := opstest.Nodes()
		for i := range 25 {
			all[fmt.Sprintf("mu-x%02d", i)] = all["mu-1"]
		}
		return all
	}()})
	w.ChangeFleet(t, func(f *roster.Fleet) {
		for i := range 7 {
			g := f.Guides["folders/munich/line-1/box"]
			g.Name = fmt.Sprint("more-", i)
			f.Guides[g.Scope+"/"+g.Name] = g
		}
	})
	for path, want := range map[string]int{"/nodes?limit=4&workspace=folders/munich/line-1": 28, "/guides?limit=2": 9, "/apps?limit=1": 2, "/events?limit=3": -1} {
		var names []string
		sep := "&"
		for next := ""; ; {
			var l hubapi.List[map[string]any]
			p := path
			if next != "" {
				p += sep + "continue=" + next
			}
			a := w.get(t, "root", p)
			if err := json.Unmarshal(a.body, &l); err != nil || a.StatusCode != 200 {
				t.Fatalf("%s: %d %s", p, a.StatusCode, a.body)
			}
			for _, i := range l.Items {
				names = append(names, fmt.Sprint(i["workspace"], i["scope"], i["name"], i["id"]))
			}
			if next = l.Continue; next == "" {
				break
			}
		}
		if slices.Sort(names); want >= 0 && len(names) != want || len(slices.Compact(slices.Clone(names))) != len(names) {
			t.Errorf("%s: %d items %v, want %d", path, len(names), names, want)
		}
	}
}

// TestPageOfChanging takes an item away between two pages: none of the others is left out.
func TestPageOfChanging(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	guide := func(n int) string { return fmt.Sprint("folders/munich/line-1/more-", n) }
	w.ChangeFleet(t, func(f *roster.Fleet) {
		for i := range 6 {
			g := f.Guides["folders/munich/line-1/box"]
			g.Name = fmt.Sprint("more-", i)
			f.Guides[guide(i)] = g
		}
	})
	var names []string
	for next := ""; ; {
		var l hubapi.List[hubapi.Guide]
		a := w.get(t, "editor", "/guides?limit=3&continue="+next)
		if err := json.Unmarshal(a.body, &l); err != nil {
			t.Fatal(err)
		}
		for _, g := range l.Items {
			names = append(names, g.Name)
		}
		if next = l.Continue; next == "" {
			break
		}
		w.ChangeFleet(t, func(f *roster.Fleet) { delete(f.Guides, guide(0)); delete(f.Guides, guide(1)) })
	}
	if got := strings.Join(names, " "); got != "box more-0 more-1 more-2 more-3 more-4 more-5" {
		t.Error(got)
	}
}

// TestFilters holds that each parameter reaches what it is for.
func TestFilters(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	w.Join(t, "mu-1")
	w.Join(t, "be-1")
	for path, want := range map[string]string{
		"/nodes": "be-1 mu-1 mu-2 mu-3", "/nodes?labels=line%3D2": "be-1", "/nodes?folder=folders/munich": "mu-1 mu-2 mu-3",
		"/nodes?workspace=folders/berlin/line-2": "be-1", "/nodes?status=Waiting": "mu-3", "/nodes?status=Waiting&status=Ready": "be-1 mu-1 mu-3",
		"/nodes?app=nope": "", "/nodes?q=MU-1": "mu-1", "/nodes?sort=-name&limit=2": "mu-3 mu-2", "/nodes?condition=Behind": "",
	} {
		var l hubapi.List[hubapi.Node]
		a := w.get(t, "root", path)
		if err := json.Unmarshal(a.body, &l); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, n := range l.Items {
			names = append(names, n.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	for path, want := range map[string]string{
		"/nodes/mu-1/events": "mu-1 has started", "/events?node=be-1": "be-1 has started", "/events?since=1h&severity=info&q=mu-1": "mu-1 has started",
		"/nodes/mu-1": `"hostname":"mu-1"`, "/nodes/mu-1/metrics?since=10m": `"node":[`, "/instances?app=web&workspace=folders/berlin/line-2": "be-1", "/summary": `"nodes":4`,
		"/changes": strings.Repeat("1", 40), "/changes/11111111": "secret words", "/whoami": `"subject":"user:root"`,
	} {
		if a := w.get(t, "root", path); a.StatusCode != 200 || !strings.Contains(string(a.body), want) {
			t.Errorf("%s: %d %s, want %s", path, a.StatusCode, a.body, want)
		}
	}
}

func TestNotLoaded(t *testing.T) {
	w := opstest.New(t, opstest.Config{})
	a, err := New(Config{Ops: w.Unstarted()})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewTLSServer(a)
	defer s.Close()
	r, err := http.NewRequest("GET", s.URL+Base+"/whoami", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+opstest.Token("root"))
	res, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("a hub that knows no roster answers %d: that is not the caller's fault", res.StatusCode)
	}
}

// TestRevoked holds that a token works for no request after the commit that takes it away.
func TestRevoked(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	if a := w.get(t, "viewer", "/nodes"); a.StatusCode != 200 {
		t.Fatal(a.StatusCode)
	}
	w.ChangeFleet(t, func(f *roster.Fleet) {
		f.Identities["viewer"].Tokens["laptop"] = roster.Token{Hash: access.Hash("x"), Expires: time.Now().Add(time.Hour)}
	})
	if a := w.get(t, "viewer", "/nodes"); a.StatusCode != 401 {
		t.Error(a.StatusCode)
	}
}

func FuzzQuery(f *testing.F) {
	f.Add("limit=5&labels=a=b&status=Ready&tail=-1&since=5m&command=x")
	f.Add("%zz;&&=")
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.RawQuery = query
		for _, rt := range routes() {
			v, err := parse(rt.params, r)
			if err != nil {
				continue
			}
			x := &exchange{q: v}
			if q := x.query(); q.Limit < 0 || q.Limit > 1000 || len(q.Search) > maxText {
				t.Fatalf("%+v", q)
			}
			x.eventQuery()
		}
	})
}
