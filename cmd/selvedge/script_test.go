package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/nats-io/nkeys"
	"github.com/rogpeppe/go-internal/testscript"

	"selvedge/reconciler/validate"
	"selvedge/schema/wire"
	"selvedge/test/script"
)

func TestMain(m *testing.M) {
	validate.Worker() // a command that runs in a script starts it, too
	testscript.Main(m, map[string]func(){"selvedge": func() { os.Exit(run()) }})
}

func TestScripts(t *testing.T) {
	script.RunWith(t, func(e *testscript.Env) error {
		return errors.Join(startHub(e), introduce(e))
	})
}

// introduce puts the introduction of a node into $INTRODUCTION, and beside it one that somebody changed.
func introduce(e *testscript.Env) error {
	key, err := nkeys.CreateUser()
	if err != nil {
		return err
	}
	age, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	i := wire.Introduction{Format: wire.IntroductionFormat, Recipient: age.Recipient().String(), Machine: wire.Machine{Hostname: "gw"}}
	if i.PublicKey, err = key.PublicKey(); err != nil {
		return err
	}
	if i.Signature, err = key.Sign(i.Message()); err != nil {
		return err
	}
	name := filepath.Join(e.WorkDir, "gw.json")
	e.Setenv("INTRODUCTION", name)
	for _, file := range []string{name, name + ".changed"} {
		b, err := json.Marshal(i)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return err
		}
		i.Recipient = "age1" + strings.Repeat("q", 58)
	}
	return nil
}
