package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"selvedge/reconciler/validate"
	"selvedge/test/script"
)

func TestMain(m *testing.M) {
	validate.Worker() // a command that runs in a script starts it, too
	testscript.Main(m, map[string]func(){"selvedge": func() { os.Exit(run()) }})
}

func TestScripts(t *testing.T) { script.RunWith(t, startHub) }
