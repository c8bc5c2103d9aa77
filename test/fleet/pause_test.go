package fleet

import (
	"syscall"
	"testing"
	"time"

	"selvedge/reconciler/hub/client"
	"selvedge/schema/nodestate"
	"selvedge/test/swarm"
)

// TestHubEndsUnderLoad tells the hub to end while nodes report and people follow logs: it does,
// soon and in order, and the next one has all of them.
func TestHubEndsUnderLoad(t *testing.T) {
	n := crowd(t)
	b := newBed(t, n)
	b.swarm(swarm.Config{Interval: 200 * time.Millisecond, Retry: time.Second, Rate: 2000, Granted: nodestate.Remote{Logs: true}, Logs: pour})
	b.until(time.Minute, "all to be heard of", func() bool { return b.ready(time.Time{}) == n })
	for range 2 {
		began, ended := make(chan struct{}, 1), make(chan error, 10)
		for range cap(ended) {
			go func() {
				ended <- b.client("ana").Logs(t.Context(), "node-0", client.LogOptions{Agent: true}, writer(func(p []byte) (int, error) {
					select {
					case began <- struct{}{}:
					default:
					}
					return len(p), nil
				}), nil)
			}()
			<-began
		}
		must(t, b.hub.Process.Signal(syscall.SIGTERM))
		over := make(chan error, 1)
		go func() { over <- b.hub.Wait() }()
		select {
		case err := <-over:
			must(t, err)
		case <-time.After(patience * 20 * time.Second):
			t.Fatal("the hub does not end")
		}
		for range cap(ended) {
			<-ended
		}
		b.start()
		since := time.Now()
		b.until(time.Minute, "all to be back", func() bool { return b.ready(since) == n })
	}
}

// TestSilentCuts loses the connections of all nodes twice without a word, so that the hub has
// the old ones still when the new ones come.
func TestSilentCuts(t *testing.T) {
	n := crowd(t) / 10
	b := newBed(t, n)
	s := b.swarm(swarm.Config{Hubs: []string{b.link.url}, Interval: 300 * time.Millisecond, Retry: 300 * time.Millisecond, Ping: 500 * time.Millisecond, Rate: 2000, Runs: 1})
	b.until(20*time.Second, "all to be heard of", func() bool { return b.ready(time.Time{}) == n })
	for range 2 {
		b.link.lose()
		lost := time.Now()
		// what was on the way arrives within the second
		b.until(30*time.Second, "all to be back", func() bool { return s.Connected() == n && b.ready(lost.Add(time.Second)) == n })
	}
	for name := range b.keys {
		l, err := b.client("ana").Events(t.Context(), client.EventQuery{Node: name, Limit: 100})
		must(t, err)
		for _, e := range l.Items {
			if e.Reason == "TwoMachines" {
				t.Errorf("%s: a link that broke is taken for a stolen key", name)
			}
		}
	}
}

// TestHubPaused stops the hub's process for longer than a server of the bus may be silent, as
// when its machine is paused. Nobody was silent: it did not listen.
func TestHubPaused(t *testing.T) {
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
