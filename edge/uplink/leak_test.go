package uplink_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"testing"
	"time"

	"selvedge/edge/uplink"
	"selvedge/schema/wire"
)

// A link that flaps for a long time, with people who look on, leaves nothing behind: no goroutines,
// no open files, no memory.
func TestFlappingLeavesNothing(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	r := lonelyRig(t)
	r.logs = func(ctx context.Context, _ wire.LogsRequest, w io.Writer) error {
		for ctx.Err() == nil {
			if _, err := w.Write([]byte("a line\n")); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
	r.exec = func(ctx context.Context, _ wire.ExecRequest, t uplink.Terminal) (int, error) {
		io.Copy(t.Stdout, t.Stdin)
		return 0, ctx.Err()
	}
	flap := func(n int) {
		r.until("the connection", func() bool {
			// not for long: one that the connection before took has no answer
			_, err := r.hub.Conn.Request(wire.RequestSubject("gw-1", "are-you-there"), nil, time.Second)
			return err == nil // an answer, if only that it knows no such verb
		})
		r.open(wire.VerbLogs, fmt.Sprint("l", n), wire.LogsRequest{App: "web", Stream: fmt.Sprint("l", n), Follow: true, Window: 4})
		r.open(wire.VerbExec, fmt.Sprint("e", n), wire.ExecRequest{App: "web", Stream: fmt.Sprint("e", n), Command: []string{"cat"}, Stdin: true, Window: 4}).input("x")
		r.hub.Cut()
		r.until("the streams to end", func() bool { return r.up.Link().Streams == 0 })
	}
	for n := range 5 { // pools and caches fill
		flap(n)
	}
	r.until("the connection", func() bool { return r.up.Link().Connected })
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	for n := range rounds {
		flap(n + 5)
	}
	r.until("the connection", func() bool { return r.up.Link().Connected })
	const slack = 12 // connections that are being closed, on the hub's side too
	r.until(fmt.Sprintf("%d goroutines and %d files to be left", goroutines, files), func() bool {
		time.Sleep(10 * time.Millisecond)
		return runtime.NumGoroutine() <= goroutines+slack && openFiles(t) <= files+slack
	})
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(list)
}
