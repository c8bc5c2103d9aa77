package bus

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"selvedge/schema/wire"
)

// TestFloodDelaysNobody: one node sends without end, the others are heard in turn.
func TestFloodDelaysNobody(t *testing.T) {
	h := start(t, Config{})
	loud := join(t, h, "loud")
	var nodes []*node
	for i := range 20 {
		nodes = append(nodes, join(t, h, nodeName(i)))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	wg.Go(func() {
		data := make([]byte, 2000)
		for {
			select {
			case <-stop:
				return
			default:
				loud.Publish(wire.StatusSubject("loud"), data)
				loud.Publish(wire.EventsSubject("loud"), data)
			}
		}
	})
	h.until(t, "the flood", func() bool { return h.count.flooded.Load() > 1000 && h.count.coalesced.Load() > 1000 })
	for _, n := range nodes {
		n.Publish(wire.StatusSubject(n.name), []byte("x"))
	}
	h.until(t, "a status of each", func() bool {
		for _, n := range nodes {
			if len(h.statuses[n.name]) == 0 {
				return false
			}
		}
		return true
	})
	h.mu.Lock()
	got := len(h.statuses["loud"])
	h.mu.Unlock()
	if taken := h.count.statuses.Load(); int64(got) > taken/10 {
		t.Errorf("of %d statuses %d were handed on", taken, got)
	}
}

// TestFloodIsCutOff: what does not stop is disconnected.
func TestFloodIsCutOff(t *testing.T) {
	h := start(t, Config{})
	n := join(t, h, "loud")
	for i := 0; len(n.dropped) == 0 && i < 5_000_000; i++ {
		n.Publish(wire.StatusSubject("loud"), nil)
	}
	wait(t, "the connection's end", n.dropped)
	if h.count.kicked.Load() == 0 {
		t.Error("it was not the hub who ended it")
	}
}

// TestNewestStatusArrives however fast they came; events stay in order.
func TestNewestStatusArrives(t *testing.T) {
	var c counters
	in := newInbox(&c)
	var got []string
	done := make(chan struct{})
	in.status = func(_ string, d []byte) {
		got = append(got, "s"+string(d))
		if string(d) == "99" {
			close(done)
		}
	}
	in.events = func(_ string, d []byte) { got = append(got, "e"+string(d)) }
	in.presence = func(_ string, is bool) { got = append(got, fmt.Sprint(is)) }
	for i := range 3 {
		in.take("n.a.ev", []byte(strconv.Itoa(i)))
	}
	in.connected("a", true)
	in.take("n.a.st", []byte("0"))
	for i := range 99 {
		in.take("n.a.st", []byte(strconv.Itoa(i+1)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { in.run(ctx) })
	wait(t, "the newest", done)
	in.take("n.a.st", []byte("100")) // late: after a while
	cancel()
	wg.Wait()
	if s := fmt.Sprint(got); s != "[true e0 e1 e2 s99]" {
		t.Error(s)
	}
	if c.coalesced.Load() != 99 {
		t.Error("counted", c.coalesced.Load())
	}
	in.due(time.Now().Add(time.Second))
	if in.connected("a", false); !in.next() || in.next() {
		t.Error("not one turn")
	}
	if s := fmt.Sprint(got[5:]); s != "[s100 false]" {
		t.Error(s)
	}
	in.forget(time.Now().Add(time.Hour))
	if len(in.slots) != 0 {
		t.Error("a slot is kept")
	}
}

// TestOdd: who speaks for a while and is not there has connections counted, now and then.
func TestOdd(t *testing.T) {
	var c counters
	in := newInbox(&c)
	asked := 0
	in.odd = func() { asked++ }
	say := func(want int) {
		t.Helper()
		if in.take("n.a.st", nil); asked != want {
			t.Errorf("asked %d times, not %d", asked, want)
		}
	}
	say(0) // its connection may be told any moment
	in.slots["a"].odd = time.Now().Add(-time.Minute)
	say(1)
	say(1)
	in.asked = time.Now().Add(-time.Minute)
	say(2)
	in.connected("a", true)
	in.asked = time.Now().Add(-time.Minute)
	say(2)
	in.connected("a", false)
	say(2) // it was on the way
}

func TestWhatIsNoReport(t *testing.T) {
	var c counters
	in := newInbox(&c)
	for _, subject := range []string{"", "n", "n.", "n..st", "n.A.st", "n.a.b", "n.a.st.x", "x.a.st", "n.a.re.x"} {
		in.take(subject, nil)
	}
	if got := c.malformed.Load(); got != 9 || len(in.slots) != 0 {
		t.Error(got, in.slots)
	}
	in.take("n.a.st", make([]byte, wire.MaxStatus+1))
	in.take("n.a.ev", make([]byte, wire.MaxMessage+1))
	if c.oversized.Load() != 2 || len(in.slots) != 0 {
		t.Error(c.oversized.Load())
	}
}

func FuzzTake(f *testing.F) {
	f.Add("n.gw-1.st", []byte("{}"))
	f.Add("n.gw-1.ev", []byte("{}"))
	f.Fuzz(func(t *testing.T, subject string, data []byte) {
		var c counters
		in := newInbox(&c)
		in.take(subject, data)
		if int64(len(in.slots))+c.malformed.Load()+c.oversized.Load() != 1 {
			t.Error("neither taken nor counted")
		}
	})
}

func FuzzClaims(f *testing.F) {
	f.Add("a.eyJuYW1lIjoiYSIsInN1YiI6IlUiLCJuYXRzIjp7InRhZ3MiOlsibm9kZSJdfX0.b")
	f.Fuzz(func(t *testing.T, token string) {
		if c, ok := claimsOf(token); ok && c.node == "" {
			t.Error("a node without a name")
		}
	})
}

func BenchmarkTake(b *testing.B) {
	var c counters
	in := newInbox(&c)
	var handed atomic.Int64
	in.status = func(string, []byte) { handed.Add(1) }
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	go in.run(ctx)
	subjects := make([]string, 10000)
	for i := range subjects {
		subjects[i] = wire.StatusSubject(nodeName(i))
	}
	data := make([]byte, 2000)
	for i := 0; b.Loop(); i++ {
		in.take(subjects[i%len(subjects)], data)
	}
}
