package edge_test

import (
	"encoding/json"
	"testing"
	"time"

	"selvedge/edge/apply"
	"selvedge/edge/hubtest"
	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

// logs asks for a log as a hub does.
func (b *bed) logs(h *hubtest.Hub, id string, r wire.LogsRequest) (text string) {
	b.Helper()
	sub, err := h.Conn.SubscribeSync(wire.StreamSubject("gw-1", id))
	if err != nil {
		b.Fatal(err)
	}
	defer sub.Unsubscribe()
	h.Conn.Flush()
	r.App, r.By, r.Stream, r.Window = "a", "ana", id, wire.Window
	q, _ := json.Marshal(r)
	b.until("an answer", func() bool {
		m, err := h.Conn.Request(wire.RequestSubject("gw-1", wire.VerbLogs), q, patience)
		return err == nil && string(m.Data) == "{}"
	})
	for {
		m, err := sub.NextMsg(patience)
		if err != nil {
			b.Fatal(err)
		}
		switch kind, data, _ := wire.ParseFrame(m.Data); kind {
		case wire.FrameOut:
			text += string(data)
		case wire.FrameEnd:
			if string(data) != `{"exitCode":0}` {
				b.Errorf("%s ended with %s", id, data)
			}
			return text
		}
	}
}

// Lines bear the name of their container where there are several, not where there are several
// runs of one.
func TestNamesInLogs(t *testing.T) {
	b, h := joined(t)
	k := apply.Key{App: "a", Container: "main"}
	two := func(version string) nodestate.App {
		a := app("a", version)
		side := a.Containers[0]
		side.Name = "side"
		a.Containers = append(a.Containers, side)
		return a
	}
	publish := func(generation int64, a nodestate.App) {
		t.Helper()
		b.sign1(nodestate.Remote{Logs: true}, generation, a)
		b.good(generation)
	}
	b.cfg.Fallback = 50 * time.Millisecond
	b.start()
	for generation, version := range []string{"1", "2", "3"} {
		publish(int64(generation+1), app("a", version))
		b.rt.Print(k, "run "+version)
	}
	b.until("the live connection", func() bool { return b.status().Hub.Connected })
	if got := b.logs(h, "now", wire.LogsRequest{}); got != "run 3\n" {
		t.Errorf("now: %q", got)
	}
	if got := b.logs(h, "before", wire.LogsRequest{Previous: true}); got != "run 1\nrun 2\n" {
		t.Errorf("before: %q", got)
	}
	publish(4, two("4"))
	b.rt.Print(k, "run 4")
	b.rt.Print(apply.Key{App: "a", Container: "side"}, "beside")
	if got := b.logs(h, "both", wire.LogsRequest{}); got != "[main] run 4\n[side] beside\n" {
		t.Errorf("both: %q", got)
	}
	if got := b.logs(h, "side", wire.LogsRequest{Container: "side"}); got != "beside\n" {
		t.Errorf("one of them: %q", got)
	}
}
