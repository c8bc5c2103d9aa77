package bus

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"selvedge/schema/wire"
)

func TestNewerConnectionWins(t *testing.T) {
	h := start(t, Config{})
	first := join(t, h, "a")
	second := &node{name: "a", key: first.key, pair: first.pair, jwt: first.jwt, errs: make(chan error, 10), dropped: make(chan error, 10), back: make(chan struct{}, 10)}
	drain(first.dropped)
	if err := second.connect(t, h); err != nil {
		t.Fatal(err)
	}
	wait(t, "the end of the older connection", first.dropped)
	first.Close()
	h.until(t, "one connection", func() bool { return h.presence.count() == 1 })
	if !second.IsConnected() || h.count.twice.Load() != 0 {
		t.Error("connected:", second.IsConnected(), "alarms:", h.count.twice.Load())
	}
}

// TestNewerWhateverClocksSay: the clock was set back by an hour between two connections.
func TestNewerWhateverClocksSay(t *testing.T) {
	now := time.Now().Round(0)
	for _, c := range []struct {
		what          string
		first, second connID
		live          bool
		want          connID
	}{
		{"the same server", connID{"S", 1}, connID{"S", 2}, true, connID{"S", 2}},
		{"the same server, counted", connID{"S", 1}, connID{"S", 2}, false, connID{"S", 2}},
		{"the same server, in the other order", connID{"S", 2}, connID{"S", 1}, true, connID{"S", 2}},
		{"another server", connID{"S", 2}, connID{"T", 1}, true, connID{"T", 1}},
		{"another server, counted", connID{"S", 2}, connID{"T", 1}, false, connID{"S", 2}}, // only clocks tell
	} {
		b, err := New(Config{Dir: t.TempDir(), Log: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		b.presence.add(c.first, connection{node: "a", key: "U", start: now.Add(time.Hour)}, true)
		b.presence.add(c.second, connection{node: "a", key: "U", start: now}, c.live)
		if got, _ := b.presence.current("a"); got != c.want {
			t.Errorf("%s: %v is kept, not %v", c.what, got, c.want)
		}
	}
}

func TestTwoMachinesWithOneKey(t *testing.T) {
	alarm := make(chan string, 10)
	h := start(t, Config{Twice: func(n string) { alarm <- n }})
	first := join(t, h, "a")
	clone := &node{name: "a", key: first.key, pair: first.pair, jwt: first.jwt, errs: make(chan error, 10), dropped: make(chan error, 10), back: make(chan struct{}, 10)}
	if err := clone.connect(t, h); err != nil {
		t.Fatal(err)
	}
	// both come back for ever
	if got := wait(t, "an alarm", alarm); got != "a" {
		t.Error(got)
	}
	if h.count.twice.Load() != 1 {
		t.Error("alarms:", h.count.twice.Load())
	}
}

func TestPresenceIsCountedAtStart(t *testing.T) {
	h := start(t, Config{})
	join(t, h, "a")
	join(t, h, "b")
	p := h.presence
	p.mu.Lock() // as if all events had been lost, and one of a connection that is gone
	clear(p.conns)
	clear(p.nodes)
	ghost := connID{"gone", 1}
	p.conns[ghost] = &connection{node: "ghost", key: "U"}
	p.nodes["ghost"] = []connID{ghost}
	p.mu.Unlock()
	h.inbox.connected("ghost", true)
	h.untilThere(t, "ghost", true)
	p.countAll(t.Context())
	if p.count() != 3 {
		t.Error("forgotten at once, or not found:", p.count())
	}
	p.countAll(t.Context())
	if p.count() != 2 {
		t.Error("counted", p.count())
	}
	h.untilThere(t, "ghost", false)
	h.untilThere(t, "a", true)
}

// TestBusyServerKeepsItsNodes: a server that told of a node, in a count or by itself, and is late
// for the counts after that loses none, though it has not given its statistics yet.
func TestBusyServerKeepsItsNodes(t *testing.T) {
	h := start(t, Config{})
	join(t, h, "a")
	p := h.presence
	for what, tell := range map[string]func(server string){
		"a count": func(string) { p.countAll(t.Context()) },
		"an event": func(server string) {
			told, _ := json.Marshal(map[string]any{"server": map[string]any{"id": server}, "client": map[string]any{"id": 1 << 20, "jwt": newNode(t, h.Bus, "b").jwt}})
			p.connectEvent(&nats.Msg{Data: told})
		},
	} {
		id, _ := p.current("a")
		p.mu.Lock()
		clear(p.silent) // as if this hub had just begun to listen
		p.mu.Unlock()
		tell(id.server)
		if !p.alive()[id.server] {
			t.Error("not heard by", what)
		}
		for range 2 {
			p.forget(nil, p.alive())
		}
		if now, _ := p.current("a"); now != id {
			t.Error("forgotten after", what)
		}
	}
}

// TestEndIsHeardFirst needs no ghost of a connection whose end overtakes its beginning, or the
// answer of a count.
func TestEndIsHeardFirst(t *testing.T) {
	h := start(t, Config{})
	n := newNode(t, h.Bus, "a")
	p := h.presence
	told, _ := json.Marshal(map[string]any{"server": map[string]any{"id": "S"}, "client": map[string]any{"id": 7, "start": time.Now(), "jwt": n.jwt}})
	p.disconnectEvent(&nats.Msg{Data: told})
	p.connectEvent(&nats.Msg{Data: told})
	p.add(connID{"S", 7}, connection{node: "a", key: n.key}, false)
	if p.count() != 0 {
		t.Error("a connection that has ended is shown as there")
	}
	p.sweep(time.Now().Add(endedTime + time.Second))
	if len(p.ended) != 0 {
		t.Error("what ended is kept for ever")
	}
}

// TestServerEndsDuringACount: what a server told before its end comes after it, and brings neither
// its nodes back nor itself.
func TestServerEndsDuringACount(t *testing.T) {
	b, err := New(Config{Dir: t.TempDir(), Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	p := b.presence
	known, late := connID{"S", 1}, connID{"S", 2}
	p.add(known, connection{node: "a", key: "U"}, true)
	p.heard("S")
	p.shutdownEvent(&nats.Msg{Subject: "$SYS.SERVER.S.SHUTDOWN"})
	for id, node := range map[connID]string{known: "a", late: "b"} {
		p.add(id, connection{node: node, key: "U"}, false)
	}
	p.statsEvent(&nats.Msg{Subject: "$SYS.SERVER.S.STATSZ"})
	if p.count() != 0 || len(p.alive()) != 0 {
		t.Errorf("%d nodes at a server that has ended; servers: %v", p.count(), p.alive())
	}
	p.add(connID{"T", 1}, connection{node: "a", key: "U"}, false)
	if p.count() != 1 {
		t.Error("its node is not seen at another server")
	}
	// one that is only thought to be gone
	p.heard("T")
	for len(p.recount) > 0 {
		<-p.recount
	}
	p.silent["T"] = maxSilent
	if p.bury(true); p.count() != 0 || len(p.recount) != 1 {
		t.Error("nodes:", p.count(), "counts to come:", len(p.recount))
	}
}

// TestShortConnections needs no ghost of many that end as soon as they are there.
func TestShortConnections(t *testing.T) {
	h := start(t, Config{})
	var wg sync.WaitGroup
	end := time.Now().Add(patience * time.Minute)
	for i := range 300 {
		n := newNode(t, h.Bus, nodeName(i))
		wg.Go(func() {
			for {
				nc, err := nats.Connect("", append(n.options(), nats.InProcessServer(h.srv))...)
				if err == nil {
					nc.Close()
					return
				}
				if time.Now().After(end) {
					t.Error(n.name, err)
					return
				}
				time.Sleep(10 * time.Millisecond) // a server that has much to do asks too soon whether it is there
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	join(t, h, "last") // what was told before is heard soon
	poll(t, "all but the last to be gone", func() bool { return h.presence.count() == 1 })
}

// TestWhoSpeaksIsThere loses all that was told of a connection, and needs the node's own reports
// to bring it back.
func TestWhoSpeaksIsThere(t *testing.T) {
	h := start(t, Config{})
	n := join(t, h, "a")
	poll(t, "the counts at the start", func() bool {
		h.presence.mu.Lock()
		defer h.presence.mu.Unlock()
		return len(h.presence.silent) == 1 && len(h.presence.recount) == 0
	})
	id, _ := h.presence.current("a")
	h.presence.remove(id)
	h.untilThere(t, "a", false)
	poll(t, "it to be back", func() bool {
		n.Publish(wire.StatusSubject("a"), []byte("x"))
		return h.presence.count() == 1
	})
	h.untilThere(t, "a", true)
}

func TestServerThatEndsTakesItsNodes(t *testing.T) {
	h := start(t, Config{})
	join(t, h, "a")
	id, ok := h.presence.current("a")
	if !ok {
		t.Fatal("not there")
	}
	h.presence.removeServer("another")
	if h.presence.count() != 1 {
		t.Error("another server took it")
	}
	p := h.presence
	silence := func(n int) { // a hub looks by itself, too, and hears the server
		p.mu.Lock()
		p.silent[id.server] = n
		p.mu.Unlock()
		p.bury(true)
	}
	silence(maxSilent - 5)
	p.mu.Lock()
	p.silent[id.server] = maxSilent
	p.mu.Unlock()
	p.bury(false) // it is the hub who is cut off
	if p.count() != 1 {
		t.Error("it was buried alive")
	}
	poll(t, "the server to be gone, and its node", func() bool {
		silence(maxSilent)
		return p.count() == 0
	})
	// it is not gone, as is told by a count or by its next word
	poll(t, "the node to be back", func() bool { return p.count() == 1 })
}

// TestOthersMayKnowBetter: where several hubs may be, one takes a minute to notice that its
// roster is old, and must not revoke by it until then.
func TestOthersMayKnowBetter(t *testing.T) {
	for _, servers := range [][]string{nil, {"ws://127.0.0.1:1"}} {
		b, err := New(Config{Dir: t.TempDir(), Servers: servers, Log: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		if long := b.presence.doubt > time.Minute; long != (servers != nil) {
			t.Errorf("servers %v: revoked after %v", servers, b.presence.doubt)
		}
	}
}

func TestManyComeBackAfterRestart(t *testing.T) {
	count := 300
	if testing.Short() {
		count = 50
	}
	t.Logf("%d nodes came back in %v", count, comeBack(t, count))
}

// BenchmarkComeBack is a hub's restart with 1,000 nodes.
func BenchmarkComeBack(b *testing.B) {
	var all time.Duration
	for range b.N {
		all += comeBack(b, 1000)
	}
	b.ReportMetric(all.Seconds()/float64(b.N), "s/restart")
}

// comeBack restarts a hub with so many nodes behind one address, and tells how long it took
// until each had said something to the new one.
func comeBack(t testing.TB, count int) time.Duration {
	c := Config{Dir: t.TempDir()}
	h := start(t, c)
	var handler atomic.Pointer[http.Handler]
	first := h.Tunnel()
	handler.Store(&first)
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*handler.Load()).ServeHTTP(w, r) }))
	defer front.Close()
	h.http.Close()
	h.http = front
	nodes := make([]*node, count)
	var wg sync.WaitGroup
	gate := make(chan struct{}, 64)
	for i := range nodes {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			nodes[i] = newNode(t, h.Bus, nodeName(i))
			if err := nodes[i].connect(t, h); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	h.until(t, "all nodes", func() bool { return h.presence.count() == count })
	h.http = httptest.NewServer(nil) // what stop closes
	h.stop()
	began := time.Now()
	h = start(t, c)
	second := h.Tunnel()
	handler.Store(&second)
	h.until(t, "all nodes again", func() bool { return h.presence.count() == count })
	for _, n := range nodes {
		if err := n.Publish(wire.StatusSubject(n.name), []byte("x")); err != nil {
			t.Error(err)
		}
	}
	h.until(t, "a status of each", func() bool { return len(h.statuses) == count })
	took := time.Since(began)
	for _, n := range nodes {
		n.Close()
	}
	return took
}

func nodeName(i int) string {
	return "gw-" + string([]byte{'0' + byte(i/1000%10), '0' + byte(i/100%10), '0' + byte(i/10%10), '0' + byte(i%10)})
}
