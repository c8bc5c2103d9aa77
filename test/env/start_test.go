package env

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// starter makes this test a process that starts a daemon and waits to be killed.
const starter = "SELVEDGE_TEST_STARTER"

// TestStart holds that a daemon is out of reach of the terminal, and ends with who started it.
func TestStart(t *testing.T) {
	if os.Getenv(starter) != "" {
		cmd := exec.Command("sleep", "1000")
		cmd.Stdout = os.Stdout
		if _, err := Start(cmd); err != nil {
			t.Fatal(err)
		}
		fmt.Println(cmd.Process.Pid)
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestStart$")
	cmd.Env = append(os.Environ(), starter+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	line, err := r.ReadString('\n')
	var pid int
	if _, serr := fmt.Sscan(strings.TrimSpace(line), &pid); err != nil || serr != nil {
		t.Fatalf("%q: %v, %v", line, err, serr)
	}
	if group, err := syscall.Getpgid(pid); err != nil || group != pid {
		t.Errorf("the daemon %d is in the process group %d, %v", pid, group, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err != nil { // ends when neither has it open any more
		t.Error(err)
	}
	_ = cmd.Wait() // killed
}

func TestStartOfNothing(t *testing.T) {
	if _, err := Start(exec.Command("/no/such/command")); err == nil {
		t.Error("it started")
	}
}
