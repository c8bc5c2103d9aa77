package follow

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"selvedge/schema/roster"
)

// maxChange is the most bytes of the events of one change together.
const maxChange = 512 << 20

// group is one change: the events that belong together.
type group struct {
	roster.Event
	reset  bool
	cached time.Time // when it was written into the cache; zero: it comes from the reconciler
	size   int
}

// decoder reads a stream of events.
type decoder struct {
	r   *bufio.Reader
	buf []byte
	max int // of one line
	all int // of one change
}

func newDecoder(r io.Reader) *decoder {
	return &decoder{r: bufio.NewReaderSize(r, 64<<10), max: roster.MaxEvent, all: maxChange}
}

// next returns the next change; alive is called whenever something came. A stream that ends within
// a change is an io.ErrUnexpectedEOF.
func (d *decoder) next(alive func()) (*group, error) {
	var g *group
	for {
		line, err := d.line(alive)
		if err != nil {
			if errors.Is(err, io.EOF) && (g != nil || len(line) > 0) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if len(line) == 0 {
			continue // a sign of life
		}
		var e roster.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("an event is malformed: %w", err)
		}
		if g == nil {
			g = &group{reset: e.Reset}
		} else if e.Reset {
			return nil, errors.New("a change begins anew in its middle")
		}
		if g.size += len(line); g.size > d.all {
			return nil, fmt.Errorf("a change has more than %d bytes", d.all)
		}
		g.add(&e)
		if !e.More {
			return g, nil
		}
	}
}

// line returns the next line without its end.
func (d *decoder) line(alive func()) ([]byte, error) {
	d.buf = d.buf[:0]
	for {
		b, err := d.r.ReadSlice('\n')
		if len(b) > 0 {
			alive()
		}
		d.buf = append(d.buf, b...)
		if len(d.buf) > d.max {
			return nil, fmt.Errorf("an event has more than %d bytes", d.max)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		return bytes.TrimSpace(d.buf), err
	}
}

// add puts what an event says to what those before it said.
func (g *group) add(e *roster.Event) {
	if e.Fleet != nil {
		if g.Fleet == nil {
			g.Fleet = e.Fleet
		} else {
			more(g.Fleet, e.Fleet)
		}
	}
	if g.Nodes == nil {
		g.Nodes = e.Nodes
	} else {
		maps.Copy(g.Nodes, e.Nodes)
	}
	g.Removed = append(g.Removed, e.Removed...)
	g.Changes = append(g.Changes, e.Changes...)
	if e.Trust != "" {
		g.Trust = e.Trust
	}
}

// more adds what a later part of a Fleet says to the first one.
func more(f, part *roster.Fleet) {
	addTo(&f.Scopes, part.Scopes)
	addTo(&f.Identities, part.Identities)
	addTo(&f.Guides, part.Guides)
	addTo(&f.Apps, part.Apps)
	f.Bindings = append(f.Bindings, part.Bindings...)
	f.Problems = append(f.Problems, part.Problems...)
}

func addTo[V any](m *map[string]V, part map[string]V) {
	if *m == nil {
		*m = part
		return
	}
	maps.Copy(*m, part)
}
