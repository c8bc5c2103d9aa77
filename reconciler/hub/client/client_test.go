package client

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"selvedge/schema/hubapi"
)

// serve starts a hub of which only the answers are made up.
func serve(t *testing.T, h http.HandlerFunc) (*httptest.Server, *Client) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv, dial(t, Config{URL: srv.URL, Token: "t", CA: digest(srv)})
}

func digest(srv *httptest.Server) string {
	sum := sha256.Sum256(srv.Certificate().Raw)
	return DigestPrefix + hex.EncodeToString(sum[:])
}

func dial(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func refuse(w http.ResponseWriter, p hubapi.Problem) {
	w.Header().Set("Content-Type", hubapi.MediaTypeProblem)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

func TestTrust(t *testing.T) {
	srv, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	for _, c := range []struct {
		name, ca, host string
		says           string // empty: it is trusted
	}{
		{"pinned", digest(srv), "127.0.0.1", ""},
		{"in PEM", text, "127.0.0.1", ""},
		{"of the system", "", "127.0.0.1", "--ca sha256:"},
		{"another CA", DigestPrefix + strings.Repeat("0", 64), "127.0.0.1", "pinned"},
		{"pinned, another name", digest(srv), "localhost", "the name that the hub's certificate is for"},
		{"in PEM, another name", text, "localhost", "the name that the hub's certificate is for"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := dial(t, Config{URL: strings.Replace(srv.URL, "127.0.0.1", c.host, 1), CA: c.ca})
			_, err := cl.Whoami(t.Context())
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%v, want %q", err, c.says)
			}
			// a resumed connection is checked as the first one is
			if _, again := cl.Whoami(t.Context()); (again == nil) != (err == nil) {
				t.Errorf("first %v, then %v", err, again)
			}
		})
	}
	for _, ca := range []string{"sha256:", "sha256:12", "sha256:" + strings.Repeat("g", 64), "-----BEGIN NOTHING-----", "x"} {
		if _, err := New(Config{URL: srv.URL, CA: ca}); err == nil {
			t.Errorf("CA %q is taken", ca)
		}
	}
	for _, u := range []string{"", "hub", "http://hub", "https://", "https://hub/api", "https://u:p@hub", "https://hub?x=y", "ftp://hub"} {
		if _, err := New(Config{URL: u}); err == nil {
			t.Errorf("URL %q is taken", u)
		}
	}
	if _, err := New(Config{URL: srv.URL, Token: "a\r\nX-Evil: 1"}); err == nil {
		t.Error("a token with an end of a line is taken")
	}
}

// TestRetries asks again what changes nothing, and only while the hub is away.
func TestRetries(t *testing.T) {
	for _, c := range []struct {
		name   string
		method string
		p      hubapi.Problem
		want   int64 // requests
	}{
		{"starting", "GET", hubapi.Problem{Status: 503, Reason: hubapi.ReasonUnavailable}, 3},
		{"too many", "GET", hubapi.Problem{Status: 429}, 3},
		{"offline", "GET", hubapi.Problem{Status: 503, Reason: hubapi.ReasonOffline}, 1},
		{"forbidden", "GET", hubapi.Problem{Status: 403}, 1},
		{"an act", "POST", hubapi.Problem{Status: 503, Reason: hubapi.ReasonUnavailable}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var n atomic.Int64
			srv, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) { n.Add(1); refuse(w, c.p) })
			cl := dial(t, Config{URL: srv.URL, CA: digest(srv), Attempts: 3})
			var err error
			if c.method == "GET" {
				_, err = cl.Summary(t.Context())
			} else {
				err = cl.Restart(t.Context(), "gw-1", hubapi.RestartRequest{App: "web"})
			}
			if err == nil || n.Load() != c.want {
				t.Errorf("%d requests, want %d: %v", n.Load(), c.want, err)
			}
		})
	}
}

// TestHostile takes what a broken or hostile hub answers.
func TestHostile(t *testing.T) {
	var leaked atomic.Bool
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { leaked.Store(r.Header.Get("Authorization") != "") }))
	defer other.Close()
	for name, h := range map[string]http.HandlerFunc{
		"no JSON":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"a redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) },
		"a huge problem": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", hubapi.MediaTypeProblem)
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"detail":"%s"}`, strings.Repeat("x", 1<<20))
		},
		"another type of problem": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "boo", http.StatusTeapot) },
		"an answer without an end": func(w http.ResponseWriter, _ *http.Request) {
			b := []byte(strings.Repeat(" ", 1<<20))
			for {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, c := serve(t, h)
			if _, err := c.Whoami(t.Context()); err == nil || len(err.Error()) > 1000 {
				t.Errorf("%.2000v", err)
			}
		})
	}
	if leaked.Load() {
		t.Error("the token was sent to another server")
	}
}

// TestPages collects the pages of a list, with an empty one in between, and ends when a hub
// gives the same page for ever.
func TestPages(t *testing.T) {
	pages := map[string]string{
		"":  `{"items":[{"name":"a"},{"name":"b"}],"continue":"1","total":3}`,
		"1": `{"items":[],"continue":"2","total":3}`,
		"2": `{"items":[{"name":"c"}],"total":3}`,
	}
	_, c := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, pages[r.URL.Query().Get("continue")]) })
	l, err := c.Nodes(t.Context(), Query{})
	if err != nil || len(l.Items) != 3 || l.Total != 3 {
		t.Errorf("%+v, %v", l, err)
	}
	if l, err = c.Nodes(t.Context(), Query{Limit: 1}); err != nil || len(l.Items) != 1 {
		t.Errorf("one: %+v, %v", l, err)
	}
	_, c = serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"items":[{}],"continue":"x"}`) })
	if l, err = c.Nodes(t.Context(), Query{}); err != nil || len(l.Items) > 2 {
		t.Errorf("the same for ever: %d items, %v", len(l.Items), err)
	}
}

// TestQuery sends what is asked for, and nothing that a hub would not know.
func TestQuery(t *testing.T) {
	var got string
	_, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Method + " " + r.URL.EscapedPath() + "?" + r.URL.RawQuery
		fmt.Fprint(w, `{}`)
	})
	q := Query{Labels: "a=b,c!=d", Status: []hubapi.Readiness{hubapi.Ready, hubapi.Unknown}, Sort: "-cpu", Limit: 5}
	for _, x := range []struct {
		do   func() error
		want string
	}{
		{func() error { _, err := c.Nodes(t.Context(), q); return err }, "GET /api/v1/nodes?labels=a%3Db%2Cc%21%3Dd&limit=5&sort=-cpu&status=Ready&status=Unknown"},
		{func() error { _, err := c.Node(t.Context(), "../x y"); return err }, "GET /api/v1/nodes/..%2Fx%20y?"},
		{func() error { _, err := c.Metrics(t.Context(), "n", time.Unix(0, 0)); return err }, "GET /api/v1/nodes/n/metrics?since=1970-01-01T00%3A00%3A00Z"},
		{func() error { _, err := c.Change(t.Context(), "abc"); return err }, "GET /api/v1/changes/abc?"},
		{func() error { return c.Reject(t.Context(), "A-B") }, "DELETE /api/v1/pending/A-B?"},
		{func() error { _, err := c.Events(t.Context(), EventQuery{Node: "n", Limit: 3}); return err }, "GET /api/v1/nodes/n/events?limit=3"},
	} {
		if err := x.do(); err != nil || got != x.want {
			t.Errorf("got %s, want %s; %v", got, x.want, err)
		}
	}
}

func TestReason(t *testing.T) {
	_, c := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	_, err := c.Node(t.Context(), "x")
	if Reason(err) != hubapi.ReasonNotFound || !strings.Contains(err.Error(), "404") {
		t.Errorf("%v: %s", err, Reason(err))
	}
	if Reason(errors.New("other")) != "" {
		t.Error("a reason of nothing")
	}
}
