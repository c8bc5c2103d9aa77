package world

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"selvedge/test/env"
)

// Process is a daemon whose output goes to a file.
type Process struct {
	Log  string
	cmd  *exec.Cmd
	done <-chan struct{}
}

// Spawn starts a command in the background; its output is appended to NAME.log of the
// world's folder.
func (w *World) Spawn(name string, cmd *exec.Cmd) (*Process, error) {
	cmd.Env = append(os.Environ(), "COSIGN_PASSWORD="+w.password)
	return Spawn(filepath.Join(w.Dir, name+".log"), cmd)
}

// Spawn starts a command in the background; its output is appended to a file.
func Spawn(log string, cmd *exec.Cmd) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	done, err := env.Start(cmd)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	return &Process{log, cmd, done}, nil
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Running reports whether it has not ended.
func (p *Process) Running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// End sends a signal and waits for the end; what does not end is killed.
func (p *Process) End(s syscall.Signal) {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(s) // it may have ended by itself
	select {
	case <-p.done:
	case <-time.After(15 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}
