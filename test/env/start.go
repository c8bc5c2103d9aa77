package env

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts a daemon; the channel is closed once it has ended. Ctrl-C in a terminal does
// not reach it, so that this process can end it when its turn comes; and it does not outlive
// this process, however that ends.
func Start(cmd *exec.Cmd) (ended <-chan struct{}, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	began, done := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the kernel takes the end of the thread that started it for ours
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		began <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
		}
	}()
	return done, <-began
}
