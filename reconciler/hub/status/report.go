package status

import (
	"errors"
	"slices"
	"time"

	"selvedge/schema/wire"
)

// bucket bounds a rate: the bus delivers what a node sends as fast as it sends it.
type bucket struct {
	left float64
	at   time.Time
}

func (b *bucket) take(n, rate, most float64, now time.Time) bool {
	if b.at.IsZero() {
		b.left = most
	} else if d := now.Sub(b.at).Seconds(); d > 0 {
		b.left = min(most, b.left+d*rate)
	}
	b.at = now
	if b.left < n {
		return false
	}
	b.left -= n
	return true
}

// Rates a node. Statuses are at least a second apart; after each connection all events that
// the agent remembers come again.
const (
	statusRate, statusBurst = 2, 20
	eventRate, eventBurst   = 10, 4 * wire.MaxEvents
)

// Report takes a wire.Status that came on the subject of node. It keeps nothing of data.
func (s *Store) Report(node string, data []byte) {
	now := s.now()
	s.mu.Lock()
	r := s.nodes[node]
	if r == nil {
		s.mu.Unlock()
		s.counts.drop("unlisted")
		return
	}
	if !r.status.take(1, statusRate, statusBurst, now) {
		s.refuse(r, "flood", "it sends more statuses than allowed; they are dropped", now)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()

	status, err := decodeStatus(node, data) // the slow part, without the lock

	s.mu.Lock()
	defer s.mu.Unlock()
	if r = s.nodes[node]; r == nil { // removed meanwhile
		s.counts.drop("unlisted")
		return
	}
	if err != nil {
		s.refuse(r, reasonOf(err), "a status was dropped: "+text(err.Error(), 300), now)
		return
	}
	size := weigh(status, len(data))
	if s.size+size-r.size > max(leastRoom, len(s.nodes)*roomEach) && size > roomEach {
		s.refuse(r, "full", "a status was dropped: it is large, and the hub keeps as much as it may", now)
		return
	}
	if !s.accept(r, status, now) {
		s.counts.drop("old")
		return
	}
	s.counts.reports.Inc()
	s.size += size - r.size
	r.size = size

	gap := r.report == nil || !now.Before(r.deadline)
	if gap || r.online.IsZero() {
		r.online = now
	}
	before, old := r.verdict, r.report
	s.counts.restarts.Add(float64(restarted(old, status)))
	r.report, r.heard, r.deadline = status, now, now.Add(wire.UnknownAfter)
	if !status.Time.IsZero() {
		r.skews[r.skewed%clockBest] = status.Time.Sub(now)
		r.skewed++
	}
	r.history.add(now, status)
	r.tally()
	s.judge(r, now)

	if r.beat = s.version + 1; old == nil || before.ready != r.ready || before.why != r.why || len(before.conditions) != len(r.conditions) || !same(old, status) {
		r.changed, r.dirty = r.beat, true
	}
	s.bump()
}

// maxRestarted bounds what one status adds to the restarts of the fleet: a node says of itself
// what it likes, and 0 and 2,147,483,647 in turn would drown those of all others for good.
const maxRestarted = 100

// restarted counts the restarts between two statuses of a node, up to maxRestarted. An agent counts from zero when
// it starts, and when it gets another version of an app. Of a container that is new it is not
// known which restarts are.
func restarted(older, newer *wire.Status) (n int) {
	if older == nil {
		return 0
	}
	type key struct{ app, container string }
	was := map[key]int{}
	for i := range older.Apps {
		for j := range older.Apps[i].Containers {
			was[key{older.Apps[i].Name, older.Apps[i].Containers[j].Name}] = older.Apps[i].Containers[j].Restarts
		}
	}
	for i := range newer.Apps {
		for j := range newer.Apps[i].Containers {
			c := &newer.Apps[i].Containers[j]
			before, ok := was[key{newer.Apps[i].Name, c.Name}]
			switch {
			case ok && c.Restarts >= before:
				n += min(c.Restarts-before, maxRestarted)
			case ok:
				n += min(c.Restarts, maxRestarted)
			}
		}
	}
	return min(n, maxRestarted)
}

// Room for statuses in memory, bytes: large ones are refused when all together take more.
const (
	leastRoom = 128 << 20
	roomEach  = 32 << 10
)

func weigh(s *wire.Status, size int) int {
	for i := range s.Apps {
		size += 64 + 240*len(s.Apps[i].Containers)
	}
	return size
}

// accept tells whether a status is newer than what is known.
func (s *Store) accept(r *record, n *wire.Status, now time.Time) bool {
	switch {
	case n.Epoch == r.epoch:
		if n.Seq <= r.seq {
			return false
		}
	case n.Epoch == r.former && now.Before(r.deadline):
		// late on the way; or a second agent with the same key, which the disk of a node that was copied has
		if now.Sub(r.online) > time.Minute {
			s.noteOnce(r, wire.Event{Severity: "warning", Reason: "TwoAgents", Message: "statuses of an earlier start of the agent still come: two machines seem to use this node's key"}, now)
		}
		return false
	default:
		if r.epoch != "" {
			s.noteOnce(r, wire.Event{Severity: "info", Reason: "AgentRestarted", Message: "the agent started anew, version " + n.Agent.Version}, now)
		}
		r.online = now
		r.epoch, r.former = n.Epoch, r.epoch
	}
	r.seq = n.Seq
	return true
}

func reasonOf(err error) string {
	switch {
	case errors.Is(err, errOversized):
		return "oversized"
	case errors.Is(err, errForeign):
		return "foreign"
	}
	return "malformed"
}

// refuse counts what is dropped and tells the node's people, seldom.
func (s *Store) refuse(r *record, reason, message string, now time.Time) {
	s.counts.drop(reason)
	s.noteOnce(r, wire.Event{Severity: "warning", Reason: "ReportRefused", Message: message}, now)
}

// noteOnce notes an event of a reason once a minute.
func (s *Store) noteOnce(r *record, e wire.Event, now time.Time) {
	if at, ok := r.noted[e.Reason]; ok && now.Sub(at).Abs() < time.Minute {
		return
	}
	if r.noted == nil {
		r.noted = map[string]time.Time{}
	}
	r.noted[e.Reason] = now // the hub's own reasons are few
	s.note(r.name, r.want.Workspace, e, now)
}

// same tells whether two statuses differ in figures of usage at most.
func same(a, b *wire.Status) bool {
	if a.Epoch != b.Epoch || a.Well != b.Well || a.Why != b.Why || a.Remote != b.Remote || a.Machine != b.Machine ||
		a.Agent.Version != b.Agent.Version || a.Agent.Runtime != b.Agent.Runtime || len(a.Apps) != len(b.Apps) {
		return false
	}
	x, y := &a.State, &b.State
	if x.Pulled != y.Pulled || x.Current != y.Current || x.LastGood != y.LastGood || x.Phase != y.Phase || x.Problem != y.Problem ||
		x.LinkError != y.LinkError || !slices.Equal(x.Rejected, y.Rejected) || (x.Refused == nil) != (y.Refused == nil) || (x.Hold == nil) != (y.Hold == nil) {
		return false
	}
	if !slices.EqualFunc(a.Conditions, b.Conditions, func(x, y wire.Condition) bool { return x.Type == y.Type && x.Message == y.Message }) {
		return false
	}
	return slices.EqualFunc(a.Apps, b.Apps, func(x, y wire.App) bool {
		return x.Name == y.Name && x.Healthy == y.Healthy && slices.EqualFunc(x.Containers, y.Containers, func(x, y wire.Instance) bool {
			x.Usage, y.Usage = nil, nil
			return x == y
		})
	})
}
