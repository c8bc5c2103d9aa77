package bus

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// onLog is called with each line of a log.
type onLog struct {
	slog.Handler
	f func(text string)
}

func (h onLog) Handle(ctx context.Context, r slog.Record) error {
	h.f(r.Message)
	return h.Handler.Handle(ctx, r)
}

// TestBucketThatAppears: a hub finds too few servers for a bucket and is about to make a lesser
// one, when another hub makes it. It stays as that hub made it.
func TestBucketThatAppears(t *testing.T) {
	dir := t.TempDir()
	ports := freePorts(t, 2)
	text, err := ServerConfig(dir, External{Name: "one", Listen: ports[0], WebSocket: ports[1], Store: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	startText(t, text)
	var other func()
	log := onLog{testLog(t).Handler(), func(text string) {
		if strings.Contains(text, "fewer than three servers") {
			other()
		}
	}}
	h := start(t, Config{Dir: dir, Servers: []string{"nats://" + ports[0], "ws://" + ports[1]}, Log: slog.New(log)})
	const theirs = 7 // in the place of replicas, which are more than one only on a cluster
	other = func() {
		nc, err := h.conn()
		if err != nil {
			t.Error(err)
			return
		}
		js, err := jetstream.New(nc)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "tokens", History: theirs, Storage: jetstream.FileStorage}); err != nil {
			t.Error(err)
		}
	}
	kv, err := h.Bucket(t.Context(), "tokens", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := kv.Status(t.Context()); err != nil || st.History() != theirs {
		t.Error("it was changed:", st, err)
	}
}
