package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"selvedge/test/env"
)

func TestMain(m *testing.M) {
	code := env.Alone(m)
	if bin != "" {
		_ = os.RemoveAll(bin) // it is temporary
	}
	os.Exit(code)
}

var bin string // what TestMain removes

// binaries builds the commands once and returns their folder.
var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "selvedge-e2e-bin-")
	if err != nil {
		return "", err
	}
	bin = dir
	build := exec.Command("go", "build", "-trimpath", "-o", dir+string(filepath.Separator),
		"selvedge/cmd/selvedge", "selvedge/cmd/selvedge-reconciler", "selvedge/cmd/selvedge-hub", "selvedge/cmd/selvedge-edge", "selvedge/test/demo", "selvedge/test/e2e/tool")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the commands: %w\n%s", err, out)
	}
	return dir, nil
})
