package uplink_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"selvedge/edge/uplink"
	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

func TestStatus(t *testing.T) {
	r := newRig(t)
	first := r.seen("a status", func(wire.Status) bool { return true })
	if first.Node != "gw-1" || first.Epoch == "" || first.Seq == 0 || first.Time.IsZero() {
		t.Errorf("%+v", first)
	}
	next := r.seen("the next", func(wire.Status) bool { return true })
	if next.Seq != first.Seq+1 || next.Epoch != first.Epoch {
		t.Errorf("%d after %d", next.Seq, first.Seq)
	}
	r.mu.Lock()
	r.status.Why = "changed"
	r.mu.Unlock()
	r.up.Changed()
	r.seen("the change", func(s wire.Status) bool { return s.Why == "changed" })
	if l := r.up.Link(); !l.Connected || l.Why != "" {
		t.Errorf("%+v", l)
	}
}

// A status of anything is within its bounds, and says who it is of.
func TestStatusIsBounded(t *testing.T) {
	r := newRig(t)
	app := wire.App{Name: "a"}
	for range 5000 {
		app.Containers = append(app.Containers, wire.Instance{Name: "main", Image: strings.Repeat("i", 200), Problem: strings.Repeat("\x00", 9000), Usage: &wire.Usage{}})
	}
	r.mu.Lock()
	r.status = wire.Status{Why: strings.Repeat("ü", 1<<20), Apps: []wire.App{app}}
	r.mu.Unlock()
	for {
		m := r.next(r.statuses)
		if len(m.Data) > wire.MaxStatus {
			t.Fatalf("%d bytes", len(m.Data))
		}
		if strings.Contains(string(m.Data), `"apps"`) {
			break
		}
	}
}

func TestEventsAreToldAgain(t *testing.T) {
	r := newRig(t)
	for n := range 300 {
		r.up.Event(wire.Event{Severity: "info", Reason: fmt.Sprint("E", n), Message: "one\nline \x1b[31m"})
	}
	e := r.happened("E299")
	if e.Message != "one line [31m" || e.Seq != 300 {
		t.Errorf("%+v", e)
	}
	if all := r.up.Events(); len(all) != wire.MaxEvents || all[0].Reason != "E44" {
		t.Errorf("%d events, from %s", len(all), all[0].Reason)
	}
	r.hub.Cut()
	r.happened("E44")
	r.hub.Conn.Publish(wire.RequestSubject("gw-1", wire.VerbReport), nil)
	r.happened("E44")
}

func TestNotice(t *testing.T) {
	r := newRig(t)
	r.connected()
	r.hub.Conn.Publish(wire.RequestSubject("gw-1", wire.VerbNotice), []byte(`{"generation":7,"new":1}`))
	r.until("the notice", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.notices) == 1 && r.notices[0].Generation == 7
	})
}

func TestLogs(t *testing.T) {
	r := newRig(t)
	r.connected()
	r.logs = func(_ context.Context, q wire.LogsRequest, w io.Writer) error {
		fmt.Fprintf(w, "log of %s, tail %d\n", q.App, q.Tail)
		return nil
	}
	f := r.open(wire.VerbLogs, "s1", wire.LogsRequest{Stream: "s1", By: "ana\x1b[2J\nroot", App: "web", Tail: 5, Window: wire.Window})
	if out, _, end := f.all(); out != "log of web, tail 5\n" || end.Error != nil {
		t.Errorf("%q, %+v", out, end)
	}
	r.until("who asked to be logged", func() bool { return strings.Contains(r.log.String(), `by="ana [2J root"`) })
	r.logs = func(context.Context, wire.LogsRequest, io.Writer) error {
		return fmt.Errorf("wrapped: %w", &wire.Error{Code: wire.CodeNotFound, Message: "no such app"})
	}
	f = r.open(wire.VerbLogs, "s1", wire.LogsRequest{Stream: "s1", App: "web", Window: 1})
	if _, _, end := f.all(); end.Error == nil || end.Error.Code != wire.CodeNotFound {
		t.Errorf("%+v", end)
	}
}

// A reader that takes nothing holds up its own stream, at the window, and gets all in the end.
func TestCredit(t *testing.T) {
	r := newRig(t)
	r.connected()
	const total = 40 * wire.MaxFrame
	chunk := []byte(strings.Repeat("0123456789abcdef", 1<<12))
	r.logs = func(_ context.Context, _ wire.LogsRequest, w io.Writer) error {
		for n := 0; n < total; n += len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return err
			}
		}
		return nil
	}
	f := r.open(wire.VerbLogs, "slow", wire.LogsRequest{App: "web", Stream: "slow", Window: 4})
	r.until("the window to be used", func() bool { n, _, _ := f.sub.Pending(); return n == 4 })
	quick := r.open(wire.VerbLogs, "quick", wire.LogsRequest{App: "web", Stream: "quick", Window: wire.Window})
	if out, _, end := quick.all(); len(out) != total || end.Error != nil {
		t.Errorf("%d bytes, %+v", len(out), end)
	}
	if n, _, _ := f.sub.Pending(); n != 4 {
		t.Errorf("%d frames in flight", n)
	}
	if out, _, end := f.all(); len(out) != total || end.Error != nil {
		t.Errorf("%d bytes, %+v", len(out), end)
	}
}

func TestExec(t *testing.T) {
	r := newRig(t)
	r.connected()
	r.exec = func(_ context.Context, q wire.ExecRequest, term uplink.Terminal) (int, error) {
		in, err := io.ReadAll(term.Stdin)
		if err != nil {
			return 0, err
		}
		s := <-term.Resize
		fmt.Fprintf(term.Stdout, "%s %dx%d", in, s.Rows, s.Columns)
		fmt.Fprint(term.Stderr, "oops")
		return 7, nil
	}
	f := r.open(wire.VerbExec, "x", wire.ExecRequest{Stream: "x", App: "web", Command: []string{"sh"}, Stdin: true, TTY: true, Window: wire.Window})
	f.say(wire.Control{Rows: 1, Columns: 1})
	f.say(wire.Control{Rows: 24, Columns: 80})
	f.input("he")
	f.input("llo")
	f.say(wire.Control{EOF: true})
	if out, errs, end := f.all(); out != "hello 24x80" || errs != "oops" || end.ExitCode != 7 || end.Error != nil {
		t.Errorf("%q, %q, %+v", out, errs, end)
	}
	f = r.open(wire.VerbExec, "gap", wire.ExecRequest{App: "web", Stream: "gap", Command: []string{"sh"}, Stdin: true, Window: 1})
	f.input("a")
	f.seq++
	f.input("c")
	if _, _, end := f.all(); end.Error == nil || !strings.Contains(end.Error.Message, "lost") {
		t.Errorf("%+v", end)
	}
}

func TestCancelAndSilence(t *testing.T) {
	r := newRig(t, func(_ *rig, c *uplink.Config) { uplink.SetIdle(c, 300*time.Millisecond) })
	r.connected()
	ended := make(chan error, 2)
	r.logs = func(ctx context.Context, _ wire.LogsRequest, _ io.Writer) error {
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return ctx.Err()
	}
	f := r.open(wire.VerbLogs, "c", wire.LogsRequest{App: "web", Stream: "c", Follow: true, Window: 1})
	for range 3 { // signs of life
		if kind, _ := f.frame(); kind != wire.FrameAlive {
			t.Errorf("frame %q", kind)
		}
		f.say(wire.Control{})
	}
	f.say(wire.Control{Cancel: true})
	<-ended
	f.all()
	f = r.open(wire.VerbLogs, "d", wire.LogsRequest{App: "web", Stream: "d", Follow: true, Window: 1})
	if err := <-ended; !strings.Contains(err.Error(), "said nothing") {
		t.Error(err)
	}
	if _, _, end := f.all(); end.Error == nil {
		t.Error("no reason")
	}
}

func TestRestart(t *testing.T) {
	r := newRig(t)
	r.connected()
	r.restart = func(_ context.Context, q wire.RestartRequest) error {
		if q.App != "web" {
			return errTest
		}
		return nil
	}
	if a := r.ask(wire.VerbRestart, wire.RestartRequest{By: "ana", App: "web"}); a.Error != nil {
		t.Error(a.Error)
	}
	r.happened("RestartRequested")
	r.refused(wire.VerbRestart, wire.RestartRequest{App: "x"}, wire.CodeFailed)
}

// What Git does not grant is not done, whatever the hub says, and it is told.
func TestNotGranted(t *testing.T) {
	r := newRig(t, func(r *rig, _ *uplink.Config) { r.remote = nodestate.Remote{} })
	r.connected()
	r.logs = func(context.Context, wire.LogsRequest, io.Writer) error { t.Error("done"); return nil }
	r.exec = func(context.Context, wire.ExecRequest, uplink.Terminal) (int, error) { t.Error("done"); return 0, nil }
	r.restart = func(context.Context, wire.RestartRequest) error { t.Error("done"); return nil }
	r.refused(wire.VerbLogs, wire.LogsRequest{Stream: "a", By: "mallory", Agent: true, Window: 1}, wire.CodeDenied)
	r.refused(wire.VerbExec, wire.ExecRequest{Stream: "a", By: "mallory", App: "web", Command: []string{"sh"}, Window: 1}, wire.CodeDenied)
	r.refused(wire.VerbRestart, wire.RestartRequest{By: "mallory", App: "web"}, wire.CodeDenied)
	if e := r.happened("RestartDenied"); !strings.Contains(e.Message, "mallory") || e.App != "web" {
		t.Errorf("%+v", e)
	}
	// positive control: the same, granted
	r.logs = func(_ context.Context, _ wire.LogsRequest, w io.Writer) error { return nil }
	r.grant(nodestate.Remote{Logs: true})
	if _, _, end := r.open(wire.VerbLogs, "b", wire.LogsRequest{Stream: "b", Agent: true, Window: 1}).all(); end.Error != nil {
		t.Error(end.Error)
	}
	r.refused(wire.VerbExec, wire.ExecRequest{App: "web", Stream: "a", Command: []string{"sh"}, Window: 1}, wire.CodeDenied)
}

// Taking a grant away ends what is open, at once.
func TestGrantIsTakenAway(t *testing.T) {
	r := newRig(t)
	r.connected()
	follow := func(ctx context.Context, _ wire.LogsRequest, w io.Writer) error {
		io.WriteString(w, "on")
		<-ctx.Done()
		return ctx.Err()
	}
	r.logs = follow
	r.exec = func(ctx context.Context, _ wire.ExecRequest, t uplink.Terminal) (int, error) {
		return 0, follow(ctx, wire.LogsRequest{}, t.Stdout)
	}
	logs := r.open(wire.VerbLogs, "l", wire.LogsRequest{App: "web", Stream: "l", Follow: true, Window: 1})
	exec := r.open(wire.VerbExec, "e", wire.ExecRequest{App: "web", Stream: "e", Command: []string{"sh"}, Window: 1})
	exec.frame()
	r.grant(nodestate.Remote{Logs: true})
	if _, _, end := exec.all(); end.Error == nil || end.Error.Code != wire.CodeDenied {
		t.Errorf("%+v", end)
	}
	r.happened("ExecDenied")
	if r.up.Link().Streams != 1 {
		t.Error("the log was ended too")
	}
	logs.say(wire.Control{Cancel: true})
	logs.all()
}
