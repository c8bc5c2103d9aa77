package main

import (
	"bytes"
	"crypto"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"selvedge/reconciler"
	"selvedge/reconciler/git"
	"selvedge/reconciler/publish"
	"selvedge/reconciler/sign"
	"selvedge/reconciler/trustdir"
	"selvedge/reconciler/validate"
	"selvedge/schema/nodestate"
	"selvedge/schema/trust"
	"selvedge/test/asnode"
	"selvedge/test/env"
)

// TestBuildIsWhatIsPublished holds that `selvedge build` writes, byte for byte, what the
// reconciler publishes for the same commit, for every node of the example fleet.
func TestBuildIsWhatIsPublished(t *testing.T) {
	_, err := exec.LookPath("git")
	env.Need(t, err)
	dir := t.TempDir()
	fleet, trusted, out := filepath.Join(dir, "fleet"), filepath.Join(dir, "trust"), filepath.Join(dir, "out")
	must(t, os.CopyFS(fleet, os.DirFS("../../examples-repo")))
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "-A"}, {"commit", "-q", "-m", "one"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = fleet
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
			"GIT_AUTHOR_NAME=Ana", "GIT_AUTHOR_EMAIL=ana@example.com", "GIT_COMMITTER_NAME=Ana", "GIT_COMMITTER_EMAIL=ana@example.com")
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v: %s", args, err, b)
		}
	}
	c := command()
	c.SetArgs([]string{"build", fleet, "--out", out})
	c.SetErr(t.Output())
	must(t, c.ExecuteContext(t.Context()))

	signer, root := key(t), key(t)
	draft, err := trust.New([]crypto.PublicKey{root.Public()}, 1, []crypto.PublicKey{signer.Public()})
	must(t, err)
	must(t, draft.Sign(root.Key()))
	_, _, err = trustdir.Save(trusted, draft, nil)
	must(t, err)
	store, err := publish.Open(publish.Config{Path: filepath.Join(dir, "states.db")})
	must(t, err)
	defer store.Close()
	quiet := slog.New(slog.DiscardHandler)
	v := validate.New(validate.Config{Log: quiet})
	defer v.Close()
	must(t, reconciler.New(reconciler.Config{
		Git:       git.New(git.Config{Remote: fleet, Log: quiet}),
		Validator: v, Signer: signer, Publisher: store, TrustDir: trusted, DataDir: dir, Log: quiet,
	}).Once(t.Context()))

	s := httptest.NewServer(store.Handler())
	defer s.Close()
	heads, err := store.Heads()
	must(t, err)
	files, err := os.ReadDir(out)
	must(t, err)
	if len(heads) == 0 || len(files) != len(heads) {
		t.Errorf("%d states built, %d published", len(files), len(heads))
	}
	for _, f := range files {
		built, err := os.ReadFile(filepath.Join(out, f.Name()))
		must(t, err)
		state, err := nodestate.Decode(built)
		must(t, err)
		pulled, err := asnode.State(t.Context(), s.URL, state.Node, state.Identity.PublicKey)
		must(t, err)
		if state.Node+".json" != f.Name() || !bytes.Equal(content(t, pulled.Raw()), built) {
			t.Errorf("%s differs from what is published", f.Name())
		}
		var one strings.Builder
		c := command()
		c.SetArgs([]string{"build", fleet, "--rev", "HEAD", "--node", state.Node})
		c.SetOut(&one)
		if len(files) > 3 && state.Node != "gw-demo" {
			continue // one of them is enough
		}
		must(t, c.ExecuteContext(t.Context()))
		if one.String() != string(built) {
			t.Errorf("node %s: --node prints other bytes than --out writes", state.Node)
		}
	}
}

// content is the content layer of a signed manifest.
func content(t *testing.T, signed []byte) []byte {
	t.Helper()
	u, err := nodestate.Unpack(signed)
	must(t, err)
	d, err := zstd.NewReader(nil)
	must(t, err)
	defer d.Close()
	b, err := d.DecodeAll(u.Layer, nil)
	must(t, err)
	return b
}

func key(t *testing.T) *sign.Signer {
	t.Helper()
	private, _, err := sign.GenerateKeyPair([]byte("pw"))
	must(t, err)
	s, err := sign.Load(private, []byte("pw"))
	must(t, err)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
