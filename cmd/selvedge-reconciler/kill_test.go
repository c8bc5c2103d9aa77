package main

import (
	"context"
	"crypto"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"selvedge/internal/control"
	"selvedge/reconciler"
	"selvedge/reconciler/feed"
	"selvedge/reconciler/hub/follow"
	"selvedge/reconciler/publish"
	"selvedge/reconciler/sign"
	"selvedge/reconciler/trustdir"
	"selvedge/schema"
	"selvedge/schema/nodestate"
	"selvedge/schema/trust"
	"selvedge/test/asnode"
	"selvedge/test/env"
	"selvedge/test/script"
)

// TestKill kills the reconciler at random moments in a row of pushes. After each kill no
// generation is lower than before, and at last every node has what the last commit says.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs for seconds")
	}
	_, err := exec.LookPath("git")
	env.Need(t, err)
	dir := t.TempDir()
	repo, clone, data := filepath.Join(dir, "fleet.git"), filepath.Join(dir, "clone"), filepath.Join(dir, "data")
	gitRun(t, dir, "init", "-q", "--bare", "-b", "main", repo)
	gitRun(t, dir, "clone", "-q", repo, clone)
	for name, b := range schema.Vendor() {
		write(t, filepath.Join(clone, name), b)
	}
	write(t, filepath.Join(clone, "cue.mod/module.cue"), []byte("module: \"example.com/fleet@v0\"\nlanguage: version: \"v0.17.0\"\n"))
	write(t, filepath.Join(clone, "platform.cue"), []byte("@experiment(explicitopen)\n\npackage fleet\n\nimport \"selvedge.dev/schema/v1\"\n\nv1.#Repo\n\nplatform: {name: \"Acme\", engine: 1}\n"))
	keys := map[string]string{}
	for w := range 6 {
		text := "package fleet\n\nworkspace: title: \"w\"\n"
		for i := range 30 {
			name := fmt.Sprintf("gw-%d-%d", w, i)
			keys[name] = nodeKey(t)
			text += fmt.Sprintf("node: %q: {labels: role: \"gateway\", identity: publicKey: %q}\n", name, keys[name])
		}
		write(t, filepath.Join(clone, fmt.Sprintf("folders/w%d/workspace.cue", w)), []byte(text))
	}
	push := func(round int) {
		t.Helper()
		// in one workspace of two, so that some states change and others do not
		for w := round % 2; w < 6; w += 2 {
			write(t, filepath.Join(clone, fmt.Sprintf("folders/w%d/apps.cue", w)), fmt.Appendf(nil, app, round))
		}
		gitRun(t, clone, "add", "-A")
		gitRun(t, clone, "commit", "-q", "-m", fmt.Sprint("round ", round))
		gitRun(t, clone, "push", "-q", "origin", "HEAD:main")
	}

	signingKeys(t, dir)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	addr := l.Addr().String()
	must(t, l.Close())
	start := func() *exec.Cmd {
		t.Helper()
		cmd := exec.Command("selvedge-reconciler", "run", "--repo", repo, "--data", data, "--listen", addr,
			"--key", filepath.Join(dir, "cosign.key"), "--trust", filepath.Join(dir, "trust"))
		cmd.Env = append(os.Environ(), "COSIGN_PASSWORD="+script.Password)
		cmd.Stderr = t.Output()
		must(t, cmd.Start())
		return cmd
	}
	heads := func() map[string]nodestate.Head {
		t.Helper()
		store, err := publish.Open(publish.Config{Path: filepath.Join(data, "states.db")})
		must(t, err)
		defer store.Close()
		h, err := store.Heads()
		must(t, err)
		return h
	}

	var before map[string]nodestate.Head
	rounds := 10
	for round := range rounds {
		cmd := start()
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
		push(round)
		time.Sleep(time.Duration(rand.IntN(400)) * time.Millisecond)
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // killed
		if _, err := os.Stat(filepath.Join(data, "states.db")); err != nil {
			continue // killed before it had begun
		}
		now := heads()
		for name, h := range before {
			n := now[name]
			if n.Generation < h.Generation || n.Generation == h.Generation && n.ContentDigest != h.ContentDigest {
				t.Errorf("round %d: node %s: %+v, before %+v", round, name, n, h)
			}
		}
		before = now
	}

	cmd := start()
	defer func() { _ = cmd.Wait() }()
	defer func() { must(t, cmd.Process.Signal(os.Interrupt)) }()
	head := gitRun(t, clone, "rev-parse", "HEAD")
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var s reconciler.Status
		err := control.Ask(context.Background(), data, http.MethodGet, "/status", &s)
		if err == nil && s.InForce.Hash == head {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("not converged: %v, %+v", err, s)
		}
	}
	view := roster(t, follow.Config{URL: "unix:" + filepath.Join(data, feed.Socket)}, head)
	for w := range 6 {
		name := fmt.Sprintf("gw-%d-7", w)
		want := fmt.Sprint("round ", rounds-1-(rounds-1-w)%2)
		s, err := asnode.State(t.Context(), "http://"+addr, name, keys[name])
		must(t, err)
		if apps := s.Desired().Apps; len(apps) != 1 || apps[0].Containers[0].Env["VALUE"] != want {
			t.Errorf("node %s: %+v, want %q", name, apps, want)
		}
		if s.Generation() < before[name].Generation {
			t.Errorf("node %s: generation %d, before %d", name, s.Generation(), before[name].Generation)
		}
		if n, ok := view.Node(name); !ok || n.Generation != s.Generation() || n.PublicKey != keys[name] {
			t.Errorf("node %s: hubs are told %+v, published is generation %d", name, n, s.Generation())
		}
	}
}

const app = `package fleet

app: web: {
	placement: selector: role: "gateway"
	container: web: {
		image: "registry.example/web@sha256:0000000000000000000000000000000000000000000000000000000000000001"
		env: VALUE: "round %d"
		resources: {cpu: 0.5, memory: "64MiB"}
	}
}
`

func gitRun(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=Ana", "GIT_AUTHOR_EMAIL=ana@example.com", "GIT_COMMITTER_NAME=Ana", "GIT_COMMITTER_EMAIL=ana@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// signingKeys makes cosign.key and, in trust, the root document that lists it.
func signingKeys(t *testing.T, dir string) {
	t.Helper()
	private, _ := pair(t)
	signer, err := sign.Load(private, []byte(script.Password))
	must(t, err)
	write(t, filepath.Join(dir, "cosign.key"), private)
	rootPrivate, _ := pair(t)
	root, err := sign.Load(rootPrivate, []byte(script.Password))
	must(t, err)
	draft, err := trust.New([]crypto.PublicKey{root.Public()}, 1, []crypto.PublicKey{signer.Public()})
	must(t, err)
	must(t, draft.Sign(root.Key()))
	_, _, err = trustdir.Save(filepath.Join(dir, "trust"), draft, nil)
	must(t, err)
}

func nodeKey(t *testing.T) string {
	t.Helper()
	k, err := nkeys.CreateUser()
	must(t, err)
	public, err := k.PublicKey()
	must(t, err)
	return public
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
