package status

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// Config configures a Store.
type Config struct {
	Path string           // of the file; its folder must exist
	Log  *slog.Logger     // nil: discards
	Now  func() time.Time // nil: the clock
}

// Intervals of Run.
const (
	sweepEvery = time.Second     // how late a verdict may be that time alone changes
	writeEvery = 3 * time.Second // how much a killed hub loses
	awayGrace  = 15 * time.Second
	flapGrace  = 2 * time.Minute  // of one that went away lately
	lately     = 10 * time.Minute // ago
)

// Store keeps what is known of nodes. It is safe for concurrent use.
type Store struct {
	log    *slog.Logger
	now    func() time.Time
	opened time.Time
	file   *snapshot
	counts counters
	reset  atomic.Bool // the roster came once
	saving sync.Mutex

	mu      sync.RWMutex
	nodes   map[string]*record
	order   []*record       // by name
	present map[string]bool // nodes with a connection, also those that Git is not known to have yet
	fleet   roster.Fleet
	journal journal
	changes []*change // oldest first
	touches int       // in all of changes
	version uint64    // grows with each update of anything
	members uint64    // the version that nodes came or went at
	size    int       // of reports, about
	wake    chan struct{}
	gone    []string // rows to delete
	// lived is when the hub before this one last wrote; nodes that were known then are not
	// unknown before they had the time to come back.
	lived     time.Time
	ready     bool                 // the roster came
	lost      []string             // hashes of changes to delete
	lastHeard map[string]time.Time // by the hub before this one
}

// record is one node of Git. Everything that it points to is replaced, never changed, but
// for history.
type record struct {
	name      string
	want      roster.Node
	wantSince time.Time
	hay       string // what Search looks at

	report   *wire.Status
	heard    time.Time
	online   time.Time
	deadline time.Time
	epoch    string
	former   string // the epoch before
	seq      uint64
	size     int
	skews    [clockBest]time.Duration
	skewed   int // how many of skews were ever set
	skewOff  bool

	connected  bool
	announced  bool      // what the last event about it said
	announceAt time.Time // when to say that it went; zero: nothing to say
	wentAt     time.Time

	verdict
	healthy  int // of want.Apps
	restarts int

	known   [2]known // events, of this epoch and the one before
	status  bucket
	events  bucket
	noted   map[string]time.Time // what may be said once a minute
	history history

	due     time.Time // sweep has something to do
	changed uint64    // version of the last change that matters
	beat    uint64    // and of any
	dirty   bool      // to be written
	saved   time.Time
	minute  int64 // of the history that was written
}

// Open reads the file, or makes it.
func Open(c Config) (*Store, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Path == "" {
		return nil, errors.New("open status: no path of its file")
	}
	s := &Store{log: c.Log, now: c.Now, opened: c.Now(), nodes: map[string]*record{}, present: map[string]bool{}, wake: make(chan struct{})}
	s.journal.init()
	s.counts.init()
	f, err := openSnapshot(c.Path, c.Log)
	if err != nil {
		return nil, err
	}
	s.file = f
	if err := s.load(); err != nil {
		f.close()
		return nil, err
	}
	return s, nil
}

// Run tells time and writes the file until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	sweep, write := time.NewTicker(sweepEvery), time.NewTicker(writeEvery)
	defer sweep.Stop()
	defer write.Stop()
	var told time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sweep.C:
			s.sweep()
		case <-write.C:
			if err := s.save(false); err != nil && s.now().Sub(told) > time.Minute {
				s.log.Error("statuses are not written; they are kept in memory until they are", "error", err)
				told = s.now()
			}
		}
	}
}

// Close writes and closes the file.
func (s *Store) Close() error {
	err := s.save(true)
	return errors.Join(err, s.file.close())
}

// Want tells which nodes Git has. With reset, those that are not among nodes are gone. It returns
// the new ones that are connected already: what they said until now was said by nobody.
func (s *Store) Want(reset bool, nodes map[string]roster.Node, removed []string) (unheard []string) {
	s.mu.RLock()
	var fresh []string
	for n := range nodes {
		if s.nodes[n] == nil {
			fresh = append(fresh, n)
		}
	}
	s.mu.RUnlock()
	rows := s.file.rows(fresh) // what an earlier run knew
	var others []string
	if reset && !s.reset.Swap(true) {
		others = s.file.others(nodes)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	came, went := 0, 0
	if reset {
		if !s.ready {
			s.gone = append(s.gone, others...)
			s.journal.orphans(nodes, now)
		}
		s.ready = true
		for n := range s.nodes {
			if _, ok := nodes[n]; !ok {
				s.forget(n, now)
				went++
			}
		}
	}
	for _, n := range removed {
		if _, again := nodes[n]; !again && s.nodes[n] != nil {
			s.forget(n, now)
			went++
		}
	}
	for n, want := range nodes {
		r := s.nodes[n]
		if r == nil {
			r = s.recall(n, rows[n])
			s.journal.back(n)
			s.nodes[n] = r
			s.order = append(s.order, r)
			came++
			if s.present[n] {
				unheard = append(unheard, n)
			}
		}
		if r.report != nil && r.want.PublicKey != want.PublicKey {
			// another machine under the same name: what the one before said is not its
			s.size -= r.size
			*r = record{name: n, wantSince: r.wantSince, connected: r.connected, announced: r.announced, want: r.want}
		}
		s.adopt(r, want, now)
		s.link(r, s.present[n], now) // it may have connected before its name was known
	}
	if went > 0 {
		s.order = slices.DeleteFunc(s.order, func(r *record) bool { return s.nodes[r.name] != r })
	}
	if came > 0 {
		slices.SortFunc(s.order, func(a, b *record) int { return strings.Compare(a.name, b.name) })
	}
	if came+went > 0 {
		s.members = s.version + 1
	}
	if reset {
		s.lastHeard = nil
	}
	s.bump()
	return unheard
}

func (s *Store) adopt(r *record, want roster.Node, now time.Time) {
	if r.want.Generation != want.Generation || r.wantSince.IsZero() {
		r.wantSince = now.UTC()
	}
	r.want, r.dirty = want, true
	words := []string{strings.ToLower(r.name), strings.ToLower(want.Workspace)}
	for _, k := range slices.Sorted(maps.Keys(want.Labels)) {
		words = append(words, strings.ToLower(k+"="+want.Labels[k]))
	}
	r.hay = strings.Join(words, "\n")
	r.tally()
	s.judge(r, now)
	r.changed = s.version + 1
	r.beat = r.changed
}

func (s *Store) forget(n string, now time.Time) {
	s.journal.left(n, s.nodes[n].want.Workspace, now)
	s.size -= s.nodes[n].size
	delete(s.nodes, n)
	s.gone = append(s.gone, n)
}

// Fleet tells what Git says besides nodes.
func (s *Store) Fleet(f roster.Fleet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fleet = f
	s.bump()
}

// Presence tells that a node connected, or that its connection ended. Short breaks are no
// events.
func (s *Store) Presence(node string, connected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if connected {
		s.present[node] = true
	} else {
		delete(s.present, node)
	}
	if r := s.nodes[node]; r != nil && s.link(r, connected, s.now()) {
		s.bump()
	}
}

// link notes whether a node is connected, and tells whether that is new.
func (s *Store) link(r *record, connected bool, now time.Time) bool {
	if r.connected == connected {
		return false
	}
	r.connected = connected
	switch {
	case connected && !r.announced:
		r.announced = true
		s.note(r.name, r.want.Workspace, wire.Event{Severity: "info", Reason: "Connected", Message: "the node connected"}, now)
	case !connected && r.announced:
		grace := awayGrace
		if now.Sub(r.wentAt) < lately {
			grace = flapGrace
		}
		r.announceAt = now.Add(grace)
	}
	if connected {
		r.announceAt = time.Time{}
	}
	r.dirty = true
	s.schedule(r)
	r.changed = s.version + 1
	r.beat = r.changed
	return true
}

// sweep does what time alone brings.
func (s *Store) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	some := false
	for _, r := range s.order {
		if r.due.IsZero() || now.Before(r.due) {
			continue
		}
		if !r.announceAt.IsZero() && !now.Before(r.announceAt) {
			r.announceAt, r.announced, r.wentAt, r.dirty = time.Time{}, false, now, true
			s.note(r.name, r.want.Workspace, wire.Event{Severity: "warning", Reason: "Disconnected", Message: "the node's connection ended"}, now)
		}
		before := r.verdict
		s.judge(r, now)
		if before.ready != r.ready || before.why != r.why || len(before.conditions) != len(r.conditions) {
			r.changed = s.version + 1
			r.beat, r.dirty, some = r.changed, true, true
		}
	}
	if s.journal.expire(now) {
		some = true
	}
	if some {
		s.bump()
	}
}

// judge brings a record's verdict up to date, and tells in events what the hub found.
func (s *Store) judge(r *record, now time.Time) {
	before := r.verdict
	skew, off := r.skew()
	r.skewOff = off
	r.verdict = judge(facts{want: r.want, wantSince: r.wantSince, report: r.report, heard: r.heard, online: r.online, deadline: r.deadline,
		skew: skew, skewOff: off, before: before.conditions}, now)
	s.schedule(r)
	if before.ready != "" && before.ready != hubapi.Unknown && r.ready == hubapi.Unknown && r.report != nil {
		s.note(r.name, r.want.Workspace, wire.Event{Severity: "warning", Reason: "Unknown", Message: r.why}, now)
	}
	if before.ready == hubapi.Unknown && before.why != neverReported && (r.ready == hubapi.Ready || r.ready == hubapi.NotReady) {
		s.note(r.name, r.want.Workspace, wire.Event{Severity: "info", Reason: "Back", Message: "the node reports again: " + string(r.ready)}, now)
	}
	for _, t := range []string{wire.ConditionBehind, wire.ConditionClockOff, wire.ConditionIdentity} {
		if !has(r.conditions, t) || has(before.conditions, t) {
			continue
		}
		for _, c := range r.conditions {
			if c.Type == t {
				s.noteOnce(r, wire.Event{Severity: "warning", Reason: t, Message: c.Message, Generation: r.want.Generation}, now)
			}
		}
	}
}

func (s *Store) schedule(r *record) {
	r.due = r.next
	if !r.announceAt.IsZero() && (r.due.IsZero() || r.announceAt.Before(r.due)) {
		r.due = r.announceAt
	}
}

// bump ends an update: watchers look for what carries the new version.
func (s *Store) bump() {
	s.version++
	close(s.wake)
	s.wake = make(chan struct{})
}

// tally counts what lists show of a report.
func (r *record) tally() {
	r.healthy, r.restarts = 0, 0
	if r.report == nil {
		return
	}
	for i := range r.report.Apps {
		a := &r.report.Apps[i]
		if a.Healthy && slices.Contains(r.want.Apps, a.Name) {
			r.healthy++
		}
		for j := range a.Containers {
			r.restarts += a.Containers[j].Restarts
		}
	}
}

// skew returns the node's clock minus the hub's. Delays only make it smaller, so the
// largest of the last few is the best.
func (r *record) skew() (time.Duration, bool) {
	n := min(r.skewed, clockBest)
	if n == 0 {
		return 0, false
	}
	d := slices.Max(r.skews[:n])
	most := clockOff
	if r.skewOff {
		most = clockOn
	}
	return d, n == clockBest && d.Abs() > most
}
