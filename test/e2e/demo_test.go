package e2e

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"selvedge/test/env"
)

// TestDemoInterrupted does to the demo what Ctrl-C in a terminal does: the signal reaches all of
// its process group. It must end in order, and leave nothing.
func TestDemoInterrupted(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs containers")
	}
	env.Need(t, env.CanContainerd())
	env.Need(t, env.CanRegistry())
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp("", "sv-demo-") // sockets' paths are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(tmp); err != nil {
			t.Error(err)
		}
	})
	cmd := exec.Command(filepath.Join(bin, "demo"), "-bin", bin, "-examples", filepath.Join("..", "..", "examples-repo"))
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// a demo that hangs must not hold the test for ever; of its end the output tells
	late := time.AfterFunc(10*time.Minute, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) })
	defer late.Stop()
	said, asked := "", false
	for s := bufio.NewScanner(out); s.Scan(); {
		said += s.Text() + "\n"
		if strings.HasPrefix(s.Text(), "Ctrl-C ends all") {
			asked = true
			if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil || !asked || strings.Contains(said, "\ndemo: ") {
		t.Errorf("%v:\n%s", err, said)
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("left in the temporary folder: %v, %v", left, err)
	}
	for _, pattern := range []string{"/run/netns/sv-*", "/sys/class/net/sv-*", "/run/nerdctl/*"} {
		if found, err := filepath.Glob(pattern); err != nil || len(found) > 0 {
			t.Errorf("left: %v, %v", found, err)
		}
	}
	if rules := iptables(t); strings.Contains(rules, "18080") {
		t.Errorf("left in iptables:\n%s", rules)
	}
}
