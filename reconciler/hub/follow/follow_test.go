package follow

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"selvedge/internal/serve"
	"selvedge/reconciler/feed"
	"selvedge/schema/roster"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// server is a reconciler's feed on a socket.
type server struct {
	*feed.Feed
	stop func()
}

// start serves the roster of dir, as a reconciler does that starts.
func start(t testing.TB, dir string) *server {
	t.Helper()
	f, err := feed.Open(feed.Config{Path: filepath.Join(dir, "roster.db"), Log: quiet(), Heartbeat: 20 * time.Millisecond,
		States: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })})
	must(t, err)
	l, err := feed.Listen(dir)
	must(t, err)
	stop := run(t, f.Handler(), l, serve.Config{})
	s := &server{Feed: f, stop: func() {
		stop()
		must(t, f.Close())
	}}
	t.Cleanup(func() { s.stop() })
	return s
}

// run serves until stop is called.
func run(t testing.TB, h http.Handler, l net.Listener, c serve.Config) (stop func()) {
	t.Helper()
	c.Listener, c.Handler, c.Log = l, h, quiet()
	srv, err := serve.Listen(c)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("serve: %v", err)
		}
	}()
	return func() { cancel(); <-done }
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type step struct {
	v *View
	d Delta
}

// follow runs a follower until the test ends or stop is called; each change comes out of the channel.
func follow(t testing.TB, c Config) (f *Follower, steps <-chan step, stop func()) {
	t.Helper()
	if c.Log == nil {
		c.Log = quiet()
	}
	c.Retry = time.Millisecond
	f, err := New(c)
	must(t, err)
	ch := make(chan step, 1000)
	f.OnDelta(func(v *View, d Delta) { ch <- step{v, d} })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return f, ch, stop
}

// await returns the first change that is as asked.
func await(t testing.TB, steps <-chan step, what string, ok func(step) bool) step {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case s := <-steps:
			if ok(s) {
				return s
			}
		case <-timeout:
			t.Fatalf("waited for %s in vain", what)
		}
	}
}

func anything(step) bool { return true }

func whole(text string) roster.Event {
	return roster.Event{Reset: true, Trust: "t1", Nodes: parse(text), Fleet: &roster.Fleet{Platform: "Acme", Identities: map[string]roster.Identity{"ana": {Kind: "user"}}}}
}

func TestFollow(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	f, steps, _ := follow(t, Config{URL: "unix:" + filepath.Join(dir, feed.Socket)})
	if v := f.View(); v.Loaded || len(v.Names()) != 0 {
		t.Errorf("%+v: nothing is known yet", v)
	}
	must(t, s.Tell(whole("a=A b=B")))
	first := await(t, steps, "the whole", anything)
	if !first.d.Reset || !first.v.Loaded || text(first.v) != "a=A b=B" || first.v.Fleet.Platform != "Acme" || first.v.Trust != "t1" {
		t.Errorf("%+v", first)
	}
	must(t, s.Tell(roster.Event{Trust: "t1", Removed: []string{"a"}, Nodes: parse("c=C"), Changes: []roster.Change{{Commit: roster.Commit{Hash: "1"}}}}))
	next := await(t, steps, "a change", anything)
	if text(next.v) != "b=B c=C" || next.d.GoneKeys[0] != "A" || next.d.Reset || next.d.Fleet || len(next.v.Changes) != 1 {
		t.Errorf("%+v", next)
	}
	if f.View() != next.v || !f.Connected() {
		t.Error("the view is not the newest")
	}

	// the store of the same reconciler, whatever the address says
	res, err := (&http.Client{Transport: f.Transport()}).Get("https://elsewhere.example/v2/nodes/a/manifests/signed")
	must(t, err)
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); string(b) != "/v2/nodes/a/manifests/signed" {
		t.Errorf("%q", b)
	}
	if f.Base().String() != "http://reconciler" {
		t.Error(f.Base())
	}
}

func TestRestarts(t *testing.T) {
	dir, cache := t.TempDir(), filepath.Join(t.TempDir(), "roster.json")
	c := Config{URL: "unix:" + filepath.Join(dir, feed.Socket), Cache: cache}
	s := start(t, dir)
	must(t, s.Tell(whole("a=A b=B c=C")))
	f, steps, stop := follow(t, c)
	await(t, steps, "the whole", anything)

	// the reconciler stops: what it told counts
	s.stop()
	for f.Connected() {
		time.Sleep(time.Millisecond)
	}
	if v := f.View(); !v.Loaded || text(v) != "a=A b=B c=C" {
		t.Errorf("%s", text(v))
	}
	// another one takes over; while nobody looked a node was removed
	s = start(t, dir)
	await(t, steps, "the whole again", func(s step) bool { return s.d.Reset })
	must(t, s.Tell(roster.Event{Trust: "t1", Removed: []string{"a"}}))
	await(t, steps, "the removal", func(s step) bool { return len(s.d.GoneKeys) == 1 })
	stop()
	s.stop()

	// a hub that starts without the reconciler knows what was in force, and who was put out, and
	// since when it knows no more
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	must(t, os.Chtimes(cache, old, old))
	f, steps, stop = follow(t, c)
	first := await(t, steps, "the cache", anything)
	if !first.d.Reset || !first.v.Loaded || text(first.v) != "b=B c=C" || first.v.Fleet.Identities["ana"].Kind != "user" || first.v.Trust != "t1" {
		t.Errorf("%+v", first)
	}
	if !first.v.At.Equal(old) {
		t.Errorf("the cache is of %v, and counts as of %v", old, first.v.At)
	}
	s = start(t, dir)
	must(t, s.Tell(roster.Event{Trust: "t1", Removed: []string{"b"}}))
	last := await(t, steps, "the removal", func(s step) bool { return text(s.v) == "c=C" })
	if f.View() != last.v || fmt.Sprint(last.d.GoneKeys) != "[B]" {
		t.Errorf("%+v", last.d)
	}
	stop()
	if info, err := os.Stat(cache); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}

	// a cache that makes no sense is none
	for _, bad := range []string{"", "{", `{"nodes":{"a":{}}}` + "\n", `{"reset":true,"more":true}` + "\n", `{"reset":true,"nodes":{"../a":{}}}` + "\n"} {
		must(t, os.WriteFile(cache, []byte(bad), 0o600))
		f, _, stop := follow(t, Config{URL: "unix:/nowhere/hub.sock", Cache: cache})
		stop()
		if f.View().Loaded {
			t.Errorf("%q was taken", bad)
		}
	}
}

// TestLiar holds that a stream that is not as it must be changes nothing and is tried anew.
func TestLiar(t *testing.T) {
	for name, tt := range map[string]struct {
		stream string
		taken  string // text of the view by then
		why    string
	}{
		"no reset":       {`{"nodes":{"a":{}}}` + "\n", "", "does not begin with a reset"},
		"no JSON":        {`{"reset":true,"nodes":{"a":{"publicKey":"A"}}}` + "\n" + `{"nodes":` + "\n", "a=A", "malformed"},
		"another type":   {`{"reset":true,"nodes":["a"]}` + "\n", "", "malformed"},
		"no name":        {`{"reset":true,"nodes":{"a/b":{}}}` + "\n", "", "no name of a node"},
		"cut in a group": {`{"reset":true,"nodes":{"a":{"publicKey":"A"}}}` + "\n" + `{"more":true,"removed":["a"]}` + "\n", "a=A", "unexpected EOF"},
		"cut in a line":  {`{"reset":true,"nodes":{"a":{"publicKey":"A"}}}` + "\n" + `{"removed":["a"]}`, "a=A", "unexpected EOF"},
		"reset inside":   {`{"reset":true,"more":true}` + "\n" + `{"reset":true}` + "\n", "", "begins anew in its middle"},
		"too large":      {strings.Repeat("x", roster.MaxEvent+1) + "\n", "", "more than 8388608 bytes"},
		"without an end": {strings.Repeat(" ", roster.MaxEvent+100), "", "more than 8388608 bytes"},
		"silence":        {`{"reset":true,"nodes":{"a":{"publicKey":"A"}}}` + "\n<silence>", "a=A", "nothing was heard"},
		"refused":        {"<503>", "", "503 Service Unavailable: too many"},
		"it ends":        {`{"reset":true}` + "\n", "", "ended the stream"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l, err := feed.Listen(dir)
			must(t, err)
			var asked atomic.Int32
			stop := run(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) > 1 {
					fmt.Fprintln(w, `{"reset":true,"nodes":{"good":{"publicKey":"G"}}}`)
					http.NewResponseController(w).Flush()
					<-r.Context().Done()
					return
				}
				body, silent := strings.CutSuffix(tt.stream, "<silence>")
				if body == "<503>" {
					http.Error(w, "too many", http.StatusServiceUnavailable)
					return
				}
				io.WriteString(w, body)
				http.NewResponseController(w).Flush()
				if silent {
					<-r.Context().Done()
				}
			}), l, serve.Config{})
			t.Cleanup(stop)
			var said logged
			patience := time.Minute
			if name == "silence" {
				patience = 300 * time.Millisecond
			}
			_, steps, _ := follow(t, Config{URL: "unix:" + filepath.Join(dir, feed.Socket), Silence: patience, Log: slog.New(slog.NewTextHandler(&said, nil))})
			before := ""
			await(t, steps, "a good stream", func(s step) bool {
				if text(s.v) == "good=G" {
					return true
				}
				before = text(s.v)
				return false
			})
			if before != tt.taken {
				t.Errorf("%q was taken, want %q", before, tt.taken)
			}
			if !strings.Contains(said.String(), tt.why) {
				t.Errorf("it said %q", said.String())
			}
		})
	}
}

// logged collects log lines; it is read after what is awaited, which comes later.
type logged struct{ text atomic.Value }

func (l *logged) Write(p []byte) (int, error) {
	l.text.Store(l.String() + string(p))
	return len(p), nil
}

func (l *logged) String() string { s, _ := l.text.Load().(string); return s }

func TestMutualTLS(t *testing.T) {
	ca := newCA(t)
	other := newCA(t)
	f, err := feed.Open(feed.Config{Path: filepath.Join(t.TempDir(), "roster.db"), Log: quiet()})
	must(t, err)
	t.Cleanup(func() { f.Close() })
	must(t, f.Tell(whole("a=A")))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	pair := ca.issue(t, "127.0.0.1")
	t.Cleanup(run(t, f.Handler(), l, serve.Config{ClientCAs: ca.pool, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil }}))
	url := "https://" + l.Addr().String()

	_, steps, _ := follow(t, Config{URL: url, TLS: &tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{ca.issue(t, "hub")}}})
	if s := await(t, steps, "the whole", anything); text(s.v) != "a=A" {
		t.Errorf("%s", text(s.v))
	}
	for name, c := range map[string]*tls.Config{
		"a hub of another CA":        {RootCAs: ca.pool, Certificates: []tls.Certificate{other.issue(t, "hub")}},
		"a hub that trusts another":  {RootCAs: other.pool, Certificates: []tls.Certificate{ca.issue(t, "hub")}},
		"a hub without a certifcate": {RootCAs: ca.pool, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return new(tls.Certificate), nil }},
	} {
		fol, err := New(Config{URL: url, TLS: c, Log: quiet()})
		must(t, err)
		if err := fol.follow(t.Context(), func() {}); err == nil || fol.View().Loaded {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfig(t *testing.T) {
	cert := &tls.Config{Certificates: []tls.Certificate{{}}}
	for _, tt := range []struct {
		url string
		tls *tls.Config
		ok  bool
	}{
		{"unix:/run/hub.sock", nil, true}, {"unix:///run/hub.sock", nil, true}, {"https://cloud:7443", cert, true},
		{"unix:hub.sock", nil, false}, {"https://cloud:7443", nil, false}, {"https://cloud:7443", &tls.Config{}, false},
		{"http://cloud:7443", cert, false}, {"https://u:p@cloud", cert, false}, {"https://cloud/path", cert, false}, {"", nil, false},
	} {
		if _, err := New(Config{URL: tt.url, TLS: tt.tls}); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.url, err)
		}
	}
}

// authority issues certificates.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
}

func newCA(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{key, cert, pool}
}

func (a *authority) issue(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if ip := net.ParseIP(name); ip != nil {
		tmpl.IPAddresses = []net.IP{ip}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// FuzzDecoder holds that no stream makes the decoder panic, hang or go beyond its bounds.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte(`{"reset":true,"more":true,"fleet":{"platform":"a","scopes":{}}}` + "\n\n" + `{"nodes":{"a":{"publicKey":"A"}},"removed":["b"]}` + "\n"))
	f.Add([]byte(`{"reset":true,"changes":[{"hash":"1","at":"2026-01-01T00:00:00Z","nodes":{"a":1}}],"trust":"t"}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newDecoder(strings.NewReader(string(b)))
		d.max, d.all = 1<<10, 4<<10
		v := new(View)
		for {
			g, err := d.next(func() {})
			if err != nil {
				return
			}
			if g.size > d.all {
				t.Fatalf("%d bytes", g.size)
			}
			next, _, err := v.with(g, time.Now())
			if err != nil {
				continue
			}
			v = next
			for name, n := range v.Nodes() {
				if holder, _, ok := v.NodeByKey(n.PublicKey); n.PublicKey != "" && (!ok || holder != name) {
					t.Fatalf("%s has the key of %s", name, holder)
				}
			}
		}
	})
}
