package follow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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
	if err == nil {
		defer f.Close()
		g, err = newDecoder(f).next(func() {})
	}
	if err == nil && !g.reset {
		err = errors.New("it does not begin with a reset")
	}
	if err != nil {
		c.log.Warn("the roster's cache cannot be read, and is not used", "file", c.file, "err", err)
		return nil
	}
	g.cached = true
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
			c.log.Error("the roster's cache cannot be written; after a restart without the reconciler the hub would use an older one", "file", c.file, "err", err)
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

// nodesPerLine keeps lines of the file far below the bound of an event.
const nodesPerLine = 500

func (c *cache) write(v *View) error {
	if !v.Loaded {
		return nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	put := func(ev roster.Event) error {
		at := b.Len()
		if err := e.Encode(ev); err != nil {
			return err
		}
		if n := b.Len() - at; n > roster.MaxEvent {
			return fmt.Errorf("an event has %d bytes", n)
		}
		return nil
	}
	for i, f := range fleetParts(&v.Fleet) {
		if err := put(roster.Event{Reset: i == 0, More: true, Fleet: f, Trust: v.Trust}); err != nil {
			return err
		}
	}
	for names := range slices.Chunk(v.names, nodesPerLine) {
		nodes := make(map[string]roster.Node, len(names))
		for _, name := range names {
			nodes[name], _ = v.Node(name)
		}
		if err := put(roster.Event{More: true, Nodes: nodes}); err != nil {
			return err
		}
	}
	for _, ch := range v.Changes {
		if err := put(roster.Event{More: true, Changes: []roster.Change{ch}}); err != nil {
			return err
		}
	}
	if err := put(roster.Event{}); err != nil {
		return err
	}
	return atomicfile.Write(c.file, b.Bytes(), 0o600)
}

// fleetParts are events' worth of a Fleet, each with one of its lists: together they are it.
func fleetParts(f *roster.Fleet) []*roster.Fleet {
	head := *f
	head.Scopes, head.Identities, head.Bindings, head.Guides, head.Problems, head.Apps = nil, nil, nil, nil, nil, nil
	out := []*roster.Fleet{&head, {Scopes: f.Scopes}, {Bindings: f.Bindings}, {Guides: f.Guides}, {Problems: f.Problems}}
	out = append(out, chunks(f.Identities, func(m map[string]roster.Identity) *roster.Fleet { return &roster.Fleet{Identities: m} })...)
	return append(out, chunks(f.Apps, func(m map[string][]roster.App) *roster.Fleet { return &roster.Fleet{Apps: m} })...)
}

func chunks[V any](m map[string]V, part func(map[string]V) *roster.Fleet) (out []*roster.Fleet) {
	var now map[string]V
	for k, v := range m {
		if now == nil || len(now) == 200 {
			now = map[string]V{}
			out = append(out, part(now))
		}
		now[k] = v
	}
	return out
}
