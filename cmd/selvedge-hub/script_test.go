package main

import (
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

// TestScripts gives each script a data directory with an audit log of three entries: logged.
func TestScripts(t *testing.T) {
	script.RunWith(t, func(e *testscript.Env) error {
		l, err := audit.Open(audit.Config{Path: filepath.Join(e.WorkDir, "logged", "audit.log"), Log: slog.New(slog.DiscardHandler)})
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
	})
}
