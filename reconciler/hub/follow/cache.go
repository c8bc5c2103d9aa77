package follow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"selvedge/internal/atomicfile"
	"selvedge/schema/roster"
)

// lazy is how long a change may be missing in the cache, unless somebody loses something by it.
const lazy = 5 * time.Second

// cache is the file with the last roster: events, as in the stream.
type cache struct {
	file   string // "": none
	log    *slog.Logger
	news   chan struct{}
	urgent chan struct{}
}

func newCache(file string, log *slog.Logger) *cache {
	return &cache{file: file, log: log, news: make(chan struct{}, 1), urgent: make(chan struct{}, 1)}
}

// read returns what the file holds, or nil.
func (c *cache) read() *group {
	if c.file == "" {
		return nil
	}
	f, err := os.Open(c.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var g *group
	var info fs.FileInfo
	if err == nil {
		defer f.Close()
		g, err = newDecoder(f).next(func() {})
	}
	if err == nil {
		info, err = f.Stat()
	}
	if err == nil && !g.reset {
		err = errors.New("it does not begin with a reset")
	}
	if err != nil {
		c.log.Warn("the roster's cache cannot be read, and is not used", "file", c.file, "error", err)
		return nil
	}
	g.cached = info.ModTime()
	return g
}

// changed has the file written soon, or at once if somebody lost something: who was put out must
// not be let in by a hub that starts without the reconciler.
func (c *cache) changed(urgent bool) {
	ch := c.news
	if urgent {
		ch = c.urgent
	}
	select {
	case ch <- struct{}{}:
	default:
	}
}

// run writes the file until the context ends, and once more then if there is news.
func (c *cache) run(ctx context.Context, view func() *View) {
	if c.file == "" {
		return
	}
	failed := ""
	write := func() {
		err := c.write(view())
		switch {
		case err == nil:
			failed = ""
		case err.Error() != failed:
			failed = err.Error()
			c.log.Error("the roster's cache cannot be written; after a restart without the reconciler the hub would use an older one", "file", c.file, "error", err)
		}
		if err != nil {
			c.changed(false)
		}
	}
	for {
		select {
		case <-ctx.Done():
			select {
			case <-c.news:
				write()
			case <-c.urgent:
				write()
			default:
			}
			return
		case <-c.urgent:
			write()
		case <-c.news:
			select {
			case <-time.After(lazy):
			case <-c.urgent:
			case <-ctx.Done():
			}
			write()
		}
	}
}

// nodesPerLine keeps lines of the file far below the bound of an event, as nodes are; where they
// are not, it is split further.
const nodesPerLine = 500

func (c *cache) write(v *View) error {
	if !v.Loaded {
		return nil
	}
	w := newWriter()
	f := v.Fleet
	head := f
	head.Scopes, head.Identities, head.Bindings, head.Guides, head.Problems, head.Apps = nil, nil, nil, nil, nil, nil
	w.put(0, 1, func(int, int) roster.Event { return roster.Event{Reset: true, Fleet: &head, Trust: v.Trust} })
	putMap(w, f.Scopes, func(m map[string]roster.Scope) roster.Fleet { return roster.Fleet{Scopes: m} })
	putMap(w, f.Identities, func(m map[string]roster.Identity) roster.Fleet { return roster.Fleet{Identities: m} })
	putMap(w, f.Guides, func(m map[string]roster.Guide) roster.Fleet { return roster.Fleet{Guides: m} })
	putMap(w, f.Apps, func(m map[string][]roster.App) roster.Fleet { return roster.Fleet{Apps: m} })
	w.put(0, len(f.Bindings), func(from, to int) roster.Event {
		return roster.Event{Fleet: &roster.Fleet{Bindings: f.Bindings[from:to]}}
	})
	w.put(0, len(f.Problems), func(from, to int) roster.Event {
		return roster.Event{Fleet: &roster.Fleet{Problems: f.Problems[from:to]}}
	})
	for names := range slices.Chunk(v.names, nodesPerLine) {
		w.put(0, len(names), func(from, to int) roster.Event {
			nodes := make(map[string]roster.Node, to-from)
			for _, name := range names[from:to] {
				nodes[name], _ = v.Node(name)
			}
			return roster.Event{Nodes: nodes}
		})
	}
	for _, ch := range v.Changes {
		w.put(0, 1, func(int, int) roster.Event { return roster.Event{Changes: []roster.Change{ch}} })
	}
	if w.err != nil {
		return w.err
	}
	w.b.WriteString("{}\n") // the end: nothing follows
	return atomicfile.Write(c.file, w.b.Bytes(), 0o600)
}

// writer writes events of one change.
type writer struct {
	b   bytes.Buffer
	e   *json.Encoder
	max int // bytes of an event
	err error
}

func newWriter() *writer {
	w := &writer{max: roster.MaxEvent}
	w.e = json.NewEncoder(&w.b)
	w.e.SetEscapeHTML(false)
	return w
}

// put writes a list as one event, or as several if that would be too large. ev makes the one of
// a part.
func (w *writer) put(from, to int, ev func(from, to int) roster.Event) {
	if w.err != nil || from == to {
		return
	}
	at, one := w.b.Len(), ev(from, to)
	one.More = true
	w.err = w.e.Encode(one)
	n := w.b.Len() - at
	switch {
	case w.err != nil || n <= w.max:
	case to-from == 1:
		w.err = fmt.Errorf("an event has %d bytes", n)
	default:
		w.b.Truncate(at)
		middle := (from + to) / 2
		w.put(from, middle, ev)
		w.put(middle, to, ev)
	}
}

func putMap[V any](w *writer, m map[string]V, part func(map[string]V) roster.Fleet) {
	names := slices.Sorted(maps.Keys(m))
	w.put(0, len(names), func(from, to int) roster.Event {
		some := make(map[string]V, to-from)
		for _, name := range names[from:to] {
			some[name] = m[name]
		}
		f := part(some)
		return roster.Event{Fleet: &f}
	})
}
