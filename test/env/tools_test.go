package env

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTools holds that .ci/tools builds what is missing, and nothing when all is there. Its
// go is a script: the real one takes minutes.
func TestTools(t *testing.T) {
	path, dir := t.TempDir(), filepath.Join(t.TempDir(), "tools")
	script := `#!/bin/sh
case "$*" in
version) echo go version go1.0 ;;
*cosign@*) : >"$GOBIN/cosign" && chmod +x "$GOBIN/cosign" ;;
*) : >"$GOBIN/cue" && : >"$GOBIN/crane" && chmod +x "$GOBIN/cue" "$GOBIN/crane" ;;
esac
`
	if err := os.WriteFile(filepath.Join(path, "go"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	builds := func(what string, want bool) {
		t.Helper()
		cmd := exec.Command("../../.ci/tools", dir)
		cmd.Env = append(os.Environ(), "PATH="+path+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		if got := strings.Contains(string(out), "building"); err != nil || got != want {
			t.Errorf("%s: built: %v, %v: %s", what, got, err, out)
		}
		for _, name := range []string{"cue", "crane", "cosign-v2", "cosign-v3"} {
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode()&0o100 == 0 {
				t.Errorf("%s: %s: %v", what, name, err)
			}
		}
	}
	builds("at first", true)
	builds("again", false)
	for _, name := range []string{"crane", "cosign-v2"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		builds(name+" was deleted", true)
	}
	if err := os.Chmod(filepath.Join(dir, "cue"), 0o600); err != nil {
		t.Fatal(err)
	}
	builds("one cannot be run", true)
	if err := os.WriteFile(filepath.Join(dir, ".built"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	builds("a build was cut off", true)
	builds("at last", false)
}
