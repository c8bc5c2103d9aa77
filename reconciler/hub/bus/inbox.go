package bus

import (
	"context"
	"sync"
	"time"

	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

const (
	// perNode is the least time between two deliveries of one node's reports.
	perNode = 250 * time.Millisecond
	// maxWaiting bounds messages with events that wait for one node.
	maxWaiting = 16
	// floodDrops within floodTime end a node's connection.
	floodDrops = 20000
	floodTime  = 10 * time.Second
	// oddTime is how long a node may speak that is not known to be connected, until a count is
	// asked for, and oddPause is between two such.
	oddTime   = 5 * time.Second
	oddPause  = 30 * time.Second
	maxReport = wire.MaxMessage
)

// inbox takes what nodes report and hands it on: each node in turn, whatever it sends. It
// holds at most one status and a few messages with events a node.
type inbox struct {
	status, events func(node string, data []byte)
	presence       func(node string, connected bool)
	flood          func(node string) // told once in a while of a node that sends far too much
	odd            func()            // told now and then that nodes speak that are not known to be connected
	count          *counters

	mu    sync.Mutex
	slots map[string]*slot
	queue []string // nodes to hand on, in order
	late  []string // nodes that were handed on a moment ago
	wake  chan struct{}
	asked time.Time // odd was told
}

// slot is what waits of one node.
type slot struct {
	status    []byte
	events    [][]byte
	connected bool // as it is, and as it was told
	told      bool
	where     byte // 0: in no list, or 'q', 'l'
	last      time.Time
	odd       time.Time // since when it speaks though it is not connected

	drops int
	since time.Time
}

func newInbox(c *counters) *inbox {
	return &inbox{count: c, slots: map[string]*slot{}, wake: make(chan struct{}, 1),
		status: func(string, []byte) {}, events: func(string, []byte) {}, presence: func(string, bool) {}, flood: func(string) {}, odd: func() {}}
}

// take keeps one message until it is handed on. It never waits.
func (in *inbox) take(subject string, data []byte) {
	node, ok := wire.NodeOf(subject)
	if !ok || !nodestate.ValidNode(node) {
		in.count.malformed.Add(1)
		return
	}
	isStatus := subject == wire.StatusSubject(node)
	if !isStatus && subject != wire.EventsSubject(node) {
		in.count.malformed.Add(1)
		return
	}
	if len(data) > maxReport || isStatus && len(data) > wire.MaxStatus {
		in.count.oversized.Add(1)
		return
	}
	in.mu.Lock()
	s := in.slot(node)
	dropped := false
	if isStatus {
		in.count.statuses.Add(1)
		if dropped = s.status != nil; dropped {
			in.count.coalesced.Add(1)
		}
		s.status = data
	} else if dropped = len(s.events) >= maxWaiting; dropped {
		in.count.flooded.Add(1)
	} else {
		in.count.events.Add(1)
		s.events = append(s.events, data)
	}
	now := time.Now()
	flood := dropped && s.drop(now)
	odd := s.isOdd(now) && now.Sub(in.asked) > oddPause
	if odd {
		in.asked = now
	}
	if s.where == 0 {
		if now.Sub(s.last) < perNode {
			in.late, s.where = append(in.late, node), 'l'
		} else {
			in.enqueue(node, s)
		}
	}
	in.mu.Unlock()
	if flood {
		in.flood(node)
	}
	if odd {
		in.odd()
	}
}

// isOdd tells that a node has been speaking for a while though it is not connected: its
// connection was not told, or an end that was none.
func (s *slot) isOdd(now time.Time) bool {
	if !s.connected && s.odd.IsZero() {
		s.odd = now
	}
	return !s.connected && now.Sub(s.odd) > oddTime
}

// drop counts a dropped message, and tells whether that is enough.
func (s *slot) drop(now time.Time) bool {
	if now.Sub(s.since) > floodTime {
		s.since, s.drops = now, 0
	}
	s.drops++
	return s.drops == floodDrops
}

// connected keeps whether a node is there; that is handed on without delay.
func (in *inbox) connected(node string, is bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	s := in.slot(node)
	s.connected, s.odd = is, time.Time{}
	if s.where != 'q' {
		in.enqueue(node, s) // it may stand in late, too: handed on twice, the second time with nothing
	}
}

func (in *inbox) slot(node string) *slot {
	s := in.slots[node]
	if s == nil {
		s = &slot{}
		in.slots[node] = s
	}
	return s
}

func (in *inbox) enqueue(node string, s *slot) {
	in.queue, s.where = append(in.queue, node), 'q'
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// run hands on until ctx ends.
func (in *inbox) run(ctx context.Context) {
	tick := time.NewTicker(perNode / 4)
	defer tick.Stop()
	swept := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-in.wake:
		case now := <-tick.C:
			in.due(now)
			if now.Sub(swept) > time.Minute {
				in.forget(now)
				swept = now
			}
		}
		for in.next() && ctx.Err() == nil {
		}
	}
}

// due moves nodes whose time has come to the queue.
func (in *inbox) due(now time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	rest := in.late[:0]
	for _, node := range in.late {
		s := in.slots[node]
		switch {
		case s == nil || s.where != 'l':
		case now.Sub(s.last) < perNode:
			rest = append(rest, node)
		default:
			in.enqueue(node, s)
		}
	}
	clear(in.late[len(rest):])
	in.late = rest
}

// next hands on what waits of the first node in the queue.
func (in *inbox) next() bool {
	in.mu.Lock()
	if len(in.queue) == 0 {
		in.queue = nil
		in.mu.Unlock()
		return false
	}
	node := in.queue[0]
	in.queue = in.queue[1:]
	s := in.slots[node]
	if s == nil {
		in.mu.Unlock()
		return true
	}
	status, events, connected, tell := s.status, s.events, s.connected, s.connected != s.told
	s.status, s.events, s.told, s.where, s.last = nil, nil, s.connected, 0, time.Now()
	in.mu.Unlock()
	if tell && connected {
		in.presence(node, true)
	}
	for _, e := range events {
		in.events(node, e)
	}
	if status != nil {
		in.status(node, status)
	}
	if tell && !connected {
		in.presence(node, false)
	}
	return true
}

// forget drops slots of nodes that have been silent and away.
func (in *inbox) forget(now time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for node, s := range in.slots {
		if s.where == 0 && !s.connected && !s.told && now.Sub(s.last) > floodTime {
			delete(in.slots, node)
		}
	}
}
