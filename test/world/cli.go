package world

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Command is the path of one of the built commands.
func (w *World) Command(name string) string { return filepath.Join(w.Bin, name) }

// Run runs a command to its end, as Admin where it asks the hub, and returns what it printed.
func (w *World) Run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, w.Environ()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s%s", filepath.Base(name), strings.Join(args[:min(2, len(args))], " "), err, out, stderr.String())
	}
	return string(out), nil
}

// Selvedge runs the selvedge command in the clone.
func (w *World) Selvedge(ctx context.Context, args ...string) (string, error) {
	return w.Run(ctx, w.Clone, w.Command("selvedge"), args...)
}

// Environ is the environment of a person who works with this world.
func (w *World) Environ() []string {
	return append(os.Environ(), "COSIGN_PASSWORD="+w.password, "XDG_CONFIG_HOME="+filepath.Join(w.Dir, "config"),
		"SELVEDGE_HUB="+w.HubURL, "SELVEDGE_CA="+w.HubCA, "SELVEDGE_TOKEN="+w.Token)
}

// Git runs git.
func (w *World) Git(ctx context.Context, dir string, args ...string) error {
	_, err := w.Run(ctx, dir, "git", args...)
	return err
}

// Edit changes a file of the clone.
func (w *World) Edit(file string, change func(string) string) error {
	name := filepath.Join(w.Clone, file)
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	after := change(string(b))
	if after == string(b) {
		return fmt.Errorf("%s: nothing to change there; does examples-repo still look as is expected here?", file)
	}
	return os.WriteFile(name, []byte(after), 0o644)
}

// Commit commits all that changed in the clone, and pushes.
func (w *World) Commit(ctx context.Context, message string) error {
	for _, args := range [][]string{{"add", "-A"}, {"commit", "-q", "-m", message}} {
		if err := w.Git(ctx, w.Clone, args...); err != nil {
			return err
		}
	}
	return w.Push(ctx)
}

// Push pushes what is committed in the clone: the merge.
func (w *World) Push(ctx context.Context) error {
	return w.Git(ctx, w.Clone, "push", "-q", "origin", "HEAD:main")
}

// Until waits for something.
func (w *World) Until(ctx context.Context, most time.Duration, what string, ok func() bool) error {
	end := time.After(most)
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-end:
			return fmt.Errorf("waited %v for %s in vain", most, what)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// Write writes a file of the clone.
func (w *World) Write(file, text string) error {
	return os.WriteFile(filepath.Join(w.Clone, file), []byte(text), 0o644)
}

// EnvFile is a file to be read by a shell, with the environment of Admin.
func (w *World) EnvFile() string { return filepath.Join(w.Dir, "env.sh") }

// writeEnv writes EnvFile, and the token for those who sign in to the console.
func (w *World) writeEnv() error {
	text := fmt.Sprintf("export SELVEDGE=%q SELVEDGE_HUB=%q SELVEDGE_CA=%q SELVEDGE_TOKEN=%q\n", w.Command("selvedge"), w.HubURL, w.HubCA, w.Token)
	if err := os.WriteFile(w.EnvFile(), []byte(text), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(w.Dir, "token"), []byte(w.Token+"\n"), 0o600)
}
