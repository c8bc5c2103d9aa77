//go:build !linux

package validate

import (
	"os"
	"os/exec"
	"runtime/debug"
	"time"
)

// Where there is no Linux, people check their own repos: the wall clock and the caps
// on reading and output hold, and the collector's limit stands in for the kernel's.

func selfPath() (string, error) { return os.Executable() }

func isolate(*exec.Cmd) bool { return false }

func confine(memory int64) error {
	debug.SetGCPercent(1000)
	debug.SetMemoryLimit(memory)
	debug.SetMaxStack(64 << 20)
	return nil
}

func capCPU(time.Duration) error { return nil }

func renewCPU(time.Duration) error { return nil }

func residentSize(int) int64 { return 0 }
