package status

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// Bounds of changes.
const (
	changesMost = 200
	touchesMost = 400000 // nodes in all of them: older changes then forget theirs, and are forgotten
	countsFor   = time.Second
)

// change is a commit that took effect.
type change struct {
	roster.Commit
	at      time.Time
	touched []touch  // by name
	removed []string // names, and their workspaces as far as known
	places  []string
	dirty   bool

	mu      sync.Mutex
	counted time.Time
	counts  map[string]*progress // by workspace
}

type touch struct {
	node       string
	generation int64
}

type progress struct{ touched, done, failed int }

// Changes tells commits that took effect, oldest first; those known already are left.
func (s *Store) Changes(list []roster.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range list {
		if c.Hash != "" {
			s.change(c)
		}
	}
	s.bound()
	s.bump()
}

// change adds one, or what is new of one.
func (s *Store) change(c roster.Change) *change {
	i := slices.IndexFunc(s.changes, func(o *change) bool { return o.Hash == c.Hash })
	var n *change
	switch {
	case i >= 0 && s.changes[i].at.Equal(c.At):
		n = s.changes[i]
		if len(n.touched) >= len(c.Nodes) && len(n.removed) >= len(c.Removed) {
			return n
		}
	default: // new, or a commit that came into force again
		if i >= 0 {
			s.touches -= len(s.changes[i].touched)
			s.changes = slices.Delete(s.changes, i, i+1)
		}
		n = &change{Commit: c.Commit, at: c.At.UTC()}
		n.Subject, n.Author = text(n.Subject, 1024), text(n.Author, maxName)
		at, _ := slices.BinarySearchFunc(s.changes, n, func(a, b *change) int { return cmp.Or(a.at.Compare(b.at), -1) })
		s.changes = slices.Insert(s.changes, at, n)
	}
	s.touches -= len(n.touched)
	for name, g := range c.Nodes {
		if r := s.nodes[name]; r != nil {
			name = r.name // one string for all changes
		}
		n.touched = append(n.touched, touch{name, g})
	}
	slices.SortFunc(n.touched, func(a, b touch) int {
		return cmp.Or(cmp.Compare(a.node, b.node), cmp.Compare(b.generation, a.generation))
	})
	n.touched = slices.Clip(slices.CompactFunc(n.touched, func(a, b touch) bool { return a.node == b.node }))
	s.touches += len(n.touched)
	for _, name := range c.Removed {
		if slices.Contains(n.removed, name) {
			continue
		}
		place := ""
		if r := s.nodes[name]; r != nil {
			place = r.want.Workspace
		} else if l := s.journal.nodes[name]; l != nil {
			place = l.workspace
		}
		n.removed, n.places = append(n.removed, name), append(n.places, place)
	}
	n.dirty, n.counted = true, time.Time{}
	return n
}

func (s *Store) bound() {
	for len(s.changes) > changesMost || s.touches > touchesMost && len(s.changes) > 1 {
		s.touches -= len(s.changes[0].touched)
		s.lost = append(s.lost, s.changes[0].Hash)
		s.changes = slices.Delete(s.changes, 0, 1)
	}
}

func (c *change) roster() roster.Change {
	out := roster.Change{Commit: c.Commit, At: c.at, Removed: c.removed, Nodes: make(map[string]int64, len(c.touched))}
	for _, t := range c.touched {
		out.Nodes[t.node] = t.generation
	}
	return out
}

// Progress of a change on a node.
const (
	progressDone     = "done"
	progressFailed   = "failed"
	progressApplying = "applying"
	progressWaiting  = "waiting"
	progressUnknown  = "unknown"
)

func (r *record) progress(generation int64) string {
	if p := r.report; p != nil {
		switch st := &p.State; {
		case st.LastGood.Generation >= generation:
			return progressDone
		case slices.ContainsFunc(st.Rejected, func(x wire.Rejected) bool { return x.Generation == generation }):
			return progressFailed
		case r.ready == hubapi.Unknown:
		case st.Pulled.Generation >= generation || st.Current.Generation >= generation:
			return progressApplying
		default:
			return progressWaiting
		}
	}
	return progressUnknown
}

// progress counts by workspace, at most once a second. Nodes that Git has no more do not count.
func (s *Store) progress(c *change, now time.Time) map[string]*progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := now.Sub(c.counted); d >= 0 && d < countsFor {
		return c.counts
	}
	c.counts, c.counted = map[string]*progress{}, now
	for _, t := range c.touched {
		r := s.nodes[t.node]
		if r == nil {
			continue
		}
		p := c.counts[r.want.Workspace]
		if p == nil {
			p = &progress{}
			c.counts[r.want.Workspace] = p
		}
		p.touched++
		switch r.progress(t.generation) {
		case progressDone:
			p.done++
		case progressFailed:
			p.failed++
		}
	}
	return c.counts
}

// seen makes what people see of a change; nil visible: all.
func (s *Store) seen(c *change, visible func(string) bool, now time.Time) (hubapi.Change, bool) {
	out := hubapi.Change{Commit: c.Commit, At: c.at}
	ok := visible("")
	for w, p := range s.progress(c, now) {
		if visible(w) {
			ok = true
			out.Touched, out.Done, out.Failed = out.Touched+p.touched, out.Done+p.done, out.Failed+p.failed
		}
	}
	for _, w := range c.places {
		if visible(w) {
			ok = true
			out.Removed++
		}
	}
	return out, ok
}

// ChangeList lists changes that touch something visible, newest first. Who sees the platform
// sees all of them.
func (s *Store) ChangeList(visible func(workspace string) bool, limit int, cont string) (hubapi.List[hubapi.Change], error) {
	out := hubapi.List[hubapi.Change]{}
	may := remember(visible)
	s.mu.RLock()
	defer s.mu.RUnlock()
	var rows []row[hubapi.Change]
	now := s.now()
	for i, c := range slices.Backward(s.changes) {
		if v, ok := s.seen(c, may, now); ok {
			rows = append(rows, row[hubapi.Change]{key{Sort: "changes", Num: -float64(c.at.UnixMilli()), Word: c.Hash, Name: s.changes[i].Hash}, v})
		}
	}
	list, next, err := page(rows, Query{Limit: limit, Continue: cont}, "changes", false, false)
	if err != nil {
		return out, err
	}
	out.Items, out.Continue, out.Total = list, next, len(rows)
	return out, nil
}

// Change tells how far a commit got on each visible node; the start of a hash, of seven
// digits or more, will do where it names one only.
func (s *Store) Change(hash string, visible func(workspace string) bool) (hubapi.Change, bool) {
	may := remember(visible)
	s.mu.RLock()
	defer s.mu.RUnlock()
	var found *change
	for _, c := range s.changes {
		if c.Hash == hash {
			found = c
			break
		}
		if len(hash) >= 7 && strings.HasPrefix(c.Hash, hash) {
			if found != nil {
				return hubapi.Change{}, false
			}
			found = c
		}
	}
	if found == nil {
		return hubapi.Change{}, false
	}
	out, ok := s.seen(found, may, s.now())
	if !ok {
		return hubapi.Change{}, false
	}
	for _, t := range found.touched {
		if r := s.nodes[t.node]; r != nil && may(r.want.Workspace) {
			out.Nodes = append(out.Nodes, hubapi.ChangeNode{Node: r.name, Workspace: r.want.Workspace, Generation: t.generation, State: r.progress(t.generation)})
		}
	}
	return out, true
}
