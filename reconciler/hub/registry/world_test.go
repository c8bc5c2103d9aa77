package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"selvedge/schema/roster"
	"selvedge/test/env"
)

const (
	user     = "hub"
	password = "secret"
	// htpasswd of both, bcrypt with cost 4
	images = "registry.example"
)

// fleet is what Git says, and who asks: a bearer is the node's name.
type fleet struct {
	mu    sync.Mutex
	nodes map[string]roster.Node
}

func (f *fleet) set(name string, n *roster.Node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n == nil {
		delete(f.nodes, name)
	} else {
		f.nodes[name] = *n
	}
}

func (f *fleet) node(r *http.Request) (string, roster.Node, error) {
	who := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.nodes[who]
	if who == "unsure" {
		return "", n, fmt.Errorf("%q: %w", who, ErrUnsure)
	}
	if !ok {
		return "", n, errors.New("nobody")
	}
	return who, n, nil
}

// store stands for the reconciler's: it answers with what it was asked.
type store struct {
	mu    sync.Mutex
	asked []*http.Request
	serve http.HandlerFunc // nil: the path
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r)
	serve := s.serve
	s.mu.Unlock()
	if serve != nil {
		serve(w, r)
		return
	}
	w.Header().Set("Etag", `"x"`)
	w.Header().Set("Set-Cookie", "no")
	io.WriteString(w, r.URL.Path)
}

func (s *store) requests() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.asked
	s.asked = nil
	return all
}

type world struct {
	t     testing.TB
	fleet *fleet
	store *store
	hub   *httptest.Server

	registry *Registry
	mu       sync.Mutex
	refused  []string
}

func newWorld(t testing.TB, up ...Upstream) *world {
	t.Helper()
	w := &world{t: t, fleet: &fleet{nodes: map[string]roster.Node{}}, store: &store{}}
	s := httptest.NewServer(w.store)
	t.Cleanup(s.Close)
	base, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(Config{States: &http.Transport{DisableCompression: true}, Base: base, Prefix: func() string { return "fleet" }, Images: up,
		Node: w.fleet.node, Log: slog.New(slog.DiscardHandler),
		Refused: func(_ *http.Request, node, repository string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.refused = append(w.refused, node+" "+repository)
		}})
	if err != nil {
		t.Fatal(err)
	}
	w.registry = r
	w.hub = httptest.NewServer(r) // without a ServeMux, which would tidy paths up
	t.Cleanup(w.hub.Close)
	w.fleet.set("a", &roster.Node{})
	w.fleet.set("b", &roster.Node{})
	return w
}

// told returns who asked for what is another's.
func (w *world) told() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refused
}

type answered struct {
	status int
	header http.Header
	body   string
}

// ask sends a path as it is spelt.
func (w *world) ask(node, method, path string, header http.Header) answered {
	w.t.Helper()
	u, query, _ := strings.Cut(path, "?")
	q, err := http.NewRequestWithContext(context.Background(), method, w.hub.URL, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	q.URL.Opaque, q.URL.RawQuery = "//"+q.URL.Host+u, query
	for k, v := range header {
		q.Header[k] = v
	}
	if node != "" {
		q.Header.Set("Authorization", "Bearer "+node)
	}
	res, err := http.DefaultTransport.RoundTrip(q)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answered{res.StatusCode, res.Header, string(b)}
}

func (w *world) get(node, path string) answered { w.t.Helper(); return w.ask(node, "GET", path, nil) }

// pushed is an image in a registry.
type pushed struct {
	repository string
	image      v1.Image
	index      v1.ImageIndex
}

func (p pushed) digest(t testing.TB) string {
	t.Helper()
	var h v1.Hash
	var err error
	if p.index != nil {
		h, err = p.index.Digest()
	} else {
		h, err = p.image.Digest()
	}
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func (p pushed) manifest(t testing.TB) string {
	return "/v2/" + p.repository + "/manifests/" + p.digest(t) + "?ns=" + images
}

// blobs returns the paths of config and layers.
func (p pushed) blobs(t testing.TB) []string {
	t.Helper()
	m, err := p.image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	all := []string{"/v2/" + p.repository + "/blobs/" + m.Config.Digest.String() + "?ns=" + images}
	for _, l := range m.Layers {
		all = append(all, "/v2/"+p.repository+"/blobs/"+l.Digest.String()+"?ns="+images)
	}
	return all
}

func (p pushed) reference(t testing.TB) string {
	return images + "/" + p.repository + "@" + p.digest(t)
}

// registry is a real docker-registry that wants a password, with images.
func registry(t testing.TB) (addr string, up Upstream) {
	t.Helper()
	env.Need(t, env.CanRegistry())
	dir := t.TempDir()
	htpasswd := filepath.Join(dir, "htpasswd")
	if err := os.WriteFile(htpasswd, []byte(user+":"+bcrypted(t)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := env.StartRegistry(htpasswd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	file := filepath.Join(dir, "config.json")
	auth, err := (&authn.Basic{Username: user, Password: password}).Authorization()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"auths": {"`+images+`": {"username": "`+auth.Username+`", "password": "`+auth.Password+`"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return r.Addr, Upstream{Host: images, URL: "http://" + r.Addr, CredentialsFile: file, PlainHTTP: true}
}

func push(t testing.TB, addr, repository string, layers int64) pushed {
	t.Helper()
	img, err := random.Image(1000, layers)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(addr + "/" + repository + ":v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: user, Password: password})); err != nil {
		t.Fatal(err)
	}
	return pushed{repository: repository, image: img}
}

// pushIndex pushes an index of n images, below another index if nested.
func pushIndex(t testing.TB, addr, repository string, n int, nested bool) (pushed, []pushed) {
	t.Helper()
	index := v1.ImageIndex(empty.Index)
	var children []pushed
	for range n {
		img, err := random.Image(500, 2)
		if err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img})
		children = append(children, pushed{repository: repository, image: img})
	}
	if nested {
		index = mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: index})
	}
	ref, err := name.ParseReference(addr + "/" + repository + ":v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, index, remote.WithAuth(&authn.Basic{Username: user, Password: password})); err != nil {
		t.Fatal(err)
	}
	return pushed{repository: repository, index: index}, children
}
