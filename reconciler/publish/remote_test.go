package publish_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"selvedge/reconciler/publish"
	"selvedge/schema/nodestate"
	"selvedge/test/env"
)

func openRemote(t testing.TB, c publish.RemoteConfig) *publish.Remote {
	t.Helper()
	if c.StatePath == "" {
		c.StatePath = filepath.Join(t.TempDir(), "remote.db")
	}
	c.PlainHTTP = true
	r, err := publish.OpenRemote(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func TestRemote(t *testing.T) {
	addr := env.Registry(t)
	path := filepath.Join(t.TempDir(), "remote.db")
	c := publish.RemoteConfig{Registry: addr, Prefix: "plants/eu", StatePath: path}
	r := openRemote(t, c)
	var batch []nodestate.Artifact
	for i := range 10 {
		batch = append(batch, artifact(t, fmt.Sprintf("n%d", i), 5))
	}
	batch = append(batch, artifact(t, "x--", 5))
	put(t, r, batch...)
	url := "http://" + addr + "/v2/plants/eu/"
	check := func(a nodestate.Artifact) {
		t.Helper()
		repo := url + strings.TrimPrefix(nodestate.NodeRepository("plants/eu", a.Node), "plants/eu/")
		u := unpack(t, a)
		accept := []string{"Accept", nodestate.MediaTypeManifest}
		if got := get(t, repo+"/manifests/signed", accept...); !bytes.Equal(got.body, a.Signed) {
			t.Fatalf("%s: signed: %d %.200s", a.Node, got.status, got.body)
		}
		if got := get(t, repo+"/manifests/desired", accept...); !bytes.Equal(got.body, u.Manifest) {
			t.Fatalf("%s: desired: %d %.200s", a.Node, got.status, got.body)
		}
		for _, d := range []string{u.LayerDigest, u.BundleDigest} {
			if got := get(t, repo+"/blobs/"+d); nodestate.Digest(got.body) != d {
				t.Fatalf("%s: blob %s: %d", a.Node, d, got.status)
			}
		}
		// no referrers API here: the fallback tag names the signature
		got := get(t, repo+"/manifests/"+strings.Replace(u.ManifestDigest, ":", "-", 1), "Accept", "application/vnd.oci.image.index.v1+json")
		if !bytes.Contains(got.body, []byte(nodestate.Digest(a.Signed))) {
			t.Fatalf("%s: fallback tag: %d %s", a.Node, got.status, got.body)
		}
	}
	for _, a := range batch {
		check(a)
	}
	if err := r.Put(t.Context(), []nodestate.Artifact{artifact(t, "n1", 5)}); !errors.Is(err, publish.ErrGeneration) {
		t.Fatal(err)
	}
	if err := r.Put(t.Context(), []nodestate.Artifact{artifact(t, "n1", 8), artifact(t, "n1", 9)}); !errors.Is(err, publish.ErrArtifact) {
		t.Fatal(err)
	}
	changed := artifact(t, "n1", 6)
	put(t, r, changed)
	check(changed)
	check(batch[2])
	if err := r.Remove(t.Context(), []string{"n2", "never"}); err != nil {
		t.Fatal(err)
	}
	if got := get(t, url+"nodes/n2/manifests/signed"); got.status != 404 {
		t.Fatalf("removed: %d", got.status)
	}

	// a restart remembers
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = openRemote(t, c)
	heads, err := r.Heads()
	if err != nil {
		t.Fatal(err)
	}
	if len(heads) != 11 || heads["n1"] != (nodestate.Head{Generation: 6, ContentDigest: changed.ContentDigest}) || heads["n2"] != (nodestate.Head{Generation: 5}) {
		t.Fatalf("%+v", heads)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}

	// the disk is lost: the registry keeps generations from falling
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r = openRemote(t, c)
	if heads, err := r.Heads(); err != nil || len(heads) != 0 {
		t.Fatalf("%v, %v", heads, err)
	}
	if err := r.Put(t.Context(), []nodestate.Artifact{artifact(t, "n1", 6), artifact(t, "n3", 9)}); !errors.Is(err, publish.ErrGeneration) {
		t.Fatal(err)
	}
	heads, err = r.Heads()
	if err != nil || heads["n1"] != (nodestate.Head{Generation: 6}) {
		t.Fatalf("%+v, %v", heads, err)
	}
	put(t, r, artifact(t, "n1", 7), artifact(t, "n3", 9))
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}

	// another target: nothing is published there yet, and generations go on
	c.Prefix = "other"
	r = openRemote(t, c)
	heads, err = r.Heads()
	if err != nil || heads["n1"] != (nodestate.Head{Generation: 7}) {
		t.Fatalf("%+v, %v", heads, err)
	}
}

func TestRemoteTrust(t *testing.T) {
	addr := env.Registry(t)
	docs := roots(t, 3)
	r := openRemote(t, publish.RemoteConfig{Registry: addr})
	for _, n := range []int{1, 1, 3} {
		if err := r.PutTrust(t.Context(), docs[:n]); err != nil {
			t.Fatal(err)
		}
	}
	// with another disk, too
	r = openRemote(t, publish.RemoteConfig{Registry: addr})
	for name, bad := range map[string][][]byte{"shrunk": docs[:2], "another chain": roots(t, 3), "none": nil} {
		if err := r.PutTrust(t.Context(), bad); !errors.Is(err, publish.ErrTrust) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var m nodestate.Manifest
	a := get(t, "http://"+addr+"/v2/trust/manifests/latest", "Accept", nodestate.MediaTypeManifest)
	if err := json.Unmarshal(a.body, &m); err != nil || len(m.Layers) != 3 || !bytes.Equal(m.Layers[2].Data, docs[2]) {
		t.Fatalf("%v, %s", err, a.body)
	}
	for _, l := range m.Layers {
		if b := get(t, "http://"+addr+"/v2/trust/blobs/"+l.Digest); nodestate.Digest(b.body) != l.Digest {
			t.Fatal(b.status)
		}
	}
}

func TestRemoteCredentials(t *testing.T) {
	env.Need(t, env.CanRegistry())
	dir := t.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte("pass"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	htpasswd := filepath.Join(dir, "htpasswd")
	if err := os.WriteFile(htpasswd, fmt.Appendf(nil, "ana:%s\n", hash), 0o600); err != nil {
		t.Fatal(err)
	}
	reg, err := env.StartRegistry(htpasswd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reg.Stop() })
	config := func(password string) string {
		name := filepath.Join(dir, password+".json")
		b := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, reg.Addr, base64.StdEncoding.EncodeToString([]byte("ana:"+password)))
		if err := os.WriteFile(name, []byte(b), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	put(t, openRemote(t, publish.RemoteConfig{Registry: reg.Addr, Credentials: config("pass")}), artifact(t, "a", 1))
	for name, file := range map[string]string{"wrong": config("word"), "none": ""} {
		r := openRemote(t, publish.RemoteConfig{Registry: reg.Addr, Credentials: file})
		err := r.Put(t.Context(), []nodestate.Artifact{artifact(t, "a", 2)})
		if err == nil || strings.Contains(err.Error(), "word") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRemoteBreaksOff: a registry that fails in the middle. What was pushed is known, the
// rest is pushed later under a higher generation, never the same again.
func TestRemoteBreaksOff(t *testing.T) {
	target, err := url.Parse("http://" + env.Registry(t))
	if err != nil {
		t.Fatal(err)
	}
	var broken atomic.Bool
	proxy := httputil.NewSingleHostReverseProxy(target)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() && strings.Contains(r.URL.Path, "/nodes/b/") && strings.HasSuffix(r.URL.Path, "/manifests/signed") && r.Method == "PUT" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	r := openRemote(t, publish.RemoteConfig{Registry: strings.TrimPrefix(srv.URL, "http://")})
	put(t, r, artifact(t, "a", 1), artifact(t, "b", 1))
	broken.Store(true)
	err = r.Put(t.Context(), []nodestate.Artifact{artifact(t, "a", 2), artifact(t, "b", 2), artifact(t, "c", 2)})
	if err == nil || !strings.Contains(err.Error(), "node b") || strings.Contains(err.Error(), "node a") {
		t.Fatal(err)
	}
	heads, err := r.Heads()
	if err != nil || heads["a"].ContentDigest == "" || heads["c"].ContentDigest == "" || heads["b"] != (nodestate.Head{Generation: 2}) {
		t.Fatalf("%+v, %v", heads, err)
	}
	broken.Store(false)
	if err := r.Put(t.Context(), []nodestate.Artifact{artifact(t, "b", 2)}); !errors.Is(err, publish.ErrGeneration) {
		t.Fatal(err)
	}
	put(t, r, artifact(t, "b", 3))
}

func TestOpenRemoteRefuses(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(bad, []byte("no"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]publish.RemoteConfig{
		"plain beyond loopback": {Registry: "registry.example:5000", PlainHTTP: true},
		"prefix":                {Registry: "127.0.0.1:5000", Prefix: "A"},
		"no registry":           {},
		"registry with a path":  {Registry: "127.0.0.1:5000/x"},
		"credentials missing":   {Registry: "127.0.0.1:5000", Credentials: filepath.Join(dir, "none.json")},
		"credentials rubbish":   {Registry: "127.0.0.1:5000", Credentials: bad},
		"CA missing":            {Registry: "127.0.0.1:5000", CAFile: filepath.Join(dir, "none.pem")},
		"CA rubbish":            {Registry: "127.0.0.1:5000", CAFile: bad},
	} {
		c.StatePath = filepath.Join(dir, "remote.db")
		r, err := publish.OpenRemote(c)
		if err == nil {
			r.Close()
			t.Errorf("%s: opened", name)
		}
	}
}
