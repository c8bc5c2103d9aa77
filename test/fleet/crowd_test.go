package fleet

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
	"selvedge/test/swarm"
)

// TestManyJoins has a thousand nodes join in the same moment, each over a connection of its
// own. The guide lets fewer in: exactly as many wait for approval, the others may come again.
func TestManyJoins(t *testing.T) {
	n, room := 1000, 800
	if testing.Short() || patience > 1 {
		n, room = 50*patience, 40*patience
	}
	b := newBed(t, 1)
	fleet := b.fleet
	fleet.Guides = map[string]roster.Guide{workspace + "/box": {Name: "box", Scope: workspace, Prefix: "box-", MaxNodes: room}}
	b.tell(roster.Event{Fleet: &fleet})
	b.until(10*time.Second, "the guide", func() bool {
		g, err := b.client("ana").Guides(t.Context())
		return err == nil && len(g.Items) == 1 && g.Items[0].MaxNodes == room
	})
	requests := make([][]byte, n)
	for i, token := range b.joinToken(n) {
		key, err := nkeys.CreateUser()
		must(t, err)
		r, err := b.joining(token, key)
		must(t, err)
		requests[i], err = json.Marshal(r)
		must(t, err)
	}
	go1 := make(chan struct{})
	codes := make([]int, n)
	var wg sync.WaitGroup
	for i, body := range requests {
		wg.Go(func() {
			tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, TLSHandshakeTimeout: time.Minute} // the hub of this test
			defer tr.CloseIdleConnections()
			c := &http.Client{Transport: tr, Timeout: time.Minute}
			<-go1
			for range 60 { // as the agent does: what is busy is asked again
				res, err := c.Post(b.url+wire.PathJoin, "application/json", bytes.NewReader(body))
				if err == nil {
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
					codes[i] = res.StatusCode
					if res.StatusCode != http.StatusServiceUnavailable && res.StatusCode != http.StatusTooManyRequests {
						return
					}
				}
				time.Sleep(500 * time.Millisecond)
			}
		})
	}
	began := time.Now()
	close(go1)
	slowest := time.Duration(0)
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for over := false; !over; { // people are served meanwhile
		asked := time.Now()
		if _, err := b.client("ana").Summary(t.Context()); err != nil {
			t.Errorf("the API while nodes join: %v", err)
		}
		slowest = max(slowest, time.Since(asked))
		select {
		case <-done:
			over = true
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Logf("%d joins took %v; the API meanwhile at most %v", n, time.Since(began).Round(time.Millisecond), slowest.Round(time.Millisecond))
	count := map[int]int{}
	for _, c := range codes {
		count[c]++
	}
	if count[200] != room || count[409] != n-room {
		t.Errorf("%v; the guide has room for %d of %d", count, room, n)
	}
	waiting, err := b.client("ana").Pending(t.Context())
	must(t, err)
	codesSeen, keys := map[string]bool{}, map[string]bool{}
	for _, p := range waiting.Items {
		codesSeen[p.Code], keys[p.PublicKey] = true, true
	}
	if len(waiting.Items) != room || len(codesSeen) != room || len(keys) != room {
		t.Errorf("%d wait, with %d codes and %d keys", len(waiting.Items), len(codesSeen), len(keys))
	}
}

// TestFloods has one node send statuses, events and frames as fast as it can, each in a form
// of its own. Others stay fresh, the API answers, memory stays.
func TestFloods(t *testing.T) {
	n := crowd(t)/10 + 2
	b := newBed(t, n)
	var names []string
	for name := range b.keys {
		if name != "node-0" {
			names = append(names, name)
		}
	}
	b.swarm(swarm.Config{Members: b.members(names...), Interval: 500 * time.Millisecond, Runs: 1})
	b.until(20*time.Second, "all others to be heard of", func() bool { return b.ready(time.Time{}) == n-1 })
	before := rss(t, b.hub.Process.Pid)

	flood, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var sent atomic.Int64
	large, err := json.Marshal(wire.Status{Node: "node-0", Epoch: "raw", Seq: 1 << 50, Time: time.Now(), Why: strings.Repeat("x", 400<<10)})
	must(t, err)
	wg.Go(func() {
		for seq := uint64(1); flood.Err() == nil; {
			code, token, _ := b.exchange(b.keys["node-0"], nil)
			if code != 200 {
				return
			}
			nc, err := b.dial(token.Bus, b.keys["node-0"])
			if err != nil {
				time.Sleep(50 * time.Millisecond)
				continue
			}
			for flood.Err() == nil && nc.IsConnected() {
				seq++
				sent.Add(3)
				_ = nc.Publish(wire.StatusSubject("node-0"), status("node-0", seq, "flood")) // it may be cut off, and comes again
				_ = nc.Publish(wire.EventsSubject("node-0"), []byte(`{"node":"node-0","epoch":"raw","events":[{"seq":1,"severity":"info","reason":"Flood","message":"x"}]}`))
				_ = nc.Publish(wire.StreamSubject("node-0", "nobody"), wire.Frame(wire.FrameOut, large[:wire.MaxFrame/2]))
				if seq%64 == 0 {
					_ = nc.Publish(wire.StatusSubject("node-0"), large)
				}
			}
			nc.Close()
		}
	})
	slowest, stale, answered := time.Duration(0), time.Duration(0), 0
	most := 5 * time.Second
	if testing.Short() {
		most = 2 * time.Second
	}
	for end := time.Now().Add(most); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		asked := time.Now()
		for _, name := range names[:2] {
			if x := b.node(name); x.Name != "" { // else it was not answered, which slowest tells
				stale = max(stale, time.Since(x.LastSeen))
			}
		}
		slowest = max(slowest, time.Since(asked))
		if got := b.are(hubapi.Ready); got >= 0 && got < n-1 {
			t.Errorf("%d of %d are ready", got, n-1)
		} else if got >= 0 {
			answered++
		}
	}
	if answered == 0 {
		t.Error("the API never told how many are ready")
	}
	grown := rss(t, b.hub.Process.Pid) - before
	t.Logf("%d messages; others' statuses are at most %v old, two requests took at most %v, the hub grew by %d MB", sent.Load(), stale.Round(time.Millisecond), slowest.Round(time.Millisecond), grown>>20)
	if stale > patience*5*time.Second {
		t.Errorf("others' statuses are %v old", stale)
	}
	if slowest > patience*5*time.Second {
		t.Errorf("the API takes %v", slowest)
	}
	if grown > 150<<20 {
		t.Errorf("the hub grew by %d MB", grown>>20)
	}
	stop()
	wg.Wait()
	nc, _ := b.raw("node-0")
	b.until(30*time.Second, "the node to be heard again when it is sensible", func() bool {
		_ = nc.Publish(wire.StatusSubject("node-0"), status("node-0", 1<<60, "sorry"))
		return b.hostname("node-0") == "sorry"
	})
}
