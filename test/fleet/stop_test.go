package fleet

import (
	"syscall"
	"testing"
	"time"

	"selvedge/test/swarm"
)

// TestHubStopped stops the hub's process for longer than a server of the bus may be silent, as
// when its machine is paused. Nobody was silent: it did not listen.
func TestHubStopped(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for 40 seconds")
	}
	b := newBed(t, 20)
	s := b.swarm(swarm.Config{Interval: time.Second, Retry: time.Second, Runs: 1})
	b.until(30*time.Second, "all to be heard of", func() bool { return b.ready(time.Time{}) == 20 })
	time.Sleep(12 * time.Second) // the server's statistics have been heard
	must(t, b.hub.Process.Signal(syscall.SIGSTOP))
	time.Sleep(40 * time.Second)
	must(t, b.hub.Process.Signal(syscall.SIGCONT))
	time.Sleep(3 * time.Second) // it looks after its servers once a second
	began := time.Now()
	b.until(time.Minute, "all to be shown as connected, and heard", func() bool { return s.Connected() == 20 && b.ready(began) == 20 })
}
