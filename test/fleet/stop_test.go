package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"selvedge/edge/uplink"
	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
	"selvedge/test/swarm"
)

// TestHubStopped tells the hub to stop, as an update does, while a log is followed, a command
// runs and a restart is under way: nobody is told that all went well, the hub does not wait for
// them, and the log goes on at the next one without a line lost.
func TestHubStopped(t *testing.T) {
	b := newBed(t, 1)
	began := time.Now()
	running, restarting, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	defer close(done)
	b.swarm(swarm.Config{Retry: time.Second, Granted: nodestate.Remote{Logs: true, Exec: true, Restart: true},
		Logs: func(ctx context.Context, r wire.LogsRequest, w io.Writer) error {
			at := max(began.UnixMilli(), r.Since.UnixMilli()+9) // a line each 10 ms
			for at = at / 10 * 10; ctx.Err() == nil; at += 10 {
				time.Sleep(time.Until(time.UnixMilli(at)))
				if _, err := fmt.Fprintf(w, "%s line %d\n", time.UnixMilli(at).UTC().Format(time.RFC3339Nano), at/10); err != nil {
					return err
				}
			}
			return ctx.Err()
		},
		Exec: func(ctx context.Context, _ wire.ExecRequest, _ uplink.Terminal) (int, error) {
			close(running)
			<-ctx.Done()
			return 0, ctx.Err()
		},
		Restart: func(context.Context, wire.RestartRequest) error {
			close(restarting)
			<-done
			return nil
		}})
	c := b.client("ana")
	b.until(time.Minute, "the node to be connected", func() bool { return b.node("node-0").Connected })

	followed, stop := context.WithCancel(t.Context())
	defer stop()
	var lines, lost atomic.Int64
	var last int64
	logged, ran, restarted := make(chan error, 1), make(chan error, 1), make(chan error, 1)
	go func() {
		logged <- c.Logs(followed, "node-0", client.LogOptions{Agent: true, Follow: true}, writer(func(p []byte) (int, error) {
			for l := range bytes.Lines(p) {
				var n int64
				if _, err := fmt.Sscanf(string(l[bytes.Index(l, []byte("line")):]), "line %d", &n); err != nil {
					return 0, fmt.Errorf("%q: %w", l, err)
				}
				if last != 0 && n != last+1 {
					return 0, fmt.Errorf("line %d follows %d", n, last)
				}
				last = n
				lines.Add(1)
			}
			return len(p), nil
		}), func(error) { lost.Add(1) })
	}()
	go func() {
		_, err := c.Exec(t.Context(), "node-0", client.ExecOptions{App: "app-0", Command: []string{"sleep"}}, client.Streams{})
		ran <- err
	}()
	go func() { restarted <- c.Restart(t.Context(), "node-0", hubapi.RestartRequest{App: "app-0"}) }()
	for _, asked := range []chan struct{}{running, restarting} {
		select {
		case <-asked:
		case <-time.After(patience * time.Minute):
			t.Fatal("the node is not asked for all of it")
		}
	}
	b.until(time.Minute, "the log to begin", func() bool { return lines.Load() > 10 })

	hub := b.hub
	b.end(syscall.SIGTERM)
	if code := hub.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the hub ended with %v", hub.ProcessState)
	}
	for what, err := range map[string]error{"a command": <-ran, "a restart": <-restarted} {
		if err == nil || strings.Contains(err.Error(), "context canceled") {
			t.Errorf("%s that the hub's end cut short: %v", what, err)
		}
	}
	b.until(time.Minute, "the log to break", func() bool { return lost.Load() > 0 })
	before := lines.Load()
	b.start()
	b.until(time.Minute, "the log to go on", func() bool { return lines.Load() > before+10 })
	stop()
	if err := <-logged; !errors.Is(err, context.Canceled) {
		t.Errorf("the log ended: %v", err)
	}
}
