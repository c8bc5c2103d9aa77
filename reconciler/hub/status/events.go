package status

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// Bounds of events that are kept.
const (
	eventsEach = 200
	eventsAll  = 50000
	bytesEach  = 256 << 10
	bytesAll   = 64 << 20
	eventsGone = 24 * time.Hour // of nodes that Git has no more
)

// entry is an event; ID, Node and Workspace are set.
type entry struct {
	hubapi.Event
	id   uint64
	dead bool
}

// journal keeps events in the order of their IDs.
type journal struct {
	all   []*entry // with dead ones among them
	live  int
	size  int // of live ones, bytes, about
	nodes map[string]*nodeLog
	last  uint64
	fresh []*entry // to be written
	dead  []uint64 // to be deleted from the file
}

type nodeLog struct {
	list      []*entry
	size      int
	workspace string
	gone      time.Time // when Git dropped the node
}

func (e *entry) weight() int { return 300 + len(e.Message) }

func (j *journal) init() { j.nodes = map[string]*nodeLog{} }

// add keeps an event. IDs are microseconds where that makes them grow, so that they grow
// also after the loss of the file, and of what a killed hub had not written.
func (j *journal) add(e hubapi.Event) {
	j.last = max(j.last+1, uint64(max(0, e.Received.UnixMicro())))
	e.ID = strconv.FormatUint(j.last, 10)
	n := &entry{Event: e, id: j.last}
	j.insert(n)
	j.fresh = append(j.fresh, n)
}

func (j *journal) insert(n *entry) {
	l := j.nodes[n.Node]
	if l == nil {
		l = &nodeLog{workspace: n.Workspace}
		j.nodes[n.Node] = l
	}
	l.list = append(l.list, n)
	j.all = append(j.all, n)
	j.live++
	j.size += n.weight()
	l.size += n.weight()
	drop := 0
	for ; len(l.list)-drop > eventsEach || l.size > bytesEach; drop++ {
		l.size -= l.list[drop].weight()
		j.drop(l.list[drop])
	}
	if drop > 0 {
		l.list = slices.Clone(l.list[drop:]) // not a window on an array that only grows
	}
	for j.live > eventsAll || j.size > bytesAll {
		for j.all[0].dead {
			j.all = j.all[1:]
		}
		j.remove(j.all[0])
	}
	if len(j.all) > 2*j.live+1000 || len(j.all) > eventsAll+eventsAll/4 {
		j.all = slices.DeleteFunc(j.all, func(e *entry) bool { return e.dead })
	}
}

func (j *journal) drop(e *entry) {
	e.dead = true
	j.live--
	j.size -= e.weight()
	j.dead = append(j.dead, e.id)
}

func (j *journal) remove(e *entry) {
	j.drop(e)
	l := j.nodes[e.Node]
	l.size -= e.weight()
	if l.list = slices.DeleteFunc(l.list, func(o *entry) bool { return o == e }); len(l.list) == 0 && l.gone.IsZero() {
		delete(j.nodes, e.Node)
	}
}

// left marks a node that Git has no more; back undoes it.
func (j *journal) left(node, workspace string, now time.Time) {
	if l := j.nodes[node]; l != nil && node != "" {
		l.gone, l.workspace = now, workspace
	}
}

func (j *journal) back(node string) {
	if l := j.nodes[node]; l != nil {
		l.gone = time.Time{}
	}
}

func (j *journal) orphans(nodes map[string]roster.Node, now time.Time) {
	for n, l := range j.nodes {
		if _, ok := nodes[n]; !ok {
			j.left(n, l.workspace, now)
		}
	}
}

// expire forgets events of nodes that went long ago.
func (j *journal) expire(now time.Time) bool {
	some := false
	for n, l := range j.nodes {
		if !l.gone.IsZero() && now.Sub(l.gone) > eventsGone {
			for _, e := range l.list {
				j.drop(e)
			}
			delete(j.nodes, n)
			some = true
		}
	}
	return some
}

// known tells which events of an epoch came before: they come again after each connection,
// and a new one may overtake older ones.
type known struct {
	Epoch string    `json:"epoch,omitempty"`
	High  uint64    `json:"high,omitempty"`
	Bits  [4]uint64 `json:"bits"` // of High and the 255 before it
}

const window = 256

// take reports whether seq is new, and knows it from now on.
func (k *known) take(seq uint64) bool {
	if seq > k.High {
		shift := seq - k.High
		if shift >= window {
			k.Bits, shift = [4]uint64{}, 0
		}
		for ; shift >= 64; shift -= 64 {
			k.Bits = [4]uint64{0, k.Bits[0], k.Bits[1], k.Bits[2]}
		}
		for i := 3; i > 0 && shift > 0; i-- {
			k.Bits[i] = k.Bits[i]<<shift | k.Bits[i-1]>>(64-shift)
		}
		k.Bits[0] = k.Bits[0]<<shift | 1
		k.High = seq
		return true
	}
	d := k.High - seq
	if d >= window || k.Bits[d/64]>>(d%64)&1 == 1 {
		return false
	}
	k.Bits[d/64] |= 1 << (d % 64)
	return true
}

// Events takes wire.Events that came on the subject of node. It keeps nothing of data.
func (s *Store) Events(node string, data []byte) {
	s.mu.RLock()
	listed := s.nodes[node] != nil
	s.mu.RUnlock()
	if !listed {
		s.counts.drop("unlisted")
		return
	}
	events, err := decodeEvents(node, data)

	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	r := s.nodes[node]
	if r == nil {
		s.counts.drop("unlisted")
		return
	}
	if err != nil {
		s.refuse(r, reasonOf(err), "events were dropped: "+text(err.Error(), 300), now)
		return
	}
	k := &r.known[0]
	switch events.Epoch {
	case k.Epoch:
	case r.known[1].Epoch:
		k = &r.known[1]
	default:
		r.known[1] = *k
		*k = known{Epoch: events.Epoch}
	}
	some := false
	for _, e := range events.Events {
		if !r.events.take(1, eventRate, eventBurst, now) {
			s.refuse(r, "flood", "it sends more events than allowed; they are dropped", now)
			break
		}
		if e.Seq == 0 || !k.take(e.Seq) {
			continue
		}
		s.counts.events.Inc()
		s.journal.add(hubapi.Event{Node: r.name, Workspace: r.want.Workspace, Received: now.UTC(), Event: e})
		some = true
	}
	if some {
		r.dirty = true // what is known
		s.bump()
	}
}

// Note keeps an event of the hub's own; node may be empty. Time is filled in where it is
// missing. Seq is 0 for the hub's own events, and never for a node's: none can speak for the hub.
func (s *Store) Note(node string, e wire.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	workspace := ""
	if r := s.nodes[node]; r != nil {
		workspace = r.want.Workspace
	} else if l := s.journal.nodes[node]; l != nil {
		workspace = l.workspace
	}
	s.note(text(node, maxName), workspace, e, s.now())
	if l := s.journal.nodes[node]; l != nil && node != "" && s.nodes[node] == nil && l.gone.IsZero() {
		l.gone = s.now()
	}
	s.bump()
}

func (s *Store) note(node, workspace string, e wire.Event, now time.Time) {
	if e.Seq = 0; e.Severity == "" {
		e.Severity = "info"
	}
	if cleanEvent(&e); e.Time.IsZero() {
		e.Time = now.UTC()
	}
	s.journal.add(hubapi.Event{Node: node, Workspace: workspace, Received: now.UTC(), Event: e})
}

// EventList lists events.
func (s *Store) EventList(q EventQuery) (hubapi.List[hubapi.Event], error) {
	out := hubapi.List[hubapi.Event]{Items: []hubapi.Event{}}
	least, ok := severities[q.Severity]
	if !ok && q.Severity != "" {
		return out, fmt.Errorf("%w: severity %q; it is info, warning or error", ErrQuery, text(q.Severity, 40))
	}
	bound := func(s, what string) (uint64, error) {
		n, err := strconv.ParseUint(s, 10, 64)
		if s != "" && err != nil {
			return 0, fmt.Errorf("%w: %s %q is no ID of an event", ErrQuery, what, text(s, 40))
		}
		return n, nil
	}
	after, err := bound(q.After, "after")
	if err != nil {
		return out, err
	}
	cont, err := bound(q.Continue, "continue")
	if err != nil {
		return out, err
	}
	q.Search = strings.ToLower(q.Search)
	visible, limit := remember(q.Visible), limitOf(q.Limit)

	s.mu.RLock()
	defer s.mu.RUnlock()
	list := s.journal.all
	if q.Node != "" {
		list = nil
		if l := s.journal.nodes[q.Node]; l != nil {
			list = l.list
		}
	}
	more := false
	take := func(e *entry) {
		if e.dead || least > severities[e.Severity] || q.App != "" && e.App != q.App || q.Reason != "" && e.Reason != q.Reason || e.Received.Before(q.Since) ||
			q.Workspace != "" && e.Workspace != q.Workspace || !below(e.Workspace, q.Folder) || !visible(e.Workspace) ||
			q.Search != "" && !strings.Contains(strings.ToLower(e.Node+"\n"+e.Reason+"\n"+e.App+"\n"+e.Message), q.Search) {
			return
		}
		out.Total++
		if cont != 0 && (q.After == "" && e.id >= cont || q.After != "" && e.id <= cont) {
			return
		}
		if more = len(out.Items) == limit; !more {
			out.Items = append(out.Items, e.Event)
		} else {
			out.Continue = out.Items[limit-1].ID
		}
	}
	if q.After != "" {
		from, _ := slices.BinarySearchFunc(list, after+1, func(e *entry, id uint64) int { return cmpID(e.id, id) })
		for _, e := range list[from:] {
			take(e)
		}
	} else {
		for _, e := range slices.Backward(list) {
			take(e)
		}
	}
	return out, nil
}

func cmpID(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
