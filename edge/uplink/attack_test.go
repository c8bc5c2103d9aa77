package uplink_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"selvedge/edge/uplink"
	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

// Whatever comes on whatever subject, the node lives and answers the next one.
func TestMalformed(t *testing.T) {
	r := newRig(t)
	r.connected()
	r.logs = func(_ context.Context, _ wire.LogsRequest, w io.Writer) error { return nil }
	junk := [][]byte{nil, {0}, []byte("null"), []byte("[]"), []byte(`{"stream":7}`), []byte(`{"stream":"a.b","window":1}`), []byte(`{"stream":">","window":1}`),
		[]byte(`{"stream":"a","window":0}`), []byte(`{"stream":"a","window":-5}`), []byte(`{"stream":"` + strings.Repeat("a", 65) + `","window":1}`),
		bytes.Repeat([]byte("["), wire.MaxRequest), bytes.Repeat([]byte("x"), wire.MaxMessage)}
	for _, verb := range []string{wire.VerbLogs, wire.VerbExec, wire.VerbRestart, "nonsense", "s", "s."} {
		for _, j := range junk {
			if verb == "s." {
				r.hub.Conn.Publish(wire.ControlSubject("gw-1", "x"), j)
				continue
			}
			if a := r.ask(verb, append([]byte{}, j...)); a.Error == nil || a.Error.Code != wire.CodeInvalid {
				t.Errorf("%s %.40q: %+v", verb, j, a.Error)
			}
		}
	}
	for _, j := range junk { // without a reply, and where nothing is answered
		for _, verb := range []string{wire.VerbNotice, wire.VerbReport, wire.VerbLogs} {
			r.hub.Conn.Publish(wire.RequestSubject("gw-1", verb), j)
		}
	}
	f := r.open(wire.VerbLogs, "good", wire.LogsRequest{App: "web", Stream: "good", Window: 1})
	if _, _, end := f.all(); end.Error != nil {
		t.Error(end.Error)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	r := newRig(t)
	r.connected()
	r.logs = func(ctx context.Context, _ wire.LogsRequest, _ io.Writer) error { <-ctx.Done(); return ctx.Err() }
	for n := range wire.MaxStreams {
		r.open(wire.VerbLogs, fmt.Sprint("s", n), wire.LogsRequest{App: "web", Stream: fmt.Sprint("s", n), Window: 1})
	}
	r.refused(wire.VerbLogs, wire.LogsRequest{App: "web", Stream: "more", Window: 1}, wire.CodeBusy)
	r.refused(wire.VerbLogs, wire.LogsRequest{App: "web", Stream: "s1", Window: 1}, wire.CodeInvalid)
	r.hub.Conn.Publish(wire.ControlSubject("gw-1", "s1"), []byte(`{"cancel":true}`))
	r.until("one to end", func() bool { return r.up.Link().Streams < wire.MaxStreams })
	r.open(wire.VerbLogs, "more", wire.LogsRequest{App: "web", Stream: "more", Window: 1})
}

// A command that reads nothing does not fill memory with its input.
func TestInputIsBounded(t *testing.T) {
	r := newRig(t)
	r.connected()
	r.exec = func(ctx context.Context, _ wire.ExecRequest, _ uplink.Terminal) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	f := r.open(wire.VerbExec, "x", wire.ExecRequest{App: "web", Stream: "x", Command: []string{"sleep"}, Stdin: true, Window: 1})
	for range 4<<20/wire.MaxInput + 10 { // as many as are kept, and some
		f.input(strings.Repeat("x", wire.MaxInput))
	}
	if _, _, end := f.all(); end.Error == nil || !strings.Contains(end.Error.Message, "does not read") {
		t.Errorf("%+v", end)
	}
}

// A hub that asks for what it may not, again and again, fills neither log nor ring.
func TestRequestsAreLimited(t *testing.T) {
	r := newRig(t, func(r *rig, _ *uplink.Config) { r.remote = nodestate.Remote{} })
	r.connected()
	began := time.Now()
	defer func() {
		most := 13 + int(time.Since(began)/time.Minute)*2 // ten at once, then one a minute of each kind
		reasons := map[string]int{}
		for _, e := range r.up.Events() {
			reasons[e.Reason]++
		}
		if n := len(r.up.Events()); n > most || reasons["RestartDenied"] == 0 || reasons["TooManyRequests"] == 0 {
			t.Errorf("%d events: %v", n, reasons)
		}
		if n := strings.Count(r.log.String(), "level=WARN"); n > most {
			t.Errorf("%d lines of the log", n)
		}
		if n := r.up.Denied(); n < 100 {
			t.Errorf("%d were counted", n)
		}
	}()
	codes := map[string]int{}
	for range 500 {
		codes[r.ask(wire.VerbRestart, wire.RestartRequest{App: "web"}).Error.Code]++
	}
	if codes[wire.CodeDenied] < 100 || codes[wire.CodeBusy] < 300 {
		t.Errorf("%v", codes)
	}
}

// However often a hub asks to be told all again, it is told that twice in a while.
func TestReplaysAreLimited(t *testing.T) {
	r := newRig(t)
	r.connected()
	r.up.Event(wire.Event{Reason: "Once"})
	r.happened("Once")
	began := time.Now()
	for range 1000 {
		r.hub.Conn.Publish(wire.RequestSubject("gw-1", wire.VerbReport), nil)
	}
	r.happened("Once") // again
	r.ask(wire.VerbRestart, nil)
	r.up.Event(wire.Event{Reason: "Last"})
	again := 0
	for done := false; !done; {
		var e wire.Events
		if err := json.Unmarshal(r.next(r.events).Data, &e); err != nil {
			t.Fatal(err)
		}
		for _, x := range e.Events {
			done = done || x.Reason == "Last"
			if x.Reason == "Once" {
				again++
			}
		}
	}
	if again > 1+int(time.Since(began)/(10*time.Second)) {
		t.Errorf("told %d times more", again)
	}
}

// A status that is too long says how many instances it leaves out.
func TestLeftOut(t *testing.T) {
	for _, n := range []int{1, wire.MaxInstance, wire.MaxInstance + 7, 20_000} {
		s := wire.Status{Node: "gw-1", Apps: []wire.App{{Name: "first"}, {Name: "second"}}}
		for i := range n {
			a := &s.Apps[i%2]
			a.Containers = append(a.Containers, wire.Instance{Name: fmt.Sprint(i), Image: strings.Repeat("i", 100+n/100), Problem: strings.Repeat("p", 3*wire.MaxText)})
		}
		b, err := uplink.Encode(s)
		if err != nil || len(b) > wire.MaxStatus {
			t.Fatalf("%d instances: %d bytes, %v", n, len(b), err)
		}
		var got wire.Status
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		told := 0
		for _, a := range got.Apps {
			told += len(a.Containers)
		}
		if told+got.LeftOut != n || n == 1 && got.LeftOut != 0 {
			t.Errorf("%d instances: %d told, %d left out", n, told, got.LeftOut)
		}
	}
}

// A connection that breaks ends streams, and the hub hears it after the next one.
func TestStreamsEndWithTheConnection(t *testing.T) {
	r := newRig(t)
	r.connected()
	gone := make(chan error, 1)
	r.logs = func(ctx context.Context, _ wire.LogsRequest, _ io.Writer) error {
		<-ctx.Done()
		gone <- context.Cause(ctx)
		return ctx.Err()
	}
	f := r.open(wire.VerbLogs, "l", wire.LogsRequest{App: "web", Stream: "l", Follow: true, Window: 1})
	r.hub.Cut()
	<-gone
	if _, _, end := f.all(); end.Error == nil || !strings.Contains(end.Error.Message, "interrupted") {
		t.Errorf("%+v", end)
	}
}

// A node that is out says so once, however often it asks.
func TestOneCauseIsSaidOnce(t *testing.T) {
	r := newRig(t)
	r.connected()
	public, _ := r.key.PublicKey()
	r.hub.Lock()
	delete(r.hub.Nodes, public)
	r.hub.Unlock()
	g, _, _ := r.keeper.Last()
	r.keeper.Stale(g.Bus)
	r.hub.Cut()
	const cause = "no node in Git has this key"
	r.until("the cause", func() bool { return strings.Contains(r.up.Link().Why, cause) })
	since, asked := r.up.Link().Since, r.hub.Count(wire.PathToken)
	r.until("more questions", func() bool { return r.hub.Count(wire.PathToken) >= asked+2 })
	if l := r.up.Link(); !l.Since.Equal(since) || strings.Count(l.Why, "hub ") != 1 {
		t.Errorf("%+v", l)
	}
	if n := strings.Count(r.log.String(), cause); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// The link flaps; the node is there afterwards.
func TestFlapping(t *testing.T) {
	r := newRig(t)
	for range 5 {
		r.connected()
		r.hub.Cut()
	}
	epoch := r.seen("it to be there", func(wire.Status) bool { return true }).Epoch
	if epoch == "" {
		t.Error("no epoch")
	}
}

// A token is renewed before the bus would cut the connection.
func TestRenewal(t *testing.T) {
	r := newRig(t, func(r *rig, _ *uplink.Config) { r.hub.Life, r.hub.BusLife = 3*time.Second, 3*time.Second })
	r.connected()
	r.until("a renewal", func() bool { return r.hub.Count(wire.PathToken) >= 3 })
	if strings.Contains(r.log.String(), "Expired") {
		t.Error("it waited until it was cut off")
	}
	r.seen("it to be there", func(wire.Status) bool { return true })
}

// A node that is not let in, or not any more, comes back by itself when it is.
func TestComesBack(t *testing.T) {
	public := ""
	r := newRig(t, func(r *rig, c *uplink.Config) {
		public, _ = r.key.PublicKey()
		delete(r.hub.Nodes, public)
	})
	r.until("the refusal to be told", func() bool { return strings.Contains(r.up.Link().Why, "no node in Git has this key") })
	r.hub.Approve(public, "gw-1")
	r.connected()
}

// Another's subjects are closed to the node; the hub's bus sees to that, and the node's uses none.
func TestStatusNamesItsNode(t *testing.T) {
	r := newRig(t)
	m := r.next(r.statuses)
	var s wire.Status
	if json.Unmarshal(m.Data, &s); m.Subject != "n.gw-1.st" || s.Node != "gw-1" {
		t.Errorf("%s: %s", m.Subject, s.Node)
	}
}

func FuzzLine(f *testing.F) {
	f.Add("one\ntwo\x1b[2J", 10)
	f.Fuzz(func(t *testing.T, s string, most int) {
		most = 8 + most&0xfff
		if got := uplink.Line(s, most); len(got) > most || strings.ContainsAny(got, "\n\r\x1b\x00") {
			t.Errorf("%q", got)
		}
	})
}
