package registry

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/bcrypt"

	"selvedge/schema/roster"
)

func bcrypted(t testing.TB) string {
	t.Helper()
	b, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A real registry that wants a password: nodes get what they need of it, and no more.
func TestImagesThatANodeNeeds(t *testing.T) {
	addr, up := registry(t)
	mine, other, secret := push(t, addr, "team/app", 3), push(t, addr, "team/app", 2), push(t, addr, "team/secret", 2)
	index, children := pushIndex(t, addr, "team/multi", 3, false)
	nested, below := pushIndex(t, addr, "team/nested", 2, true)
	w := newWorld(t, up)
	w.fleet.set("a", &roster.Node{Images: []string{mine.reference(t), images + "/team/multi:v1@" + index.digest(t)}})
	w.fleet.set("b", &roster.Node{Images: []string{other.reference(t), nested.reference(t)}})
	w.fleet.set("none", &roster.Node{})

	// a blob first: the hub looks up itself what the image is made of
	reads := map[string][]string{"a": append(mine.blobs(t), mine.manifest(t), index.manifest(t)), "b": append(other.blobs(t), other.manifest(t), nested.manifest(t))}
	for _, c := range children {
		reads["a"] = append(reads["a"], append(c.blobs(t), c.manifest(t))...)
	}
	for _, c := range below {
		reads["b"] = append(reads["b"], append(c.blobs(t), c.manifest(t))...)
	}
	for _, node := range []string{"a", "b", "none"} {
		for owner, paths := range reads {
			for _, p := range paths {
				for _, method := range []string{"HEAD", "GET"} {
					got := w.ask(node, method, p, nil)
					if want := node == owner; (got.status == 200) != want || !want && got.status != 404 {
						t.Errorf("%s, %s %s: %d %s", node, method, p, got.status, got.body)
					}
					d := got.header.Get("Docker-Content-Digest")
					if got.status == 200 && (!strings.Contains(p, d) || d == "" || method == "GET" && digest.FromString(got.body).String() != d || method == "HEAD" && got.body != "") {
						t.Errorf("%s %s: wrong content", method, p)
					}
					if got.status != 200 && (d != "" || got.header.Get("Etag") != "") {
						t.Errorf("%s %s: tells about what is not for this node", method, p)
					}
				}
			}
		}
	}
	blob := mine.blobs(t)[1]
	whole := w.get("a", blob)
	part := w.ask("a", "GET", blob, http.Header{"Range": {"bytes=10-19"}})
	if part.status != 206 || part.body != whole.body[10:20] || part.header.Get("Content-Range") == "" {
		t.Errorf("%d %v", part.status, part.header)
	}
	for _, several := range []http.Header{{"Range": {"bytes=0-1,10-19"}}, {"Range": {"bytes=0-1", "bytes=10-19"}}} { // which no client of registries asks for
		if got := w.ask("a", "GET", blob, several); got.status != 200 || got.body != whole.body || got.header.Get("Content-Type") != "application/octet-stream" {
			t.Errorf("several ranges: %d %v", got.status, got.header)
		}
	}
	if got := w.ask("a", "GET", blob, http.Header{"Range": {"bytes=99999999-"}}); got.status != 416 {
		t.Errorf("%d", got.status)
	}
	if got := w.ask("a", "GET", mine.manifest(t), http.Header{"If-None-Match": {whole.header.Get("Etag"), `"` + mine.digest(t) + `"`}}); got.status != 200 && got.status != 304 {
		t.Errorf("%d", got.status)
	}
	d, sd := mine.digest(t), secret.digest(t)
	for _, p := range []string{
		"/v2/team/app/manifests/v1?ns=" + images,
		"/v2/team/app/tags/list?ns=" + images,
		"/v2/team/app/referrers/" + d + "?ns=" + images,
		"/v2/_catalog?ns=" + images,
		"/v2/team/secret/manifests/" + sd + "?ns=" + images,
		"/v2/team/secret/manifests/v1?ns=" + images,
		"/v2/team/app/manifests/" + sd + "?ns=" + images,
		"/v2/team/secret/manifests/" + d + "?ns=" + images, // its image under another name
		"/v2/team/app/blobs/" + d + "?ns=" + images,        // a manifest as a blob
		"/v2/team/app/manifests/" + d,                      // without ns: the hub's own
		"/v2/team/app/manifests/" + d + "?ns=",
		"/v2/team/app/manifests/" + d + "?ns=docker.io",
		"/v2/team/app/manifests/" + d + "?ns=" + addr, // the registry by its real address
		"/v2/team/app/manifests/" + d + "?ns=docker.io&ns=" + images,
		"/v2/team/app/manifests/" + d + "?ns=" + images + "%2fteam",
		"/v2/app/manifests/" + d + "?ns=" + images + "/team",
		"/v2/team/../team/app/manifests/" + d + "?ns=" + images,
		"/v2/team%2fapp/manifests/" + d + "?ns=" + images,
		"/v2/team//app/manifests/" + d + "?ns=" + images,
		"/v2/Team/app/manifests/" + d + "?ns=" + images,
		"/v2/team/app/manifests/" + strings.ToUpper(d) + "?ns=" + images,
		"/v2/team/app/blobs/" + someDigest + "?ns=" + images,
		"/v2/fleet/nodes/a/manifests/signed?ns=" + images,
	} {
		if got := w.get("a", p); got.status != 404 {
			t.Errorf("%s: %d %s", p, got.status, got.body)
		} else {
			oci(t, p, got)
		}
	}
	if n := len(w.store.requests()); n != 0 {
		t.Errorf("%d requests for images went to the store of states", n)
	}
	// what Git takes away is gone at once, though the hub knows it
	w.fleet.set("a", &roster.Node{})
	for _, p := range reads["a"] {
		if got := w.get("a", p); got.status != 404 {
			t.Errorf("%s after its removal: %d", p, got.status)
		}
	}
}

// front is a registry that does what a test says, over plain HTTP on loopback.
func front(t *testing.T, serve http.HandlerFunc) (Upstream, string) {
	t.Helper()
	s := httptest.NewServer(serve)
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, []byte(`{"auths": {"`+images+`": {"username": "hub", "password": "secret"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return Upstream{Host: images, URL: s.URL, CredentialsFile: file, PlainHTTP: true}, s.URL
}

func someImage(t *testing.T) (raw []byte, layer []byte, p pushed) {
	t.Helper()
	img, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	raw, err = img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	return raw, []byte("layer"), pushed{repository: "team/app", image: v1.Image(img)}
}

// A redirect, as object stores want it, is followed by the hub; credentials stay behind.
func TestRedirectsGetNoCredentials(t *testing.T) {
	raw, layer, p := someImage(t)
	var leaked atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			leaked.Add(1)
		}
		if r.URL.Path == "/loop" {
			http.Redirect(w, r, "/loop", http.StatusTemporaryRedirect)
			return
		}
		w.Write(layer)
	}))
	defer elsewhere.Close()
	var target atomic.Value
	target.Store(elsewhere.URL + "/blob")
	var authorized atomic.Int32
	up, _ := front(t, func(w http.ResponseWriter, r *http.Request) {
		if u, pw, ok := r.BasicAuth(); !ok || u != "hub" || pw != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
			return
		}
		authorized.Add(1)
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, target.Load().(string), http.StatusTemporaryRedirect)
			return
		}
		w.Write(raw)
	})
	w := newWorld(t, up)
	w.fleet.set("a", &roster.Node{Images: []string{p.reference(t)}})
	blob := p.blobs(t)[1]
	if got := w.get("a", blob); got.status != 200 || got.body != string(layer) {
		t.Fatalf("%d %s", got.status, got.body)
	}
	for _, bad := range []string{elsewhere.URL + "/loop", "http://192.0.2.1/x", "http://169.254.169.254/latest", "https://169.254.169.254/latest", "file:///etc/passwd", "gopher://x"} {
		target.Store(bad)
		if got := w.get("a", blob); got.status != 502 || strings.Contains(got.body, bad) || got.header.Get("Location") != "" {
			t.Errorf("%s: %d %s", bad, got.status, got.body)
		}
	}
	if leaked.Load() != 0 || authorized.Load() == 0 {
		t.Errorf("credentials: %d times elsewhere, %d times where they belong", leaked.Load(), authorized.Load())
	}
}

// A token service, as most registries have one.
func TestUpstreamWithTokenService(t *testing.T) {
	raw, layer, p := someImage(t)
	var tokens atomic.Int32
	var self string
	up, self := front(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			if u, pw, ok := r.BasicAuth(); !ok || u != "hub" || pw != "secret" || r.URL.Query().Get("scope") != "repository:team/app:pull" {
				w.WriteHeader(401)
				return
			}
			tokens.Add(1)
			fmt.Fprint(w, `{"token": "good", "expires_in": 300}`)
		case r.Header.Get("Authorization") != "Bearer good":
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="x",scope="repository:team/app:pull"`)
			w.WriteHeader(401)
		case strings.Contains(r.URL.Path, "/blobs/"):
			w.Write(layer)
		default:
			w.Write(raw)
		}
	})
	_ = self
	w := newWorld(t, up)
	w.fleet.set("a", &roster.Node{Images: []string{p.reference(t)}})
	for range 5 {
		if got := w.get("a", p.blobs(t)[1]); got.status != 200 || got.body != string(layer) {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	if n := tokens.Load(); n != 1 {
		t.Errorf("%d tokens for 6 requests", n)
	}
}

// A registry that lies: what a manifest names counts only if its digest is right.
func TestUpstreamThatLies(t *testing.T) {
	raw, _, p := someImage(t)
	_, _, other := someImage(t)
	lie, err := other.image.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	for name, serve := range map[string]http.HandlerFunc{
		"another manifest": func(w http.ResponseWriter, _ *http.Request) { w.Write(lie) },
		"none":             func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>")) },
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		},
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10000")
			w.Write(raw[:10])
		},
		"error":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"forbidden": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) },
	} {
		up, _ := front(t, serve)
		w := newWorld(t, up)
		w.fleet.set("a", &roster.Node{Images: []string{p.reference(t)}})
		for _, path := range []string{p.manifest(t), p.blobs(t)[0], other.blobs(t)[0]} {
			if got := w.get("a", path); got.status != 502 {
				t.Errorf("%s, %s: %d", name, path, got.status)
			} else {
				oci(t, name, got)
			}
		}
	}
}

// A thousand nodes start the same image: the registry is asked for its manifest once.
func TestManifestIsFetchedOnce(t *testing.T) {
	raw, _, p := someImage(t)
	var asked atomic.Int32
	up, _ := front(t, func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); w.Write(raw) })
	w := newWorld(t, up)
	var wg sync.WaitGroup
	for i := range 100 {
		n := fmt.Sprint("n", i)
		w.fleet.set(n, &roster.Node{Images: []string{p.reference(t)}})
		wg.Go(func() {
			if got := w.get(n, p.manifest(t)); got.status != 200 {
				t.Errorf("%d", got.status)
			}
		})
	}
	wg.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("%d times", n)
	}
}

func TestManifestsAreBounded(t *testing.T) {
	m := newManifests()
	for i := range 200 {
		m.put(&manifest{digest: digest.FromString(fmt.Sprint(i)), raw: make([]byte, 1<<20)})
	}
	if m.size > maxManifests || len(m.by) != m.order.Len() || m.get(digest.FromString("199")) == nil || m.get(digest.FromString("0")) != nil {
		t.Errorf("%d bytes, %d, %d", m.size, len(m.by), m.order.Len())
	}
	for i := range 3 * maxMissed {
		m.miss(digest.FromString(fmt.Sprint(i)))
	}
	if len(m.missed) > maxMissed {
		t.Error(len(m.missed))
	}
}

func TestNewRefuses(t *testing.T) {
	w := newWorld(t)
	base, err := url.Parse("http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	for name, up := range map[string][]Upstream{
		"plain beyond loopback":  {{Host: "r.example", URL: "http://r.example", PlainHTTP: true}},
		"plain not asked for":    {{Host: "r.example", URL: "http://127.0.0.1:1"}},
		"no host":                {{URL: "https://r.example"}},
		"a host with a path":     {{Host: "r.example/x"}},
		"an upper-case host":     {{Host: "R.example"}},
		"a user in the URL":      {{Host: "r.example", URL: "https://u:p@r.example"}},
		"a path in the URL":      {{Host: "r.example", URL: "https://r.example/v2"}},
		"another scheme":         {{Host: "r.example", URL: "ftp://r.example"}},
		"twice":                  {{Host: "r.example"}, {Host: "r.example"}},
		"no such CA":             {{Host: "r.example", CA: "/none"}},
		"no such credentials":    {{Host: "r.example", CredentialsFile: "/none"}},
		"plain on an IP address": {{Host: "10.0.0.1:5000", PlainHTTP: true}},
	} {
		c := Config{States: http.DefaultTransport, Base: base, Node: w.fleet.node, Images: up}
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("nothing: accepted")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("/v2/fleet/nodes/a/manifests/signed", []byte(`{"config":{"digest":"`+someDigest+`"}}`))
	f.Add("/v2/a/../b/blobs/"+someDigest, []byte(`{"manifests":[{"digest":"x"}]}`))
	f.Add("/v2/a%2fb/blobs/"+someDigest, []byte(`[]`))
	f.Fuzz(func(t *testing.T, path string, b []byte) {
		if u, err := url.ParseRequestURI(path); err == nil {
			if a, ok := parsePath(u); ok {
				if back := "/v2/" + a.repository + "/" + a.kind + "/" + a.reference; back != u.Path || strings.Contains(back, "..") && !strings.Contains(a.reference, "..") || strings.Contains(back, "//") {
					t.Errorf("%q is read as %+v", path, a)
				}
				roots([]string{string(b)}, "docker.io", a.repository)
			}
		}
		m, err := parseManifest(digest.FromBytes(b), b)
		if err == nil && len(m.children) > maxChildren {
			t.Error("too many children")
		}
		if _, err := parseManifest(someDigest, append(b, 'x')); err == nil {
			t.Error("the digest is not checked")
		}
	})
}
