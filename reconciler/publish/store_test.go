package publish_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"

	"selvedge/reconciler/publish"
	"selvedge/reconciler/sign"
	"selvedge/schema/nodestate"
	"selvedge/schema/trust"
	"selvedge/test/env"
)

var signer = sync.OnceValues(newSigner)

func newSigner() (*sign.Signer, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := signature.LoadECDSASignerVerifier(k, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return sign.New(key)
}

func key(t testing.TB) *sign.Signer {
	t.Helper()
	s, err := signer()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// state returns the content of a node's state; its size is that of a usual one.
func state(node string, revision int) []byte {
	return fmt.Appendf(nil, `{"apiVersion":%q,"node":%q,"workspace":"%d%s"}`, nodestate.APIVersion, node, revision, strings.Repeat(" line", 400))
}

func artifact(t testing.TB, node string, generation int64) nodestate.Artifact {
	t.Helper()
	a, err := key(t).Sign(state(node, int(generation)), sign.Meta{Node: node, Generation: generation, Commit: "abcd", Created: time.Unix(generation, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func unpack(t testing.TB, a nodestate.Artifact) *nodestate.Unpacked {
	t.Helper()
	u, err := nodestate.Unpack(a.Signed)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func open(t testing.TB, c publish.Config) *publish.Store {
	t.Helper()
	if c.Path == "" {
		c.Path = filepath.Join(t.TempDir(), "store.db")
	}
	s, err := publish.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func serve(t testing.TB, s *publish.Store) string {
	t.Helper()
	srv := httptest.NewServer(s.Handler())
	t.Cleanup(srv.Close)
	return srv.URL
}

func put(t testing.TB, s interface {
	Put(context.Context, []nodestate.Artifact) error
}, a ...nodestate.Artifact) {
	t.Helper()
	if err := s.Put(t.Context(), a); err != nil {
		t.Fatal(err)
	}
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func do(t testing.TB, method, url string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, b}
}

func get(t testing.TB, url string, header ...string) answer {
	t.Helper()
	return do(t, http.MethodGet, url, header...)
}

// crawl follows every digest from a repository's tags and holds each content against it.
func crawl(t testing.TB, base, repo string) (contents int) {
	t.Helper()
	var list struct{ Tags []string }
	a := get(t, base+"/v2/"+repo+"/tags/list")
	if err := json.Unmarshal(a.body, &list); err != nil || a.status != 200 {
		t.Fatalf("tags: %d %s", a.status, a.body)
	}
	var todo []string
	for _, tag := range list.Tags {
		a := get(t, base+"/v2/"+repo+"/manifests/"+tag)
		head := do(t, "HEAD", base+"/v2/"+repo+"/manifests/"+tag)
		d := nodestate.Digest(a.body)
		if a.status != 200 || a.header.Get("Docker-Content-Digest") != d || a.header.Get("Etag") != `"`+d+`"` {
			t.Fatalf("%s:%s: %d, digest %s for content with %s", repo, tag, a.status, a.header.Get("Docker-Content-Digest"), d)
		}
		if head.status != 200 || head.header.Get("Docker-Content-Digest") != d || head.header.Get("Content-Length") != fmt.Sprint(len(a.body)) {
			t.Fatalf("%s:%s: HEAD says %d %v", repo, tag, head.status, head.header)
		}
		todo = append(todo, d)
	}
	seen := map[string]bool{}
	for len(todo) > 0 {
		d := todo[0]
		todo = todo[1:]
		if seen[d] {
			continue
		}
		seen[d] = true
		a := get(t, base+"/v2/"+repo+"/manifests/"+d)
		if a.status != 200 || nodestate.Digest(a.body) != d {
			t.Fatalf("%s@%s: %d", repo, d, a.status)
		}
		contents++
		var m nodestate.Manifest
		if err := json.Unmarshal(a.body, &m); err != nil {
			t.Fatal(err)
		}
		for _, desc := range append(m.Layers, m.Config) {
			b := get(t, base+"/v2/"+repo+"/blobs/"+desc.Digest)
			if b.status != 200 || nodestate.Digest(b.body) != desc.Digest || int64(len(b.body)) != desc.Size {
				t.Fatalf("%s: blob %s: %d", repo, desc.Digest, b.status)
			}
			contents++
		}
		if m.Subject != nil {
			todo = append(todo, m.Subject.Digest)
		}
		var index struct{ Manifests []nodestate.Descriptor }
		r := get(t, base+"/v2/"+repo+"/referrers/"+d)
		if err := json.Unmarshal(r.body, &index); err != nil || r.status != 200 {
			t.Fatalf("referrers: %d %s", r.status, r.body)
		}
		for _, ref := range index.Manifests {
			todo = append(todo, ref.Digest)
		}
	}
	return contents
}

func TestEverythingServedHashesRight(t *testing.T) {
	for _, prefix := range []string{"", "plants/eu"} {
		s := open(t, publish.Config{Prefix: prefix})
		url := serve(t, s)
		nodes := []string{"gw-7", "a", "a-", "a--b", "x--"}
		for _, n := range nodes {
			put(t, s, artifact(t, n, 1))
			put(t, s, artifact(t, n, 5))
		}
		for _, n := range nodes {
			if got := crawl(t, url, nodestate.NodeRepository(prefix, n)); got != 6 {
				t.Errorf("%s: %d contents, want 6", n, got)
			}
		}
	}
}

func TestGenerationsOnlyGrow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, publish.Config{Path: path})
	put(t, s, artifact(t, "a", 10), artifact(t, "b", 20))
	for _, g := range []int64{1, 9, 10} {
		// b is fine, and is not published either
		err := s.Put(t.Context(), []nodestate.Artifact{artifact(t, "b", 30), artifact(t, "a", g)})
		if !errors.Is(err, publish.ErrGeneration) {
			t.Fatalf("generation %d: %v", g, err)
		}
	}
	if err := s.Put(t.Context(), []nodestate.Artifact{artifact(t, "a", 12), artifact(t, "a", 11)}); !errors.Is(err, publish.ErrGeneration) {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), []string{"b", "unknown"}); err != nil {
		t.Fatal(err)
	}
	want := func(s *publish.Store) {
		t.Helper()
		heads, err := s.Heads()
		if err != nil {
			t.Fatal(err)
		}
		if len(heads) != 2 || heads["b"] != (nodestate.Head{Generation: 20}) ||
			heads["a"] != (nodestate.Head{Generation: 10, ContentDigest: nodestate.Digest(state("a", 10))}) {
			t.Fatalf("heads %+v", heads)
		}
	}
	want(s)
	if err := s.Put(t.Context(), []nodestate.Artifact{artifact(t, "b", 20)}); !errors.Is(err, publish.ErrGeneration) {
		t.Fatal("a removed node went back:", err)
	}
	url := serve(t, s)
	if a := get(t, url+"/v2/nodes/b/manifests/desired"); a.status != 404 || !strings.Contains(string(a.body), "NAME_UNKNOWN") {
		t.Fatalf("removed: %d %s", a.status, a.body)
	}
	// a restart needs no signature
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, publish.Config{Path: path})
	want(s)
	put(t, s, artifact(t, "b", 21))
	crawl(t, serve(t, s), "nodes/a")
}

func TestPreviousGenerationStaysReadable(t *testing.T) {
	s := open(t, publish.Config{})
	url := serve(t, s) + "/v2/nodes/a"
	var old [3]*nodestate.Unpacked
	for i := range old {
		a := artifact(t, "a", int64(i+1))
		old[i] = unpack(t, a)
		put(t, s, a)
	}
	for i, want := range []int{404, 200, 200} {
		for _, path := range []string{"/manifests/" + old[i].ManifestDigest, "/blobs/" + old[i].LayerDigest, "/blobs/" + old[i].BundleDigest} {
			if a := get(t, url+path); a.status != want {
				t.Errorf("generation %d: %s: %d, want %d", i+1, path, a.status, want)
			}
		}
		var index struct{ Manifests []nodestate.Descriptor }
		a := get(t, url+"/referrers/"+old[i].ManifestDigest)
		if err := json.Unmarshal(a.body, &index); err != nil || len(index.Manifests) != want/200%2 {
			t.Errorf("generation %d: referrers %s", i+1, a.body)
		}
	}
}

func TestPutRefusesWhatContradictsItself(t *testing.T) {
	s := open(t, publish.Config{})
	for name, edit := range map[string]func(*nodestate.Artifact){
		"another node":       func(a *nodestate.Artifact) { a.Node = "b" },
		"another generation": func(a *nodestate.Artifact) { a.Generation++ },
		"no digest":          func(a *nodestate.Artifact) { a.ContentDigest = "" },
		"upper-case digest":  func(a *nodestate.Artifact) { a.ContentDigest = strings.ToUpper(a.ContentDigest) },
		"cut":                func(a *nodestate.Artifact) { a.Signed = a.Signed[:len(a.Signed)-1] },
		"empty":              func(a *nodestate.Artifact) { a.Signed = nil },
	} {
		a := artifact(t, "a", 7)
		edit(&a)
		if err := s.Put(t.Context(), []nodestate.Artifact{a}); !errors.Is(err, publish.ErrArtifact) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, []nodestate.Artifact{artifact(t, "a", 7)}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if heads, err := s.Heads(); err != nil || len(heads) != 0 {
		t.Errorf("%v, %v", heads, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := publish.Open(publish.Config{Path: filepath.Join(dir, "none", "store.db")}); err == nil {
		t.Error("a folder that is not there")
	}
	if _, err := publish.Open(publish.Config{Path: filepath.Join(dir, "x.db"), Prefix: "Plants/"}); err == nil {
		t.Error("a prefix against the grammar")
	}
	bad := filepath.Join(dir, "bad.db")
	if err := os.WriteFile(bad, []byte(strings.Repeat("no database", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := publish.Open(publish.Config{Path: bad}); err == nil || !strings.Contains(err.Error(), bad) {
		t.Error(err)
	}
	path := filepath.Join(dir, "store.db")
	open(t, publish.Config{Path: path})
	if _, err := publish.Open(publish.Config{Path: path}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Error(err)
	}
}

// roots makes a chain of n root documents.
func roots(t testing.TB, n int) [][]byte {
	t.Helper()
	root := key(t)
	other := func() crypto.PublicKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k.Public()
	}
	d, err := trust.New([]crypto.PublicKey{root.Public()}, 1, []crypto.PublicKey{other()})
	var docs [][]byte
	for {
		if err == nil {
			err = d.Sign(root.Key())
		}
		if err != nil {
			t.Fatal(err)
		}
		doc, err2 := d.Bytes()
		if err2 != nil {
			t.Fatal(err2)
		}
		docs = append(docs, doc)
		if len(docs) == n {
			return docs
		}
		r, err2 := trust.Parse(doc)
		if err2 != nil {
			t.Fatal(err2)
		}
		d, err = r.Rotate(trust.Change{AddSigners: []crypto.PublicKey{other()}})
	}
}

func TestTrust(t *testing.T) {
	s := open(t, publish.Config{Prefix: "p"})
	url := serve(t, s)
	if a := get(t, url+"/v2/p/trust/manifests/latest"); a.status != 404 {
		t.Fatal(a.status)
	}
	docs, other := roots(t, 4), roots(t, 3)
	for name, bad := range map[string][][]byte{"none": nil, "gap": {docs[0], docs[2]}, "order": {docs[1], docs[0]}, "twice": {docs[0], docs[0]}, "mixed": {docs[0], []byte("{}")}} {
		if err := s.PutTrust(t.Context(), bad); !errors.Is(err, publish.ErrTrust) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, n := range []int{1, 1, 3} {
		if err := s.PutTrust(t.Context(), docs[:n]); err != nil {
			t.Fatal(err)
		}
		if got := crawl(t, url, "p/trust"); got != n+2 {
			t.Fatalf("%d contents with %d documents", got, n)
		}
	}
	for name, bad := range map[string][][]byte{"shrunk": docs[:2], "another chain": other, "tail only": docs[1:]} {
		if err := s.PutTrust(t.Context(), bad); !errors.Is(err, publish.ErrTrust) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.PutTrust(t.Context(), docs); err != nil {
		t.Fatal(err)
	}
	var m nodestate.Manifest
	if err := json.Unmarshal(get(t, url+"/v2/p/trust/manifests/latest").body, &m); err != nil {
		t.Fatal(err)
	}
	var got [][]byte
	for _, l := range m.Layers {
		got = append(got, l.Data)
	}
	first, err := trust.Parse(got[0])
	if err != nil {
		t.Fatal(err)
	}
	if r, err := trust.Walk(first, got); err != nil || r.Version() != 4 || m.ArtifactType != nodestate.ArtifactTypeTrust {
		t.Fatalf("walked to %d, %v", r.Version(), err)
	}
	if a := get(t, url+"/v2/p/trust/manifests/desired"); a.status != 404 {
		t.Error(a.status)
	}
}

func TestReadersWhileWriting(t *testing.T) {
	s := open(t, publish.Config{})
	url := serve(t, s)
	put(t, s, artifact(t, "a", 1))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				a := get(t, url+"/v2/nodes/a/manifests/signed")
				u, err := nodestate.Unpack(a.body)
				if err != nil || a.header.Get("Docker-Content-Digest") != nodestate.Digest(a.body) {
					t.Errorf("%v", err)
					return
				}
				if b := get(t, url+"/v2/nodes/a/manifests/"+u.ManifestDigest); b.status == 200 && nodestate.Digest(b.body) != u.ManifestDigest {
					t.Error("manifest")
				}
			}
		})
	}
	for g := range int64(40) {
		put(t, s, artifact(t, "a", g+2), artifact(t, fmt.Sprintf("n%d", g), 1))
	}
	cancel()
	wg.Wait()
}

// TestKilledWhilePutting kills a process between its writes, again and again: what it had
// said to be published is there, whole, and no batch is half there.
func TestKilledWhilePutting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	for range 4 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHelperPutForEver$")
		cmd.Env = append(os.Environ(), "PUBLISH_TEST_STORE="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var said int64
		for range 3 {
			if _, err := fmt.Fscanf(out, "put %d\n", &said); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Duration(said%7) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		func() {
			s, err := publish.Open(publish.Config{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			heads, err := s.Heads()
			if err != nil {
				t.Fatal(err)
			}
			if len(heads) != 20 || heads["n0"].Generation < said {
				t.Fatalf("%d nodes, generation %d after %d was said", len(heads), heads["n0"].Generation, said)
			}
			for n, h := range heads {
				if h.Generation != heads["n0"].Generation {
					t.Fatalf("half a batch: %s is at %d, n0 at %d", n, h.Generation, heads["n0"].Generation)
				}
			}
			crawl(t, serve(t, s), "nodes/n7")
		}()
	}
}

func TestHelperPutForEver(t *testing.T) {
	path := os.Getenv("PUBLISH_TEST_STORE")
	if path == "" {
		t.Skip("run by TestKilledWhilePutting")
	}
	s := open(t, publish.Config{Path: path})
	heads, err := s.Heads()
	if err != nil {
		t.Fatal(err)
	}
	for g := heads["n0"].Generation + 1; ; g++ {
		var batch []nodestate.Artifact
		for i := range 20 {
			batch = append(batch, artifact(t, fmt.Sprintf("n%d", i), g))
		}
		put(t, s, batch...)
		fmt.Printf("put %d\n", g)
	}
}

func TestDiskFullKeepsTheOldContent(t *testing.T) {
	if os.Getuid() != 0 {
		env.Need(t, errors.New("needs root to mount a small tmpfs"))
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		env.Need(t, fmt.Errorf("mount tmpfs: %w", err))
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	s := open(t, publish.Config{Path: filepath.Join(dir, "store.db")})
	url := serve(t, s)
	put(t, s, artifact(t, "a", 1))
	var failed error
	for g := int64(2); failed == nil && g < 500; g++ {
		var batch []nodestate.Artifact
		for i := range 20 {
			batch = append(batch, artifact(t, fmt.Sprintf("n%d-%d", g, i), g))
		}
		failed = s.Put(t.Context(), append(batch, artifact(t, "a", g)))
	}
	if failed == nil {
		t.Fatal("the disk never filled")
	}
	if !errors.Is(failed, syscall.ENOSPC) {
		t.Fatal(failed)
	}
	before, err := s.Heads()
	if err != nil {
		t.Fatal(err)
	}
	crawl(t, url, "nodes/a")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, publish.Config{Path: filepath.Join(dir, "store.db")})
	after, err := s.Heads()
	if err != nil || len(after) != len(before) || after["a"] != before["a"] {
		t.Fatalf("%d nodes before, %d after, %v", len(before), len(after), err)
	}
}
