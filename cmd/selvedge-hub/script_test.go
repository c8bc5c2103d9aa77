package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"selvedge/reconciler/hub/audit"
	"selvedge/schema/hubapi"
	"selvedge/test/script"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"selvedge-hub": func() { os.Exit(run()) }})
}

// TestScripts gives each script data directories with audit logs of three entries: logged, and
// cut, of which the oldest file was taken away.
func TestScripts(t *testing.T) {
	script.RunWith(t, func(e *testscript.Env) error {
		cut := filepath.Join(e.WorkDir, "cut", "audit.log")
		return errors.Join(
			logged(t, audit.Config{Path: filepath.Join(e.WorkDir, "logged", "audit.log")}),
			logged(t, audit.Config{Path: cut, MaxSize: 1}), os.Remove(cut+".1"))
	})
}

func logged(t *testing.T, c audit.Config) error {
	c.Log = slog.New(slog.DiscardHandler)
	l, err := audit.Open(c)
	if err != nil {
		return err
	}
	for _, app := range []string{"hmi", "plc", "historian"} {
		entry := hubapi.AuditEntry{Operation: "restart", Subject: "user:ana", Node: "gw-7", Outcome: hubapi.OutcomeDone, Detail: app}
		if err := l.Append(t.Context(), entry); err != nil {
			return err
		}
	}
	return l.Close()
}
