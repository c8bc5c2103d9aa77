package fleet

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"selvedge/reconciler/hub/client"
	"selvedge/schema/wire"
	"selvedge/test/swarm"
)

// dial opens the bus with a JWT and a key, once.
func (b *bed) dial(jwt string, key nkeys.KeyPair, more ...nats.Option) (*nats.Conn, error) {
	b.t.Helper()
	return nats.Connect(strings.Replace(b.url, "https", "wss", 1), append([]nats.Option{nats.UserJWT(func() (string, error) { return jwt, nil }, key.Sign), nats.ProxyPath(wire.PathBus), nats.NoReconnect(),
		nats.Timeout(10 * time.Second), nats.Secure(&tls.Config{InsecureSkipVerify: true})}, more...)...) // the hub of this test
}

// raw is a node that does as it likes. Errors that the bus tells come out of the channel.
func (b *bed) raw(name string) (*nats.Conn, chan error) {
	b.t.Helper()
	errs := make(chan error, 100)
	code, token, text := b.exchange(b.keys[name], nil)
	if code != 200 {
		b.t.Fatalf("token of %s: %d %s", name, code, text)
	}
	nc, err := b.dial(token.Bus, b.keys[name], nats.CustomInboxPrefix(wire.InboxPrefix(name)), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		select {
		case errs <- err:
		default:
		}
	}))
	must(b.t, err)
	b.t.Cleanup(nc.Close)
	return nc, errs
}

// status is a plain one.
func status(node string, seq uint64, hostname string) []byte {
	b, err := json.Marshal(wire.Status{Node: node, Epoch: "raw", Seq: seq, Time: time.Now(), Well: true, Machine: wire.Machine{Hostname: hostname}, State: wire.State{Phase: "idle"}})
	if err != nil {
		panic(err)
	}
	return b
}

func (b *bed) hostname(node string) string {
	if r := b.node(node).Report; r != nil {
		return r.Machine.Hostname
	}
	return ""
}

// TestAnothersName speaks and listens as another node.
func TestAnothersName(t *testing.T) {
	b := newBed(t, 2)
	b.swarm(swarm.Config{Members: b.members("node-1"), Interval: 200 * time.Millisecond})
	nc, errs := b.raw("node-0")
	must(t, nc.Publish(wire.StatusSubject("node-0"), status("node-0", 1, "honest"))) // what is allowed works
	b.until(10*time.Second, "its own status", func() bool { return b.hostname("node-0") == "honest" })
	b.until(10*time.Second, "the other's status", func() bool { return b.hostname("node-1") == "node-1" })

	refused := func(what string, do func() error) {
		t.Helper()
		for len(errs) > 0 {
			<-errs
		}
		must(t, do())
		must(t, nc.FlushTimeout(10*time.Second))
		select {
		case err := <-errs:
			if !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: nobody minds", what)
		}
	}
	for _, subject := range []string{wire.StatusSubject("node-1"), wire.EventsSubject("node-1"), wire.StreamSubject("node-1", "x"), wire.RequestSubject("node-1", wire.VerbRestart),
		wire.ControlSubject("node-1", "x"), wire.InboxPrefix("node-1") + ".x", "_INBOX.x", "$SYS.REQ.SERVER.PING", "$JS.API.STREAM.LIST", "$KV.join-tokens.x"} {
		refused("publish on "+subject, func() error { return nc.Publish(subject, status("node-1", 1<<40, "spoofed")) })
	}
	for _, subject := range []string{">", "n.>", "n.*.dn.>", wire.RequestSubject("node-1", ">"), wire.StatusSubject("node-1"), wire.InboxPrefix("node-1") + ".>", "$SYS.>"} {
		refused("listen on "+subject, func() error { _, err := nc.SubscribeSync(subject); return err })
	}
	// on its own subject, in another's name
	must(t, nc.Publish(wire.StatusSubject("node-0"), status("node-1", 1<<41, "spoofed")))
	must(t, nc.Publish(wire.EventsSubject("node-0"), []byte(`{"node":"node-1","epoch":"raw","events":[{"seq":1,"severity":"error","reason":"Spoofed","message":"x"}]}`)))
	must(t, nc.Publish(wire.StatusSubject("node-0"), status("node-0", 2, "still honest")))
	b.until(10*time.Second, "its own status again", func() bool { return b.hostname("node-0") == "still honest" })
	if got := b.hostname("node-1"); got != "node-1" {
		t.Errorf("node-1 is %q by the word of another", got)
	}
	all, err := b.client("ana").Events(t.Context(), client.EventQuery{Node: "node-1", Limit: 100})
	must(t, err)
	for _, e := range all.Items {
		if e.Reason == "Spoofed" {
			t.Error("an event of node-1 by the word of another")
		}
	}
}
