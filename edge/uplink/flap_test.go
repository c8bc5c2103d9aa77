package uplink_test

import (
	"context"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"selvedge/edge/hubtest"
	"selvedge/edge/uplink"
	"selvedge/schema/wire"
)

// A hub on loopback may be without TLS: what ends the connection is then not wrapped by it.
func TestPlainHub(t *testing.T) {
	t.Parallel()
	r := rigOf(t, []*hubtest.Hub{hubtest.NewPlain(t)})
	for range 3 {
		r.next(r.statuses)
		r.hub.Cut()
	}
}

// dropping takes each connection to the bus and ends it soon.
func dropping(t *testing.T) *hubtest.Hub {
	h := hubtest.NewPlain(t)
	h.Before = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == wire.PathBus {
			time.AfterFunc(5*time.Millisecond, h.Cut)
		}
		return false
	}
	return h
}

// A node does not storm hubs that end each connection, however many it has to choose from.
func TestHubsThatDrop(t *testing.T) {
	t.Parallel()
	hubs := []*hubtest.Hub{dropping(t), dropping(t), dropping(t)}
	rigOf(t, hubs, func(_ *rig, c *uplink.Config) { c.Retry = 0 })
	time.Sleep(2 * time.Second)
	tried := 0
	for _, h := range hubs {
		tried += h.Count(wire.PathBus)
	}
	if tried == 0 || tried > 15 {
		t.Errorf("%d connections in 2 s", tried)
	}
}

// slow is a log on a pipe that is seldom read.
type slow struct{ slog.Handler }

func (slow) Handle(context.Context, slog.Record) error {
	time.Sleep(100 * time.Millisecond)
	return nil
}
func (slow) Enabled(context.Context, slog.Level) bool { return true }
func (s slow) WithAttrs([]slog.Attr) slog.Handler     { return s }

// Whoever asks how the link is gets an answer, while it comes and goes and its log is slow.
func TestLinkAnswersWhileFlapping(t *testing.T) {
	t.Parallel()
	hubs := []*hubtest.Hub{dropping(t), dropping(t)}
	r := rigOf(t, hubs, func(_ *rig, c *uplink.Config) { c.Log, c.Retry = slog.New(slow{}), 20*time.Millisecond })
	rounds := 40
	if testing.Short() {
		rounds = 15
	}
	r.until("the link to flap", func() bool {
		answered := make(chan struct{})
		go func() { r.up.Link(); close(answered) }()
		select {
		case <-answered:
		case <-time.After(patience):
			t.Fatal("no answer")
		}
		return hubs[0].Count(wire.PathBus)+hubs[1].Count(wire.PathBus) > rounds
	})
}
