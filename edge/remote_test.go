package edge_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"selvedge/edge/apply"
	"selvedge/edge/apply/runtimetest"
	"selvedge/edge/hubtest"
	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

// sign1 publishes a state that grants the hub something.
func (b *bed) sign1(remote nodestate.Remote, generation int64, apps ...nodestate.App) {
	b.Helper()
	a := b.signWith(generation, func(s *nodestate.State) { s.Remote = remote }, apps...)
	if err := b.store.Put(b.Context(), []nodestate.Artifact{a}); err != nil {
		b.Fatal(err)
	}
}

// What the hub may ask is what the signed state says, from the moment it is in force.
func TestRemoteIsOfTheSignedState(t *testing.T) {
	b, h := joined(t)
	b.publish(1, app("a", "1"))
	b.start()
	b.good(1)
	b.until("the live connection", func() bool { return b.status().Hub.Connected })
	ask := func() string { return b.askRestart(h) }
	if code := ask(); code != wire.CodeDenied {
		t.Errorf("code %q", code)
	}
	b.sign1(nodestate.Remote{Restart: true}, 2, app("a", "1"))
	h.Conn.Publish(wire.RequestSubject("gw-1", wire.VerbNotice), []byte(`{"generation":2}`))
	b.good(2)
	if code := ask(); code != "" {
		t.Errorf("code %q", code)
	}
	b.publish(3, app("a", "1"))
	h.Conn.Publish(wire.RequestSubject("gw-1", wire.VerbNotice), []byte(`{"generation":3}`))
	b.good(3)
	if code := ask(); code != wire.CodeDenied {
		t.Errorf("code %q", code)
	}
}

// askRestart has the hub ask for a restart of app a, and returns the code of the error.
func (b *bed) askRestart(h *hubtest.Hub) string {
	b.Helper()
	var a wire.Answer
	b.until("an answer", func() bool { // connected is said a moment before it listens
		m, err := h.Conn.Request(wire.RequestSubject("gw-1", wire.VerbRestart), []byte(`{"by":"ana","app":"a"}`), patience)
		return err == nil && json.Unmarshal(m.Data, &a) == nil
	})
	if a.Error == nil {
		return ""
	}
	return a.Error.Code
}

// What Git takes away is gone when the node has verified it: before its images are there, and
// after the state that took it away has failed.
func TestWhatWasTakenAwayDoesNotComeBack(t *testing.T) {
	b, h := joined(t)
	b.sign1(nodestate.Remote{Restart: true}, 1, app("a", "1"))
	b.start()
	b.good(1)
	connected := func() {
		t.Helper()
		b.until("the live connection", func() bool { s := b.status(); return s.Running && s.Hub.Connected })
	}
	denied := func() {
		t.Helper()
		connected()
		if code := b.askRestart(h); code != wire.CodeDenied {
			t.Errorf("code %q; %+v", code, b.status().Store)
		}
	}
	connected()
	if code := b.askRestart(h); code != "" {
		t.Fatalf("code %q", code)
	}
	b.rt.FailPull(image("2"), errors.New("no such image"))
	b.publish(2, app("a", "2", failing))
	h.Conn.Publish(wire.RequestSubject("gw-1", wire.VerbNotice), []byte(`{"generation":2}`))
	b.until("generation 2 to wait for its image", func() bool { return strings.Contains(b.status().Update.Error, "no such image") })
	denied()
	b.rt.FailPull(image("2"), nil)
	b.rejected(2)
	b.until("what ran before", func() bool { return b.runs("a", "1") })
	denied()
	b.restart()
	b.until("what ran before", func() bool { return b.runs("a", "1") })
	denied()
	b.sign1(nodestate.Remote{Restart: true}, 3, app("a", "1"))
	h.Conn.Publish(wire.RequestSubject("gw-1", wire.VerbNotice), []byte(`{"generation":3}`))
	b.good(3)
	if code := b.askRestart(h); code != "" {
		t.Errorf("given again: code %q", code)
	}
}

// asked is a runtime that notes which part of a log was asked for.
type asked struct {
	*runtimetest.Fake
	since chan time.Time
}

func (a asked) Logs(_ context.Context, _ string, o apply.LogOptions, _ io.Writer) error {
	a.since <- o.Since
	return nil
}

// A duration counts back from the node's own clock, which stamped the lines.
func TestAgoIsByTheNodesClock(t *testing.T) {
	b, h := joined(t)
	rt := asked{b.rt, make(chan time.Time, 10)}
	b.cfg.Runtime = rt
	now := time.Now().Add(time.Hour).UTC()
	b.cfg.Now = func() time.Time { return now }
	b.sign1(nodestate.Remote{Logs: true}, 1, app("a", "1"))
	b.start()
	b.good(1)
	b.until("the live connection", func() bool { return b.status().Hub.Connected })
	for id, c := range map[string]struct {
		r    wire.LogsRequest
		want time.Time
	}{
		"since": {wire.LogsRequest{Since: now.Add(-5 * time.Minute)}, now.Add(-5 * time.Minute)},
		"ago":   {wire.LogsRequest{AgoMS: 600_000}, now.Add(-10 * time.Minute)},
		"long":  {wire.LogsRequest{AgoMS: math.MaxInt64}, now.Add(-100 * 365 * 24 * time.Hour)},
		"none":  {wire.LogsRequest{AgoMS: -1}, time.Time{}},
	} {
		c.r.App, c.r.By, c.r.Stream, c.r.Window = "a", "ana", id, 1
		q, _ := json.Marshal(c.r)
		b.until("an answer", func() bool {
			m, err := h.Conn.Request(wire.RequestSubject("gw-1", wire.VerbLogs), q, patience)
			return err == nil && string(m.Data) == "{}"
		})
		select {
		case got := <-rt.since:
			if !got.Equal(c.want) {
				t.Errorf("%s: since %v, want %v", id, got, c.want)
			}
		case <-time.After(patience):
			t.Fatalf("%s: nothing was read", id)
		}
	}
}
