package pull_test

import (
	"crypto"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"selvedge/edge/pull"
	"selvedge/edge/verify"
	"selvedge/edge/verify/verifytest"
	"selvedge/reconciler/publish"
	"selvedge/reconciler/sign"
	"selvedge/schema/nodestate"
	"selvedge/schema/trust"
	"selvedge/test/env"
)

// cloud is the real other side: what signs and what publishes.
type cloud struct {
	signer *sign.Signer
	root   *trust.Root
	doc    []byte
}

func newCloud(t *testing.T) cloud {
	t.Helper()
	newSigner := func() *sign.Signer {
		private, _, err := sign.GenerateKeyPair([]byte("password"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := sign.Load(private, []byte("password"))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	c := cloud{signer: newSigner()}
	rootKey := newSigner()
	d, err := trust.New([]crypto.PublicKey{rootKey.Public()}, 1, []crypto.PublicKey{c.signer.Public()})
	if err == nil {
		err = d.Sign(rootKey.Key())
	}
	if err == nil {
		c.doc, err = d.Bytes()
	}
	if err == nil {
		c.root, err = trust.Parse(c.doc)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c cloud) artifact(t *testing.T, desired nodestate.State, generation int64) nodestate.Artifact {
	t.Helper()
	content, err := desired.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	a, err := c.signer.Sign(content, sign.Meta{Node: desired.Node, Generation: generation, Commit: strings.Repeat("ab", 20)})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (c cloud) verify(t *testing.T, desired nodestate.State, r pull.Result, generation int64) {
	t.Helper()
	s, err := verify.Verifier{Node: desired.Node, PublicKey: desired.Identity.PublicKey, Root: c.root}.Verify(r.Signed, verify.Floor{}, nil)
	if err != nil || s.Generation() != generation || s.Commit() != strings.Repeat("ab", 20) {
		t.Fatalf("generation %d, commit %s: %v", s.Generation(), s.Commit(), err)
	}
}

func newState(t *testing.T) nodestate.State {
	return verifytest.Fill(nodestate.State{Identity: nodestate.Identity{PublicKey: verifytest.NewKey(t).Public()}})
}

func newClient(t *testing.T, registry string, wait time.Duration) *pull.Client {
	t.Helper()
	p, err := pull.New(pull.Config{Registry: registry, Prefix: "plants/eu", Node: "gw-1", Wait: wait})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// The reconciler's own store: signed, published, pulled, verified, noticed at once, removed.
func TestFromTheEmbeddedStore(t *testing.T) {
	c, desired := newCloud(t), newState(t)
	store, err := publish.Open(publish.Config{Path: filepath.Join(t.TempDir(), "store.db"), Prefix: "plants/eu"})
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 16)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path + " " + r.Header.Get("Prefer")
		store.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(func() { store.Close(); server.Close() })
	p := newClient(t, server.URL, time.Minute)

	if _, err := p.State(t.Context(), ""); !errors.Is(err, pull.ErrNotFound) {
		t.Fatalf("before the first state: %v", err)
	}
	<-asked // signed
	<-asked // desired, as of a registry without the tag
	if err := store.Put(t.Context(), []nodestate.Artifact{c.artifact(t, desired, 5)}); err != nil {
		t.Fatal(err)
	}
	first, err := p.State(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	<-asked
	c.verify(t, desired, first, 5)

	type outcome struct {
		r   pull.Result
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		r, err := p.State(t.Context(), first.Validator)
		done <- outcome{r, err}
	}()
	if got := <-asked; !strings.HasSuffix(got, "/manifests/signed wait=60") {
		t.Errorf("asked %q", got)
	}
	if err := store.Put(t.Context(), []nodestate.Artifact{c.artifact(t, desired, 6)}); err != nil {
		t.Fatal(err)
	}
	o := <-done
	if o.err != nil || o.r.NotModified || !o.r.Waited {
		t.Fatalf("%+v, %v", o.r, o.err)
	}
	c.verify(t, desired, o.r, 6)

	short := newClient(t, server.URL, time.Second)
	if r, err := short.State(t.Context(), o.r.Validator); err != nil || !r.NotModified || !r.Waited {
		t.Errorf("held to the end: %+v, %v", r, err)
	}
	if err := store.PutTrust(t.Context(), [][]byte{c.doc}); err != nil {
		t.Fatal(err)
	}
	if docs, err := p.Trust(t.Context()); err != nil || len(docs) != 1 || string(docs[0]) != string(c.doc) {
		t.Errorf("%d documents, %v", len(docs), err)
	}
	if err := store.Remove(t.Context(), []string{"gw-1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.State(t.Context(), o.r.Validator); !errors.Is(err, pull.ErrNotFound) {
		t.Errorf("removed: %v", err)
	}
}

// A registry that is not ours: with the tag "signed", and with only what cosign and
// others would copy.
func TestFromAPlainRegistry(t *testing.T) {
	addr := env.Registry(t)
	c, desired := newCloud(t), newState(t)
	remote, err := publish.OpenRemote(publish.RemoteConfig{Registry: addr, Prefix: "plants/eu", PlainHTTP: true, StatePath: filepath.Join(t.TempDir(), "pushed.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	if err := remote.Put(t.Context(), []nodestate.Artifact{c.artifact(t, desired, 5)}); err != nil {
		t.Fatal(err)
	}
	if err := remote.PutTrust(t.Context(), [][]byte{c.doc}); err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	without := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/signed") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	defer without.Close()
	for name, registry := range map[string]string{"whole": "http://" + addr, "without the tag signed": without.URL} {
		p := newClient(t, registry, time.Second)
		r, err := p.State(t.Context(), "")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c.verify(t, desired, r, 5)
		if again, err := p.State(t.Context(), r.Validator); err != nil || !again.NotModified || again.Waited {
			t.Errorf("%s: again: %+v, %v", name, again, err)
		}
		if docs, err := p.Trust(t.Context()); err != nil || len(docs) != 1 || string(docs[0]) != string(c.doc) {
			t.Errorf("%s: %d documents, %v", name, len(docs), err)
		}
	}
}
