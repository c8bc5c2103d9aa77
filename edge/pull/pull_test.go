package pull

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"selvedge/edge/verify"
	"selvedge/edge/verify/verifytest"
	"selvedge/schema/nodestate"
)

// registry answers as a test tells it to.
func registry(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	// answers of these tests may never end by themselves
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s.URL
}

func client(t *testing.T, cfg Config) *Client {
	t.Helper()
	if cfg.Node == "" {
		cfg.Node = "gw-1"
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

type peer struct {
	cloud   *verifytest.Cloud
	desired nodestate.State
	signed  []byte
	u       *nodestate.Unpacked
}

func newPeer(t testing.TB) peer {
	t.Helper()
	p := peer{cloud: verifytest.NewCloud(t)}
	p.desired = verifytest.Fill(nodestate.State{Identity: nodestate.Identity{PublicKey: verifytest.NewKey(t).Public()}})
	p.signed = p.cloud.Sign(t, p.desired, 7)
	u, err := nodestate.Unpack(p.signed)
	if err != nil {
		t.Fatal(err)
	}
	p.u = u
	return p
}

func (p peer) verifies(t *testing.T, signed []byte) {
	t.Helper()
	if _, err := p.cloud.Verifier(p.desired).Verify(signed, verify.Floor{}, nil); err != nil {
		t.Errorf("what was pulled does not verify: %v", err)
	}
}

const signedPath = "/v2/plants/eu/nodes/gw-1/manifests/signed"

func TestNewRefusesBadConfigurationWithoutDialling(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "want https://host"},
		{Config{Registry: "registry.example", Node: "a"}, "want https://host"},
		{Config{Registry: "ftp://registry.example", Node: "a"}, "want https://host"},
		{Config{Registry: "https://user:secret@registry.example", Node: "a"}, "want https://host"},
		{Config{Registry: "https://registry.example/v2", Node: "a"}, "want https://host"},
		{Config{Registry: "http://registry.example", Node: "a"}, "plain HTTP is for loopback only"},
		{Config{Registry: "http://127.0.0.1.example", Node: "a"}, "plain HTTP is for loopback only"},
		{Config{Registry: "https://registry.example", Node: "../a"}, "node"},
		{Config{Registry: "https://registry.example", Node: "a", Prefix: "/x"}, "prefix"},
		{Config{Registry: "https://registry.example", Node: "a", Prefix: "x/../y"}, "prefix"},
	} {
		if _, err := New(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v, want %q", c.cfg, err, c.want)
		}
	}
	for _, ok := range []string{"https://registry.example:5000/", "http://localhost:5000", "http://[::1]:5000", "http://127.0.0.9"} {
		if _, err := New(Config{Registry: ok, Node: "a"}); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	if _, err := New(Config{Registry: "http://registry.example", Node: "a", AllowHTTP: true}); err != nil {
		t.Error(err)
	}
}

func TestOneConditionalRequestAPollAndOneAnUpdate(t *testing.T) {
	p := newPeer(t)
	var requests atomic.Int64
	url := registry(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.URL.Path != signedPath || r.Header.Get("Accept") != nodestate.MediaTypeManifest {
			t.Errorf("%s, accept %q", r.URL.Path, r.Header.Get("Accept"))
		}
		if r.Header.Get("Accept-Encoding") != "" {
			t.Errorf("asks for encoding %q", r.Header.Get("Accept-Encoding"))
		}
		w.Header().Set("Etag", `"one"`)
		if r.Header.Get("If-None-Match") == `"one"` {
			if r.Header.Get("Prefer") != "wait=1" {
				t.Errorf("prefer %q", r.Header.Get("Prefer"))
			}
			w.WriteHeader(http.StatusNotModified)
			return
		}
		if r.Header.Get("Prefer") != "" {
			t.Error("the first request must not wait")
		}
		w.Write(p.signed)
	})
	c := client(t, Config{Registry: url, Prefix: "plants/eu", Wait: time.Second})
	r, err := c.State(t.Context(), "")
	if err != nil || r.NotModified || r.Waited || r.Validator == "" {
		t.Fatalf("%+v, %v", r, err)
	}
	p.verifies(t, r.Signed)
	again, err := c.State(t.Context(), r.Validator)
	if err != nil || !again.NotModified || again.Waited || again.Validator != r.Validator || again.Signed != nil {
		t.Fatalf("%+v, %v", again, err)
	}
	if n := requests.Load(); n != 2 {
		t.Errorf("%d requests", n)
	}
}

// waited decides what costs a busy loop if it is wrong, so it is tried without any clock.
func TestWhoHeldTheRequest(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		header string
		took   time.Duration
		wait   time.Duration
		want   bool
	}{
		{"held to the end", 304, "wait=30", 30 * time.Second, 30 * time.Second, true},
		{"held, without saying so", 304, "", 30 * time.Second, 30 * time.Second, true},
		{"held as long as it said", 304, "wait=10", 10 * time.Second, 30 * time.Second, true},
		{"at once", 304, "", time.Millisecond, 30 * time.Second, false},
		{"at once, saying otherwise", 304, "wait=30", time.Millisecond, 30 * time.Second, false},
		{"at once, saying it need not", 304, "wait=0", time.Millisecond, 30 * time.Second, false},
		{"changed while it was held", 200, "wait=30", time.Second, 30 * time.Second, true},
		{"changed, from another registry", 200, "", time.Millisecond, 30 * time.Second, false},
		{"was not asked to", 304, "wait=30", time.Minute, 0, false},
	} {
		a := &answer{status: c.status, took: c.took, header: http.Header{"Preference-Applied": {c.header}}}
		if got := waited(a, c.wait); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// Every way in which a registry may misbehave ends soon, as the right class, and small.
func TestMisbehaviour(t *testing.T) {
	p := newPeer(t)
	elsewhere := registry(t, func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("followed to another place, with credentials %q", r.Header.Get("Authorization"))
	})
	endless := func(w http.ResponseWriter, r *http.Request, chunk []byte, every time.Duration) {
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			time.Sleep(every)
		}
	}
	redirect := func(to func(r *http.Request) string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, to(r), http.StatusTemporaryRedirect)
		}
	}
	for _, c := range []struct {
		name  string
		class error
		text  string
		h     http.HandlerFunc
	}{
		{"endless body", ErrMalformed, "more than", func(w http.ResponseWriter, r *http.Request) { endless(w, r, make([]byte, 1<<20), 0) }},
		{"huge body, announced", ErrMalformed, "announced", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1099511627776")
			w.Write([]byte("{"))
		}},
		{"slow drip", ErrUnreachable, "bytes a second", func(w http.ResponseWriter, r *http.Request) { endless(w, r, []byte(" "), 20*time.Millisecond) }},
		{"drip above the least rate", ErrUnreachable, "not complete within", func(w http.ResponseWriter, r *http.Request) {
			endless(w, r, make([]byte, 4096), 10*time.Millisecond)
		}},
		{"no answer", ErrUnreachable, "no answer within", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"slow headers", ErrUnreachable, "no answer within", func(w http.ResponseWriter, r *http.Request) {
			conn, buf, _ := w.(http.Hijacker).Hijack()
			defer conn.Close()
			for i := 0; ; i++ {
				if _, err := fmt.Fprintf(conn, "H"); err != nil || buf == nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
		}},
		{"huge header", ErrUnreachable, "", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		}},
		{"broken off", ErrUnreachable, "EOF", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Write([]byte("{"))
		}},
		{"closed", ErrUnreachable, "", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }},
		{"not HTTP", ErrUnreachable, "", func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.Write([]byte("SSH-2.0-OpenSSH\r\n"))
			conn.Close()
		}},
		{"gzip that nobody asked for", ErrMalformed, "content encoding", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(p.signed)
		}},
		{"redirect to another host", ErrMalformed, "redirected to another place", redirect(func(*http.Request) string { return elsewhere })},
		{"redirect to another scheme", ErrMalformed, "redirected to another place", redirect(func(r *http.Request) string { return "https://" + r.Host + "/" })},
		{"redirect to a file", ErrMalformed, "redirected to another place", redirect(func(*http.Request) string { return "file:///etc/passwd" })},
		{"redirect with credentials in it", ErrMalformed, "redirected to another place", redirect(func(r *http.Request) string {
			return "http://" + strings.Replace(r.Host, ":", ".", 1) + "@registry.example/"
		})},
		{"redirects without end", ErrMalformed, "more than 3 redirects", redirect(func(r *http.Request) string { return r.URL.Path + "x" })},
		{"digest that is not the body's", ErrMalformed, "calls it", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Docker-Content-Digest", nodestate.Digest(nil))
			w.Write(p.signed)
		}},
		{"304 to no condition", ErrMalformed, "without a condition", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(304) }},
		{"an error page with 200", ErrMalformed, "manifest", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") }},
		{"JSON of another kind", ErrMalformed, "not one of a signature", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"mediaType":"x"}`) }},
		{"deep JSON", ErrMalformed, "manifest", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, strings.Repeat(`{"subject":`, 1<<18)) }},
		{"unauthorised", ErrRefused, "401", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(401) }},
		{"forbidden", ErrRefused, "403", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403) }},
		{"not there", ErrNotFound, "404", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404) }},
		{"an endless 404", ErrNotFound, "404", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(404)
			endless(w, r, make([]byte, 1<<16), time.Millisecond)
		}},
		{"overloaded", ErrBusy, "503", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }},
		{"a teapot", ErrMalformed, "418", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(418) }},
		{"partial content", ErrMalformed, "206", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(206) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			creds := filepath.Join(t.TempDir(), "credentials")
			if err := os.WriteFile(creds, []byte("node:secret\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			// Each bound is alone where it is tried: the others are out of reach on a slow machine, too.
			cfg := Config{Registry: registry(t, c.h), CredentialsFile: creds, FirstByte: time.Minute, Timeout: 5 * time.Minute, MinRate: 1, stretch: time.Minute}
			switch c.text {
			case "no answer within":
				cfg.FirstByte = 300 * time.Millisecond
			case "bytes a second":
				cfg.stretch, cfg.MinRate = 300*time.Millisecond, 1<<20
			case "not complete within":
				cfg.Timeout = 300 * time.Millisecond
			}
			cl := client(t, cfg)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := cl.State(t.Context(), "")
			runtime.ReadMemStats(&after)
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("error %v, want class %v with %q", err, c.class, c.text)
			}
			if msg := err.Error(); strings.Contains(msg, "secret") || !strings.Contains(msg, "/manifests/") || len(msg) > 600 {
				t.Errorf("message %q", msg)
			}
			// an announcement reserves no memory
			if grown := int64(after.TotalAlloc - before.TotalAlloc); strings.Contains(c.name, "announced") && grown > nodestate.MaxManifestSize {
				t.Errorf("%d bytes were allocated", grown)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	for header, want := range map[string]time.Duration{"7": 7 * time.Second, "99999999": time.Hour, "-1": 0, "Wed, 21 Oct 2015 07:28:00 GMT": 0, "": 0} {
		url := registry(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", header)
			w.WriteHeader(429)
		})
		_, err := client(t, Config{Registry: url}).State(t.Context(), "")
		var e *Error
		if !errors.As(err, &e) || e.Class != ErrBusy || e.RetryAfter != want {
			t.Errorf("%q: %+v", header, err)
		}
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	_, err = client(t, Config{Registry: "http://" + l.Addr().String()}).State(t.Context(), "")
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "connection refused") || strings.Count(err.Error(), "http://") != 1 {
		t.Errorf("error %v", err)
	}
}

func TestTheCallersEndIsNoFaultOfTheRegistry(t *testing.T) {
	entered := make(chan struct{})
	url := registry(t, func(w http.ResponseWriter, r *http.Request) { close(entered); <-r.Context().Done() })
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	_, err := client(t, Config{Registry: url}).State(ctx, "")
	var e *Error
	if !errors.Is(err, context.Canceled) || errors.As(err, &e) {
		t.Errorf("error %v", err)
	}
}

func TestTLS(t *testing.T) {
	p := newPeer(t)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(p.signed) }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	file := filepath.Join(t.TempDir(), "ca.pem")

	if _, err := client(t, Config{Registry: s.URL}).State(t.Context(), ""); !errors.Is(err, ErrTLS) || !strings.Contains(err.Error(), "check the registry's certificate") {
		t.Errorf("unknown authority: %v", err)
	}
	if _, err := client(t, Config{Registry: s.URL, CA: ca}).State(t.Context(), ""); err != nil {
		t.Errorf("CA given: %v", err)
	}
	c := client(t, Config{Registry: s.URL, CAFile: file})
	if _, err := c.State(t.Context(), ""); !errors.Is(err, ErrConfig) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no CA file: %v", err)
	}
	os.WriteFile(file, []byte("nonsense"), 0o644)
	if _, err := c.State(t.Context(), ""); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "no certificate in PEM form") {
		t.Errorf("bad CA file: %v", err)
	}
	os.WriteFile(file, ca, 0o644)
	if _, err := c.State(t.Context(), ""); err != nil {
		t.Errorf("mended CA file: %v", err)
	}
	other := strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	if _, err := client(t, Config{Registry: other, CA: ca}).State(t.Context(), ""); !errors.Is(err, ErrTLS) {
		t.Errorf("another name: %v", err)
	}
	epoch := func() time.Time { return time.Unix(0, 0).AddDate(-10, 0, 0) }
	if _, err := client(t, Config{Registry: s.URL, CA: ca, Now: epoch}).State(t.Context(), ""); !errors.Is(err, ErrTLS) || !strings.Contains(err.Error(), "clock") {
		t.Errorf("before the certificate: %v", err)
	}
	plain := strings.Replace(s.URL, "https://", "http://", 1)
	if _, err := client(t, Config{Registry: plain}).State(t.Context(), ""); err == nil {
		t.Error("plain HTTP to a TLS port")
	}
	reverse := registry(t, func(w http.ResponseWriter, r *http.Request) {})
	if _, err := client(t, Config{Registry: strings.Replace(reverse, "http://", "https://", 1)}).State(t.Context(), ""); !errors.Is(err, ErrTLS) {
		t.Errorf("TLS to a plain port: %v", err)
	}
}

func TestCredentials(t *testing.T) {
	p := newPeer(t)
	var got atomic.Value
	url := registry(t, func(w http.ResponseWriter, r *http.Request) {
		got.Store(r.Header.Get("Authorization"))
		w.Write(p.signed)
	})
	file := filepath.Join(t.TempDir(), "credentials")
	c := client(t, Config{Registry: url, CredentialsFile: file})
	for _, x := range []struct{ content, want, err string }{
		{"node:pass:word\n", "Basic bm9kZTpwYXNzOndvcmQ=", ""},
		{"Bearer abc.def\n", "Bearer abc.def", ""},
		{"Bearer two words", "", "want one line"},
		{"token-alone", "", "want one line"},
		{"a:b\nX-Evil: 1", "", "want one line"},
		{"", "", "want one line"},
	} {
		os.WriteFile(file, []byte(x.content), 0o600)
		_, err := c.State(t.Context(), "")
		if x.err == "" && (err != nil || got.Load() != x.want) {
			t.Errorf("%q: sent %q, %v", x.content, got.Load(), err)
		}
		if x.err != "" && (!errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), x.err)) {
			t.Errorf("%q: %v", x.content, err)
		}
	}
	os.Chmod(file, 0o644)
	if _, err := c.State(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable by others: %v", err)
	}
}

// plainRegistry serves parts by digest and what tags it is given; it lies where lies says so.
func plainRegistry(t *testing.T, p peer, tags map[string][]byte, lies map[string][]byte, api bool) string {
	parts := map[string][]byte{p.u.ManifestDigest: p.u.Manifest, p.u.BundleDigest: p.u.Bundle, p.u.LayerDigest: p.u.Layer}
	for _, b := range tags {
		parts[nodestate.Digest(b)] = b
	}
	return registry(t, func(w http.ResponseWriter, r *http.Request) {
		at := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		if strings.Contains(r.URL.Path, "/referrers/") {
			if b := tags["referrers"]; api && b != nil {
				w.Write(b)
				return
			}
			w.WriteHeader(404)
			return
		}
		b := tags[at]
		if b == nil {
			b = parts[at]
		}
		if lie, ok := lies[at]; ok {
			b = lie
		}
		if b == nil {
			w.WriteHeader(404)
			return
		}
		tag := `"` + nodestate.Digest(b) + `"`
		w.Header().Set("Etag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(304)
			return
		}
		w.Write(b)
	})
}

// bare is the signed manifest as a registry rebuilds it that knows no inlined data.
func (p peer) bare(t *testing.T) []byte {
	m := p.u.Outer
	sub := *m.Subject
	sub.Data = nil
	m.Subject = &sub
	m.Config.Data = nil
	m.Layers = []nodestate.Descriptor{m.Layers[0]}
	m.Layers[0].Data = nil
	return verifytest.Marshal(t, m)
}

func TestWithoutInlinedData(t *testing.T) {
	p := newPeer(t)
	bare := p.bare(t)
	c := client(t, Config{Registry: plainRegistry(t, p, map[string][]byte{"signed": bare}, nil, false)})
	r, err := c.State(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	p.verifies(t, r.Signed)
	if r, err = c.State(t.Context(), r.Validator); err != nil || !r.NotModified {
		t.Errorf("%+v, %v", r, err)
	}
	for name, digest := range map[string]string{"manifest": p.u.ManifestDigest, "bundle": p.u.BundleDigest} {
		for kind, lie := range map[string][]byte{"other": []byte("{}"), "longer": make([]byte, 1<<20)} {
			c := client(t, Config{Registry: plainRegistry(t, p, map[string][]byte{"signed": bare}, map[string][]byte{digest: lie}, false)})
			if _, err := c.State(t.Context(), ""); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s %s: %v", kind, name, err)
			}
		}
	}
}

func TestWithoutTheTagSigned(t *testing.T) {
	p := newPeer(t)
	bare := p.bare(t)
	entry := nodestate.Descriptor{MediaType: nodestate.MediaTypeManifest, Digest: nodestate.Digest(bare), Size: int64(len(bare)), ArtifactType: nodestate.MediaTypeBundle}
	index := func(entries ...nodestate.Descriptor) []byte {
		return verifytest.Marshal(t, map[string]any{"schemaVersion": 2, "mediaType": mediaTypeIndex, "manifests": entries})
	}
	fallback := strings.Replace(p.u.ManifestDigest, ":", "-", 1)
	with := func(api bool, list []byte) *Client {
		tags := map[string][]byte{"desired": p.u.Manifest, "bare": bare, fallback: list}
		if api {
			delete(tags, fallback)
			tags["referrers"] = list
		}
		return client(t, Config{Registry: plainRegistry(t, p, tags, nil, api)})
	}
	for _, api := range []bool{true, false} {
		c := with(api, index(nodestate.Descriptor{ArtifactType: "application/x", Digest: "sha256:x"}, entry))
		r, err := c.State(t.Context(), "")
		if err != nil {
			t.Fatalf("referrers API %v: %v", api, err)
		}
		p.verifies(t, r.Signed)
		if again, err := c.State(t.Context(), r.Validator); err != nil || !again.NotModified || again.Validator != r.Validator {
			t.Errorf("%+v, %v", again, err)
		}
	}
	if r, err := with(true, index(entry, entry)).State(t.Context(), ""); err != nil || len(r.More) != 1 {
		t.Errorf("two signatures: %d more, %v", len(r.More), err)
	}
	if _, err := with(true, index()).State(t.Context(), ""); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "no signature") {
		t.Errorf("unsigned: %v", err)
	}
	many := make([]nodestate.Descriptor, 10000)
	for i := range many {
		many[i] = entry
	}
	if r, err := with(true, index(many...)).State(t.Context(), ""); err != nil || len(r.More) != maxSignatures-1 {
		t.Errorf("ten thousand signatures: %d more, %v", len(r.More), err)
	}
	lie := entry
	lie.Size = 1 << 40
	if _, err := with(true, index(lie)).State(t.Context(), ""); !errors.Is(err, ErrMalformed) {
		t.Errorf("a terabyte of signature: %v", err)
	}
	lie = entry
	lie.Digest = "sha256:../../../etc/passwd"
	if _, err := with(true, index(lie)).State(t.Context(), ""); !errors.Is(err, ErrMalformed) {
		t.Errorf("a path as digest: %v", err)
	}
}

func TestTrust(t *testing.T) {
	p := newPeer(t)
	p.cloud.Rotate(t)
	p.cloud.Rotate(t)
	manifest := func(inline bool) nodestate.Manifest {
		m := nodestate.Manifest{SchemaVersion: 2, MediaType: nodestate.MediaTypeManifest, ArtifactType: nodestate.ArtifactTypeTrust}
		for _, d := range p.cloud.Docs {
			m.Layers = append(m.Layers, nodestate.Describe(nodestate.MediaTypeRoot, d, inline))
		}
		return m
	}
	serve := func(m nodestate.Manifest) *Client {
		return client(t, Config{Prefix: "plants", Registry: registry(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/plants/trust/manifests/latest" {
				json.NewEncoder(w).Encode(m)
				return
			}
			for _, d := range p.cloud.Docs {
				if strings.HasSuffix(r.URL.Path, "/v2/plants/trust/blobs/"+nodestate.Digest(d)) {
					w.Write(d)
					return
				}
			}
			w.WriteHeader(404)
		})})
	}
	for _, inline := range []bool{true, false} {
		docs, err := serve(manifest(inline)).Trust(t.Context())
		if err != nil || len(docs) != 3 || string(docs[2]) != string(p.cloud.Docs[2]) {
			t.Errorf("inline %v: %d documents, %v", inline, len(docs), err)
		}
	}
	for name, change := range map[string]func(m *nodestate.Manifest){
		"another artifact": func(m *nodestate.Manifest) { m.ArtifactType = nodestate.ArtifactType },
		"no documents":     func(m *nodestate.Manifest) { m.Layers = nil },
		"another layer":    func(m *nodestate.Manifest) { m.Layers[1].MediaType = "text/plain" },
		"lying digest":     func(m *nodestate.Manifest) { m.Layers[1].Digest = nodestate.Digest(nil) },
		"huge document":    func(m *nodestate.Manifest) { m.Layers[1].Size = 1 << 40 },
		"too many": func(m *nodestate.Manifest) {
			for range 11 {
				m.Layers = append(m.Layers, m.Layers...)
			}
		},
	} {
		m := manifest(true)
		change(&m)
		if _, err := serve(m).Trust(t.Context()); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := serve(nodestate.Manifest{}).Trust(t.Context()); !errors.Is(err, ErrMalformed) {
		t.Errorf("nonsense: %v", err)
	}
	empty := registry(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404) })
	if _, err := client(t, Config{Registry: empty}).Trust(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Errorf("none: %v", err)
	}
}
