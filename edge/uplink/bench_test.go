package uplink_test

import (
	"context"
	"io"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"selvedge/edge/auth"
	"selvedge/edge/hubtest"
	"selvedge/edge/uplink"
	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

type loud struct{ bytes int }

func (l *loud) Logs(_ context.Context, _ wire.LogsRequest, w io.Writer) error {
	chunk := make([]byte, 32<<10)
	for n := 0; n < l.bytes; n += len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			return err
		}
	}
	return nil
}

func (l *loud) Exec(context.Context, wire.ExecRequest, uplink.Terminal) (int, error) { return 0, nil }
func (l *loud) Restart(context.Context, wire.RestartRequest) error                   { return nil }

// BenchmarkStream sends a log over TLS, a proxy and a real bus, with credit for each frame.
func BenchmarkStream(b *testing.B) {
	h := hubtest.New(b)
	key, _ := nkeys.CreateUser()
	public, _ := key.PublicKey()
	h.Nodes[public] = "gw-1"
	client, err := auth.New(auth.Config{Hubs: []string{h.URL}, CA: h.CA, PublicKey: public, Sign: key.Sign})
	if err != nil {
		b.Fatal(err)
	}
	hands := &loud{bytes: 64 << 20}
	up := uplink.New(uplink.Config{Node: "gw-1", Auth: client, Tokens: auth.NewKeeper(client, nil), Sign: key.Sign, Hands: hands,
		Status: func() wire.Status { return wire.Status{} }, Granted: func() nodestate.Remote { return nodestate.Remote{Logs: true} }, Notice: func(wire.Notice) {}})
	there, _ := h.Conn.SubscribeSync("n.gw-1.st")
	h.Conn.Flush()
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() { defer close(done); up.Run(ctx) }()
	defer func() { cancel(); <-done }()
	if _, err := there.NextMsg(patience); err != nil {
		b.Fatal(err)
	}
	ended := make(chan struct{}, 1)
	h.Conn.Subscribe("n.gw-1.re.*", func(m *nats.Msg) {
		if m.Data[0] == wire.FrameEnd {
			ended <- struct{}{}
			return
		}
		h.Conn.Publish(wire.ControlSubject("gw-1", "bench"), []byte(`{"credit":1}`))
	})
	b.SetBytes(int64(hands.bytes))
	for b.Loop() {
		if _, err := h.Conn.Request(wire.RequestSubject("gw-1", wire.VerbLogs), []byte(`{"stream":"bench","app":"a","window":16}`), patience); err != nil {
			b.Fatal(err)
		}
		<-ended
	}
}
