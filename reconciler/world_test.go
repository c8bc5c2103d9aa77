package reconciler_test

import (
	"context"
	"crypto"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"selvedge/edge/verify"
	"selvedge/reconciler"
	"selvedge/reconciler/feed"
	"selvedge/reconciler/git"
	"selvedge/reconciler/publish"
	"selvedge/reconciler/sign"
	"selvedge/reconciler/trustdir"
	"selvedge/reconciler/validate"
	"selvedge/schema"
	"selvedge/schema/nodestate"
	"selvedge/schema/trust"
	"selvedge/test/asnode"
	"selvedge/test/env"
)

func TestMain(m *testing.M) {
	validate.Worker()
	os.Exit(m.Run())
}

const (
	module   = "module: \"example.com/fleet@v0\"\nlanguage: version: \"v0.17.0\"\n"
	platform = "@experiment(explicitopen)\n\npackage fleet\n\nimport \"selvedge.dev/schema/v1\"\n\nv1.#Repo\n\nplatform: {name: \"Acme\", engine: 1}\n"
	line1    = "folders/a/line-1/workspace.cue"
	line2    = "folders/b/line-2/workspace.cue"
	app1     = "folders/a/line-1/apps.cue"
	app2     = "folders/b/line-2/apps.cue"
)

// world is a bare repo, a clone to push from, keys, and a reconciler with the embedded store.
type world struct {
	testing.TB
	repo, clone, data, trust string
	root, signer             *sign.Signer
	keys                     map[string]string // node → public key
	files                    map[string]string

	store  *publish.Store
	pub    reconciler.Publisher
	put    func() error // before the embedded store publishes
	v      *validate.Validator
	feed   *feed.Feed
	r      *reconciler.Reconciler
	branch string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	_, err := exec.LookPath("git")
	env.Need(t, err)
	dir := t.TempDir()
	w := &world{
		TB: t, repo: filepath.Join(dir, "fleet.git"), clone: filepath.Join(dir, "clone"),
		data: filepath.Join(dir, "data"), trust: filepath.Join(dir, "trust"),
		root: keyPairs()[0], signer: keyPairs()[1], keys: map[string]string{},
	}
	for _, n := range []string{"gw-1", "gw-2", "gw-3"} {
		w.keys[n] = nodeKey(t)
	}
	if err := os.Mkdir(w.data, 0o700); err != nil {
		t.Fatal(err)
	}
	w.git("", "init", "-q", "--bare", "-b", "main", w.repo)
	w.git("", "clone", "-q", w.repo, w.clone)
	w.files = map[string]string{
		"cue.mod/module.cue": module, "platform.cue": platform,
		"folders/a/folder.cue": "package fleet\n\nfolder: title: \"A\"\n",
		"folders/b/folder.cue": "package fleet\n\nfolder: title: \"B\"\n",
		line1:                  workspace("Line 1", w.node("gw-1"), w.node("gw-2")),
		line2:                  workspace("Line 2", w.node("gw-3")),
		app1:                   app("one"), app2: app("one"),
	}
	for name, b := range schema.Vendor() {
		w.files[name] = string(b)
	}
	d, err := trust.New([]crypto.PublicKey{w.root.Public()}, 1, []crypto.PublicKey{w.signer.Public()})
	w.must(err)
	w.saveRoot(d, nil)
	return w
}

func workspace(title string, nodes ...string) string {
	return "package fleet\n\nworkspace: title: \"" + title + "\"\n" + strings.Join(nodes, "")
}

func (w *world) node(name string) string {
	return "node: \"" + name + "\": {labels: role: \"gateway\", identity: publicKey: \"" + w.keys[name] + "\"}\n"
}

func app(value string) string {
	return `package fleet

app: web: {
	placement: selector: role: "gateway"
	container: web: {
		image: "registry.example/web@sha256:0000000000000000000000000000000000000000000000000000000000000001"
		env: VALUE: "` + value + `"
		resources: {cpu: 0.5, memory: "64MiB"}
	}
}
`
}

// keyPairs are a root key and a signing key; they are made once, for it takes a while.
var keyPairs = sync.OnceValue(func() (keys [2]*sign.Signer) {
	for i := range keys {
		keys[i] = newKey()
	}
	return keys
})

func newKey() *sign.Signer {
	private, _, err := sign.GenerateKeyPair([]byte("pw"))
	if err != nil {
		panic(err)
	}
	s, err := sign.Load(private, []byte("pw"))
	if err != nil {
		panic(err)
	}
	return s
}

func nodeKey(t testing.TB) string {
	t.Helper()
	k, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := k.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return public
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) git(dir string, args ...string) string {
	w.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=Ana", "GIT_AUTHOR_EMAIL=ana@example.com", "GIT_COMMITTER_NAME=Ana", "GIT_COMMITTER_EMAIL=ana@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// push commits the files as they are now, with changes: "" removes a file. It returns the commit.
func (w *world) push(message string, changes map[string]string, args ...string) string {
	w.Helper()
	maps.Copy(w.files, changes)
	for name, text := range changes {
		if text == "" {
			delete(w.files, name)
			w.git(w.clone, "rm", "-q", "--", name)
		}
	}
	for name, text := range w.files {
		file := filepath.Join(w.clone, name)
		w.must(os.MkdirAll(filepath.Dir(file), 0o755))
		w.must(os.WriteFile(file, []byte(text), 0o644))
	}
	w.git(w.clone, "add", "-A")
	w.git(w.clone, "commit", "-q", "--allow-empty", "-m", message)
	w.git(w.clone, append([]string{"push", "-q", "origin", "HEAD:main"}, args...)...)
	return w.git(w.clone, "rev-parse", "HEAD")
}

func (w *world) saveRoot(d *trust.Draft, previous *trust.Root) {
	w.Helper()
	w.must(d.Sign(w.root.Key()))
	_, lacks, err := trustdir.Save(w.trust, d, previous)
	w.must(err)
	w.must(lacks)
}

func (w *world) rotate(c trust.Change) {
	w.Helper()
	chain, err := trustdir.Load(w.trust)
	w.must(err)
	d, err := chain.Latest.Rotate(c)
	w.must(err)
	w.saveRoot(d, chain.Latest)
}

// start makes a reconciler, as a process does that starts. It publishes into the
// embedded store unless w.pub is set.
func (w *world) start() *reconciler.Reconciler {
	w.Helper()
	w.stop()
	pub := w.pub
	if pub == nil {
		store, err := publish.Open(publish.Config{Path: filepath.Join(w.data, "states.db")})
		w.must(err)
		w.store, pub = store, store
		if w.put != nil {
			pub = failing{store, w.put}
		}
	}
	var err error
	w.feed, err = feed.Open(feed.Config{Path: filepath.Join(w.data, "roster.db"), Log: quiet()})
	w.must(err)
	w.v = validate.New(validate.Config{CacheFile: filepath.Join(w.data, "validate.db"), Log: quiet()})
	w.r = reconciler.New(reconciler.Config{
		Git:       git.New(git.Config{Remote: w.repo, Branch: w.branch, Dir: filepath.Join(w.data, "git"), Log: quiet()}),
		Validator: w.v, Signer: w.signer, Publisher: pub, TrustDir: w.trust, DataDir: w.data, Log: quiet(), Feed: w.feed,
		TrustInterval: 20 * time.Millisecond,
	})
	w.Cleanup(w.stop)
	return w.r
}

// failing is a store that may fail to publish.
type failing struct {
	*publish.Store
	first func() error
}

func (f failing) Put(ctx context.Context, all []nodestate.Artifact) error {
	if err := f.first(); err != nil {
		return err
	}
	return f.Store.Put(ctx, all)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (w *world) stop() {
	if w.v != nil {
		w.must(w.v.Close())
		w.v = nil
	}
	if w.feed != nil {
		w.must(w.feed.Close())
		w.feed = nil
	}
	if w.store != nil {
		w.must(w.store.Close())
		w.store = nil
	}
}

// run has the loop run until the test ends, or the function is called.
func (w *world) run() (stop func()) {
	w.Helper()
	r := w.start()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); ctx.Err() == nil {
			w.Errorf("Run ended: %v", err)
		}
	}()
	stop = func() { cancel(); <-done }
	w.Cleanup(stop)
	return stop
}

func (w *world) once() {
	w.Helper()
	w.must(w.r.Once(w.Context()))
}

func (w *world) until(what string, ok func() bool) {
	w.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("waited for %s in vain; status %+v", what, w.r.Status())
		}
	}
}

// node pulls a node's state as the agent does, and verifies it by the published root documents.
func (w *world) state(name string) (verify.State, error) {
	w.Helper()
	s := httptest.NewServer(w.store.Handler())
	defer s.Close()
	return w.stateFrom(s.URL, name)
}

func (w *world) stateFrom(url, name string) (verify.State, error) {
	return asnode.State(w.Context(), url, name, w.keys[name])
}

// value is what a node's app is told, "" if the node has no state.
func (w *world) value(name string) string {
	w.Helper()
	s, err := w.state(name)
	if err != nil {
		return err.Error()
	}
	return valueOf(s)
}

func valueOf(s verify.State) string {
	for _, a := range s.Desired().Apps {
		return a.Containers[0].Env["VALUE"]
	}
	return ""
}

// values checks what all nodes are told.
func (w *world) values(want map[string]string) {
	w.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got := w.value(name); got != want[name] && !(want[name] == "" && strings.Contains(got, http.StatusText(http.StatusNotFound))) {
			w.Errorf("node %s: %q, want %q", name, got, want[name])
		}
	}
}

func (w *world) generations() map[string]int64 {
	w.Helper()
	heads, err := w.store.Heads()
	w.must(err)
	g := map[string]int64{}
	for n, h := range heads {
		g[n] = h.Generation
	}
	return g
}

// docs are the published root documents.
func (w *world) docs() [][]byte {
	w.Helper()
	s := httptest.NewServer(w.store.Handler())
	defer s.Close()
	docs, err := asnode.Trust(w.Context(), s.URL)
	w.must(err)
	return docs
}

// newKeyOf makes a key that signs root documents from now on.
func newKeyOf(w *world) *sign.Signer {
	w.root = newKey()
	return w.root
}
