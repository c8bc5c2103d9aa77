package enrol

import (
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"selvedge/schema/wire"
)

// The bus restarts: what was pending is so still, and new requests come through.
func TestBusRestarts(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("clients notice a restart after seconds")
	}
	w := newWorld(t)
	o := &server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true}
	start := func() *server.Server {
		s, err := server.NewServer(o)
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		if !s.ReadyForConnections(10 * time.Second) {
			t.Fatal("no NATS server")
		}
		return s
	}
	s := start()
	nc, err := nats.Connect(s.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	w.js = []jetstream.JetStream{js}
	e, n := w.hub(nil), newNode(t)
	tokens := w.tokens(e, "folders/lab/box", 2)
	code := into[wire.Joined](t, n.join(e, tokens[0])).Code
	port := s.Addr().String()
	s.Shutdown()
	s.WaitForShutdown()
	began := time.Now()
	w.setNode(newNode(t).public, "gw-1")
	if a := n.token(e); a.problem().Type != wire.ProblemPending { // needs no bus
		t.Errorf("%d %s", a.status, a.body)
	}
	o.Port = portOf(t, port)
	s = start()
	defer func() { s.Shutdown(); s.WaitForShutdown() }()
	var second answered
	other := newNode(t)
	w.until("another joins", func() bool { second = other.join(e, tokens[1]); return second.status == 200 })
	t.Logf("after %v", time.Since(began))
	if again := into[wire.Joined](t, n.join(e, tokens[0])).Code; again != code {
		t.Errorf("%s, then %s", code, again)
	}
	w.until("both wait", func() bool { all, err := e.Pending(t.Context()); return err == nil && len(all) == 2 })
}

func portOf(t *testing.T, addr string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
