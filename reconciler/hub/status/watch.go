package status

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"selvedge/schema/hubapi"
)

const (
	watchEvery   = 250 * time.Millisecond // at most
	summaryEvery = 2 * time.Second
	watchNarrow  = 100  // nodes up to which figures of usage alone are updates
	watchEvents  = 200  // at once; what is more is lost to this reader
	watchAfter   = 1000 // at first, with Query.After
)

// Watch sends updates of what a query chooses until ctx ends, and then closes the channel. It
// begins with a start, which tells the event that those to come follow, and a summary, and with all
// nodes that match if Initial is set. A node is
// removed when it does not match any more, for whatever reason. A slow reader loses
// intermediate states of a node and old events, never the newest. Where more than 100 nodes match, new
// figures of usage alone are no update. A query that makes no sense closes the channel at once;
// Nodes tells why.
func (s *Store) Watch(ctx context.Context, q Query) <-chan hubapi.Update {
	out := make(chan hubapi.Update)
	m, err := q.matcher()
	if err != nil {
		close(out)
		return out
	}
	s.mu.RLock()
	w := &watcher{s: s, m: m, out: out, known: map[string]bool{}, event: s.journal.last, most: watchEvents, version: s.version, members: s.members}
	if after, err := strconv.ParseUint(q.After, 10, 64); err == nil && after < w.event {
		w.event, w.most = after, watchAfter
	}
	for _, r := range s.order {
		if m.match(r) {
			w.known[r.name] = true
		}
	}
	if q.Initial {
		w.version, w.known = 0, map[string]bool{}
	}
	s.mu.RUnlock()
	s.counts.watchers.Inc()
	go func() {
		defer close(out)
		defer s.counts.watchers.Dec()
		w.run(ctx)
	}()
	return out
}

// watcher holds no updates: it looks in the store for what is newer than what it sent.
type watcher struct {
	s       *Store
	m       *matcher
	out     chan hubapi.Update
	known   map[string]bool // nodes that matched when they were sent, or at the start
	version uint64
	members uint64
	event   uint64 // what came since is told
	most    int    // events in the next pass
	summed  time.Time
	stale   bool // the summary
}

func (w *watcher) run(ctx context.Context) {
	if !w.send(ctx, hubapi.Update{Kind: "start", ID: strconv.FormatUint(w.event, 10)}) {
		return
	}
	w.stale = true
	pause := time.NewTimer(0)
	defer pause.Stop()
	<-pause.C
	for {
		w.s.mu.RLock()
		wake := w.s.wake
		w.s.mu.RUnlock()
		// rights may have changed; what was asked about them is asked again
		w.m.visible, w.m.inScope = remember(w.m.q.Visible), map[string]bool{}
		if !w.pass(ctx) {
			return
		}
		// many updates make one pass
		pause.Reset(watchEvery)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		var summary <-chan time.Time
		if w.stale {
			summary = time.After(max(0, summaryEvery-time.Since(w.summed)))
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-summary:
		}
	}
}

// pass sends what is new.
func (w *watcher) pass(ctx context.Context) bool {
	names, events := w.look()
	for _, n := range names {
		u, ok := w.update(n)
		if ok && !w.send(ctx, u) {
			return false
		}
	}
	for i := range events {
		if !w.send(ctx, hubapi.Update{Kind: "event", ID: events[i].ID, Event: &events[i]}) {
			return false
		}
	}
	if w.stale && time.Since(w.summed) >= summaryEvery {
		sum := w.s.Summary(w.m.scope)
		w.stale, w.summed = false, time.Now()
		return w.send(ctx, hubapi.Update{Kind: "summary", Summary: &sum})
	}
	return true
}

// look finds what changed since the last look.
func (w *watcher) look() (names []string, events []hubapi.Event) {
	s := w.s
	s.mu.RLock()
	defer s.mu.RUnlock()
	narrow := len(w.known) <= watchNarrow
	for _, r := range s.order {
		switch {
		case r.changed > w.version:
			if w.known[r.name] || w.m.match(r) {
				names = append(names, r.name)
			}
			w.stale = true
		case narrow && r.beat > w.version && w.known[r.name]:
			names = append(names, r.name)
		}
	}
	if s.members != w.members {
		for n := range w.known {
			if s.nodes[n] == nil {
				names = append(names, n)
			}
		}
		w.members, w.stale = s.members, true
	}
	w.version = s.version
	all := s.journal.all
	for i := len(all) - 1; i >= 0 && all[i].id > w.event && len(events) < w.most; i-- { // the newest, if they are too many
		if e := all[i]; !e.dead && w.hears(e) {
			events = append(events, e.Event)
		}
	}
	slices.Reverse(events)
	w.event, w.most = s.journal.last, watchEvents
	return names, events
}

// hears reports, with the store locked, whether an event is of something that the query chooses.
func (w *watcher) hears(e *entry) bool {
	q := &w.m.q
	if !w.m.scope(e.Workspace) || q.Node != "" && e.Node != q.Node || q.App != "" && e.App != q.App {
		return false
	}
	chosen := func() bool { // or to be told of in this pass
		r := w.s.nodes[e.Node]
		return w.known[e.Node] || r != nil && w.m.match(r)
	}
	if q.Labels != "" || len(q.Status) > 0 || q.Condition != "" {
		return chosen()
	}
	return q.Search == "" || chosen() || strings.Contains(strings.ToLower(e.Message), w.m.search)
}

// update makes a node's update from what it is now, which may be newer than what was found.
func (w *watcher) update(n string) (hubapi.Update, bool) {
	w.s.mu.RLock()
	defer w.s.mu.RUnlock()
	r := w.s.nodes[n]
	if r != nil && w.m.match(r) {
		w.known[r.name] = true
		v := r.node()
		return hubapi.Update{Kind: "node", Node: &v}, true
	}
	if !w.known[n] {
		return hubapi.Update{}, false
	}
	delete(w.known, n)
	return hubapi.Update{Kind: "removed", Removed: n}, true
}

func (w *watcher) send(ctx context.Context, u hubapi.Update) bool {
	select {
	case w.out <- u:
		return true
	case <-ctx.Done():
		return false
	}
}
