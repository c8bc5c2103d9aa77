package hub

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

func good(t *testing.T) Config {
	dir := t.TempDir()
	return Config{DataDir: filepath.Join(dir, "hub"), Listen: "127.0.0.1:0", URLs: []string{"https://Hub.Example:8443/"}, Reconciler: "unix:" + filepath.Join(dir, "hub.sock"),
		Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

func TestWrongSettings(t *testing.T) {
	for what, change := range map[string]func(*Config){
		"no URL":                    func(c *Config) { c.URLs = nil },
		"http":                      func(c *Config) { c.URLs = []string{"http://hub.example"} },
		"a path":                    func(c *Config) { c.URLs = []string{"https://hub.example/x"} },
		"a user":                    func(c *Config) { c.URLs = []string{"https://a@hub.example"} },
		"no host":                   func(c *Config) { c.URLs = []string{"https://:8443"} },
		"no reconciler":             func(c *Config) { c.Reconciler = "" },
		"a relative socket":         func(c *Config) { c.Reconciler = "unix:hub.sock" },
		"https without certificate": func(c *Config) { c.Reconciler = "https://reconciler.example" },
		"half a pair":               func(c *Config) { c.CertFile = "x" },
		"listen":                    func(c *Config) { c.Listen = "nonsense" },
		"metrics for all":           func(c *Config) { c.Metrics = "0.0.0.0:0" },
		"bus":                       func(c *Config) { c.BusServers = []string{"tls://nats.example:4222"} },
		"fewer than no connections": func(c *Config) { c.MaxConnsPerSource = -1 },
		"fewer than no requests":    func(c *Config) { c.AuthRate = -1 },
		"states":                    func(c *Config) { c.States = &States{URL: "http://registry.example"} },
	} {
		c := good(t)
		change(&c)
		h, err := New(c)
		if !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", what, err)
		}
		if h != nil {
			t.Errorf("%s: a hub, that nobody will close", what)
		}
	}
}

// TestFailedNewGivesBack fails late, and needs files and port to be free again.
func TestFailedNewGivesBack(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := good(t)
	c.Listen = free.Addr().String()
	free.Close()

	bad := c
	bad.Metrics = taken.Addr().String() // what is opened last
	if h, err := New(bad); err == nil || h != nil || !strings.Contains(err.Error(), "address already in use") {
		t.Fatal(h, err)
	}
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	other := c
	other.Listen = "127.0.0.1:0"
	if second, err := New(other); err == nil || second != nil {
		t.Error("two hubs work in one directory")
	}
	for range 2 {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
	h, err = New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

// TestDamagedFiles needs an error that names the file, not a hub that forgets or hangs.
func TestDamagedFiles(t *testing.T) {
	for _, name := range []string{"bus/keys/bus.json", "cert/ca.pem"} {
		c := good(t)
		h, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		h.Close()
		path := filepath.Join(c.DataDir, name)
		if _, err := os.Stat(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if h, err := New(c); err == nil {
			h.Close()
			t.Errorf("%s: a hub with another key than nodes know", name)
		} else if !strings.Contains(err.Error(), filepath.Base(name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPathsBelowAuth needs problems there, whatever the path: nodes read nothing else.
func TestPathsBelowAuth(t *testing.T) {
	h, err := New(good(t))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	handler, err := h.handler()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/auth//nonce": 404, "/auth/x": 404, "/auth/../auth/nonce": 404, "/auth/token": 405, "/auth/nonce": 200} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if kind := w.Header().Get("Content-Type"); w.Code != want || (kind == hubapi.MediaTypeProblem) != (want != 200) {
			t.Errorf("%s: %d %s", path, w.Code, kind)
		}
	}
}

// TestAuthRate needs the bound on all sources together to be the one that was asked for.
func TestAuthRate(t *testing.T) {
	c := good(t)
	c.AuthRate = 1
	at := time.Now()
	c.Now = func() time.Time { return at }
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	handler, err := h.handler()
	if err != nil {
		t.Fatal(err)
	}
	answered := 0
	for n := range 20 {
		r, w := httptest.NewRequest("GET", wire.PathNonce, nil), httptest.NewRecorder()
		r.RemoteAddr = fmt.Sprintf("192.0.2.%d:1", n)
		if handler.ServeHTTP(w, r); w.Code == http.StatusOK {
			answered++
		}
	}
	if answered != 5 {
		t.Errorf("%d requests were answered at once, want 5", answered)
	}
}

// TestRefusalsAreWritten needs nodes that are refused in the audit log, and counted.
func TestRefusalsAreWritten(t *testing.T) {
	c := good(t)
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	handler, err := h.handler()
	if err != nil {
		t.Fatal(err)
	}
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := key.PublicKey()
	body, _ := json.Marshal(wire.TokenRequest{PublicKey: public, Nonce: "x", Signature: "x"})
	pull := httptest.NewRequest("GET", wire.PathV2, nil)
	pull.Header.Set("Authorization", "Bearer x.y.z")
	for _, r := range []*http.Request{httptest.NewRequest("POST", wire.PathToken, bytes.NewReader(body)), pull} {
		w := httptest.NewRecorder()
		if handler.ServeHTTP(w, r); w.Code != http.StatusUnauthorized {
			t.Errorf("%s: %d", r.URL, w.Code)
		}
	}
	log, err := os.ReadFile(filepath.Join(c.DataDir, auditFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"operation":"token"`, public, `"operation":"pull"`} {
		if !strings.Contains(string(log), want) {
			t.Errorf("the audit log does not tell %s:\n%s", want, log)
		}
	}
	w := httptest.NewRecorder()
	h.measured().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{`selvedge_enrol_refusals_total{request="token"} 1`, `selvedge_registry_requests_total{kind="states",outcome="unauthorized"} 1`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// TestMayStay is a hub that starts without the reconciler. If it is the only one, what it knew
// counts; where others may know better it puts nobody out.
func TestMayStay(t *testing.T) {
	for _, servers := range [][]string{nil, {"nats://127.0.0.1:1", "ws://127.0.0.1:1"}} {
		c := good(t)
		c.BusServers = servers
		h, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if err := os.WriteFile(h.path("roster.json"), []byte(`{"reset":true,"nodes":{"gw-1":{"publicKey":"U1"}}}`+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		h.follow.Load()
		if !h.mayStay("gw-1", "U1") {
			t.Errorf("servers %v: a node that Git lists must go", servers)
		}
		if got := h.mayStay("gw-2", "U2"); got != (servers != nil) {
			t.Errorf("servers %v: a node that was not in Git may stay: %v", servers, got)
		}
	}
}

// TestAPIPaths asks for paths below /api that are not clean: the API answers by itself, and not
// with a redirect and a page.
func TestAPIPaths(t *testing.T) {
	h, err := New(good(t))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	handler, err := h.handler()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/api", "/api/", "/api/v1//nodes", "/api/v1/../v1/nodes", "/api/v2/nodes", "/api/v1/nodes/"} {
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		if rec.Code != http.StatusNotFound || rec.Header().Get("Content-Type") != hubapi.MediaTypeProblem {
			t.Errorf("%s: %d %v", path, rec.Code, rec.Header())
		}
	}
}
