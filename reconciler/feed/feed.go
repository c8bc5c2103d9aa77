package feed

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"selvedge/schema/roster"
)

// Config is what a Feed works with.
type Config struct {
	Path   string       // of the file that keeps the roster
	States http.Handler // serves /v2/; nil: states are elsewhere, and it is 404
	Log    *slog.Logger // nil: slog.Default()

	Heartbeat time.Duration // between signs of life on a quiet stream; 0 means 15 s
	MaxHubs   int           // connected at once; 0 means 64
	MaxBehind int           // bytes that the slowest hub may be behind; 0 means 32 MiB
}

// Feed holds the roster. Make it with Open.
type Feed struct {
	cfg  Config
	file *file

	tell    sync.Mutex // one change at a time
	unsaved bool       // the file lacks something

	mu   sync.Mutex // what follows
	now  state
	log  frames
	hubs map[*hub]struct{}
	news chan struct{} // closed when there is more
	done chan struct{} // closed by Close
}

// state is the roster in its written form.
type state struct {
	told    bool // anything, ever
	fleet   *roster.Fleet
	trust   string
	nodes   map[string][]byte // JSON
	changes []roster.Change
}

// Open reads back what was told last. A file that is damaged is set aside: then nothing is
// told until the first Tell with Reset.
func Open(c Config) (*Feed, error) {
	c.Log = cmp.Or(c.Log, slog.Default())
	c.Heartbeat = cmp.Or(c.Heartbeat, 15*time.Second)
	c.MaxHubs = cmp.Or(c.MaxHubs, 64)
	c.MaxBehind = cmp.Or(c.MaxBehind, 32<<20)
	db, now, err := openFile(c.Path, c.Log)
	if err != nil {
		return nil, fmt.Errorf("roster: %w", err)
	}
	return &Feed{cfg: c, file: db, now: now, hubs: map[*hub]struct{}{}, news: make(chan struct{}), done: make(chan struct{})}, nil
}

// Close disconnects the hubs and closes the file.
func (f *Feed) Close() error {
	f.tell.Lock()
	defer f.tell.Unlock()
	f.mu.Lock()
	select {
	case <-f.done:
		f.mu.Unlock()
		return nil
	default:
		close(f.done)
	}
	f.mu.Unlock()
	return f.file.close()
}

// Last returns what is told now, as one event; false if nothing was told ever.
func (f *Feed) Last() (e roster.Event, ok bool, err error) {
	f.mu.Lock()
	now := f.now
	now.nodes = maps.Clone(now.nodes)
	f.mu.Unlock()
	if !now.told {
		return e, false, nil
	}
	e = roster.Event{Reset: true, Fleet: now.fleet, Trust: now.trust, Changes: now.changes, Nodes: make(map[string]roster.Node, len(now.nodes))}
	for name, b := range now.nodes {
		var n roster.Node
		if err := decode(b, &n); err != nil {
			return e, false, fmt.Errorf("roster: node %s: %w", name, err)
		}
		e.Nodes[name] = n
	}
	return e, true, nil
}

// Tell makes one change known. It is on disk before a hub sees it; if it cannot be written,
// hubs are told all the same, since a removal must not wait for room on a disk, and
// the error is returned so that it is told again.
func (f *Feed) Tell(e roster.Event) error { return f.makeKnown(e, true) }

// Add makes a change known by which nobody loses anything: hubs see it before it is on disk.
func (f *Feed) Add(e roster.Event) error { return f.makeKnown(e, false) }

func (f *Feed) makeKnown(e roster.Event, diskFirst bool) error {
	f.tell.Lock()
	defer f.tell.Unlock()
	c, err := f.change(e)
	if err != nil || c.empty() && !f.unsaved {
		return err
	}
	if c.empty() {
		return f.save(f.whole())
	}
	events, err := c.events()
	if err != nil {
		return fmt.Errorf("roster: %w", err)
	}
	if diskFirst && !f.unsaved {
		err = f.save(c)
		f.publish(c, events)
		return err
	}
	f.publish(c, events)
	if f.unsaved { // it lacks more than this
		c = f.whole()
	}
	return f.save(c)
}

// save makes a change durable. After a failure the file lacks something: the next time, all is
// written.
func (f *Feed) save(c *change) error {
	if err := f.file.write(c); err != nil {
		f.unsaved = true
		return fmt.Errorf("roster: %s: %w", f.cfg.Path, err)
	}
	f.unsaved = false
	return nil
}

// whole is the change from nothing to what is told now; f.tell is held.
func (f *Feed) whole() *change {
	c := &change{reset: true, fleet: f.now.fleet, trust: f.now.trust, nodes: f.now.nodes, changes: f.now.changes, history: f.now.changes}
	c.written, _ = encode(c.fleet) // it was encoded before
	return c
}

// publish hands the events of a change to hubs.
func (f *Feed) publish(c *change, events [][]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.apply(&f.now)
	f.log.add(events)
	f.drop()
	close(f.news)
	f.news = make(chan struct{})
}

// change is what an event does to the state.
type change struct {
	reset   bool
	fleet   *roster.Fleet
	written []byte // fleet, as JSON
	trust   string
	nodes   map[string][]byte
	removed []string
	changes []roster.Change // new
	history []roster.Change // all that is kept afterwards; nil: as before
}

func (c *change) empty() bool {
	return !c.reset && c.fleet == nil && c.trust == "" && len(c.nodes) == 0 && len(c.removed) == 0 && len(c.changes) == 0
}

// change works out what an event changes: what says nothing new is left out.
func (f *Feed) change(e roster.Event) (*change, error) {
	c := &change{reset: e.Reset || !f.now.told, fleet: e.Fleet, nodes: make(map[string][]byte, len(e.Nodes)), changes: e.Changes}
	if c.reset && !e.Reset {
		return nil, errors.New("roster: nothing is known yet: begin with a reset")
	}
	if e.Trust != f.now.trust || c.reset {
		c.trust = e.Trust
	}
	for name, n := range e.Nodes {
		b, err := encode(n)
		if err != nil {
			return nil, fmt.Errorf("roster: node %s: %w", name, err)
		}
		if c.reset || string(f.now.nodes[name]) != string(b) {
			c.nodes[name] = b
		}
	}
	for _, name := range e.Removed {
		if _, had := f.now.nodes[name]; had && !c.reset {
			c.removed = append(c.removed, name)
		}
	}
	slices.Sort(c.removed)
	switch {
	case c.reset:
		c.history = bounded(e.Changes)
	case len(e.Changes) > 0:
		c.history = bounded(append(slices.Clone(f.now.changes), e.Changes...))
	}
	return c, nil
}

// What is kept of the past.
const (
	maxChanges = 200
	maxTouched = 100_000 // names of nodes in all changes together
)

// bounded forgets old changes, and which nodes they touched where those are too many. The newest
// is kept as it is.
func bounded(cs []roster.Change) []roster.Change {
	cs = slices.Clone(cs[max(0, len(cs)-maxChanges):])
	room := maxTouched
	for i := len(cs) - 1; i >= 0; i-- {
		c := &cs[i]
		n := len(c.Nodes) + len(c.Removed)
		c.Count = max(c.Count, n)
		if n > room && i < len(cs)-1 {
			c.Nodes, c.Removed = nil, nil
			continue
		}
		room -= n
	}
	return cs
}

// apply changes the state; f.mu is held.
func (c *change) apply(s *state) {
	if c.reset {
		*s = state{told: true, nodes: map[string][]byte{}}
	}
	if c.fleet != nil {
		s.fleet = c.fleet
	}
	if c.trust != "" || c.reset {
		s.trust = c.trust
	}
	if c.history != nil {
		s.changes = c.history
	}
	maps.Copy(s.nodes, c.nodes)
	for _, name := range c.removed {
		delete(s.nodes, name)
	}
}
