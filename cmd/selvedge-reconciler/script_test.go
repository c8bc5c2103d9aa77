package main

import (
	"crypto"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"selvedge/reconciler/sign"
	"selvedge/reconciler/trustdir"
	"selvedge/reconciler/validate"
	"selvedge/schema"
	"selvedge/schema/trust"
	"selvedge/test/script"
)

func TestMain(m *testing.M) {
	validate.Worker() // a command that runs in a script starts it, too
	testscript.Main(m, map[string]func(){"selvedge-reconciler": func() { os.Exit(run()) }})
}

// TestScripts gives each script the schema in $SCHEMA, and in its folder cosign.key with
// its root of trust, and other.key, which no root lists.
func TestScripts(t *testing.T) {
	vendored := t.TempDir()
	for name, b := range schema.Vendor() {
		rel, err := filepath.Rel("cue.mod", name)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(vendored, rel), b)
	}
	private, public := pair(t)
	other, _ := pair(t)
	rootPrivate, _ := pair(t)
	rootKey, err := sign.Load(rootPrivate, []byte(script.Password))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := sign.Load(private, []byte(script.Password))
	if err != nil {
		t.Fatal(err)
	}
	draft, err := trust.New([]crypto.PublicKey{rootKey.Public()}, 1, []crypto.PublicKey{signer.Public()})
	if err != nil {
		t.Fatal(err)
	}
	if err := draft.Sign(rootKey.Key()); err != nil {
		t.Fatal(err)
	}
	script.RunWith(t, func(e *testscript.Env) error {
		e.Setenv("SCHEMA", vendored)
		for name, b := range map[string][]byte{"cosign.key": private, "cosign.pub": public, "other.key": other} {
			if err := os.WriteFile(filepath.Join(e.WorkDir, name), b, 0o600); err != nil {
				return err
			}
		}
		_, _, err := trustdir.Save(filepath.Join(e.WorkDir, "trust"), draft, nil)
		return err
	})
}

func pair(t *testing.T) (private, public []byte) {
	t.Helper()
	private, public, err := sign.GenerateKeyPair([]byte(script.Password))
	if err != nil {
		t.Fatal(err)
	}
	return private, public
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
