package bus

import (
	"sync"
	"testing"
	"time"

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
	now := time.Now()
	h.presence.mu.Lock()
	h.presence.heard[id.server] = now
	h.presence.mu.Unlock()
	h.presence.bury(now.Add(silentTime), true)
	h.presence.bury(now.Add(time.Hour), false) // it is the hub who is cut off
	if h.presence.count() != 1 {
		t.Error("it was buried alive")
	}
	h.presence.bury(now.Add(2*time.Hour), true)
	h.untilThere(t, "a", false)
}

func TestManyComeBackAfterRestart(t *testing.T) {
	count := 300
	if testing.Short() {
		count = 50
	}
	h := start(t, Config{})
	nodes := make([]*node, count)
	var wg sync.WaitGroup
	for i := range nodes {
		wg.Go(func() {
			nodes[i] = newNode(t, h.Bus, nodeName(i))
			if err := nodes[i].connect(t, h); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	h.until(t, "all nodes", func() bool { return h.presence.count() == count })
	front := h.tunnel
	first := front.servers.Load()
	front.servers.Store(nil) // refused while there is no server
	front.mu.Lock()
	var pairs []*pair
	for p := range front.pairs {
		pairs = append(pairs, p)
	}
	front.mu.Unlock()
	for _, p := range pairs {
		p.close()
	}
	h.until(t, "nobody", func() bool { return h.presence.count() == 0 })
	began := time.Now()
	front.servers.Store(first)
	h.until(t, "all nodes again", func() bool { return h.presence.count() == count })
	t.Logf("%d nodes came back in %v", count, time.Since(began))
	for _, n := range nodes {
		if err := n.Publish(wire.StatusSubject(n.name), []byte("x")); err != nil {
			t.Error(err)
		}
	}
	h.until(t, "a status of each", func() bool { return len(h.statuses) == count })
}

func nodeName(i int) string {
	return "gw-" + string([]byte{'0' + byte(i/1000%10), '0' + byte(i/100%10), '0' + byte(i/10%10), '0' + byte(i%10)})
}
