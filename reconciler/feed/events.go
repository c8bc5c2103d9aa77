package feed

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"selvedge/schema/roster"
)

// part is about how many bytes go into one event: far below roster.MaxEvent, so that one
// large entry more does no harm.
const part = 1 << 20

// event is a roster.Event of which the large parts are JSON already.
type event struct {
	Reset   bool                       `json:"reset,omitempty"`
	More    bool                       `json:"more,omitempty"`
	Fleet   json.RawMessage            `json:"fleet,omitempty"`
	Nodes   map[string]json.RawMessage `json:"nodes,omitempty"`
	Removed []string                   `json:"removed,omitempty"`
	Changes []json.RawMessage          `json:"changes,omitempty"`
	Trust   string                     `json:"trust,omitempty"`
}

// events writes a change as lines, all but the last of them with "more".
func (c *change) events() ([][]byte, error) {
	var out []event
	if c.fleet != nil {
		var err error
		if c.written, err = encode(c.fleet); err != nil {
			return nil, err
		}
		parts := []json.RawMessage{c.written}
		if len(c.written) > part {
			if parts, err = split(c.fleet); err != nil {
				return nil, err
			}
		}
		for _, b := range parts {
			out = append(out, event{Fleet: b})
		}
	}
	if c.trust != "" {
		out = append(out, event{Trust: c.trust})
	}
	for names := range slices.Chunk(c.removed, 10_000) {
		out = append(out, event{Removed: names})
	}
	out = append(out, nodeEvents(c.nodes)...)
	changes := c.changes
	if c.reset {
		changes = c.history
	}
	last, size := -1, 0
	for _, ch := range changes {
		b, err := encode(ch)
		if err != nil {
			return nil, err
		}
		if last < 0 || size+len(b) > part {
			out, last, size = append(out, event{}), len(out), 0
		}
		out[last].Changes = append(out[last].Changes, b)
		size += len(b)
	}
	if len(out) == 0 {
		out = append(out, event{})
	}
	out[0].Reset = c.reset
	lines := make([][]byte, len(out))
	for i := range out {
		out[i].More = i < len(out)-1
		b, err := encode(out[i])
		if err != nil {
			return nil, err
		}
		if len(b) >= roster.MaxEvent {
			return nil, fmt.Errorf("an event has %d bytes, and hubs take less than %d", len(b), roster.MaxEvent)
		}
		lines[i] = append(b, '\n')
	}
	return lines, nil
}

func nodeEvents(nodes map[string][]byte) (out []event) {
	size := part
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		b := nodes[name]
		if size+len(name)+len(b) > part {
			out, size = append(out, event{Nodes: map[string]json.RawMessage{}}), 0
		}
		out[len(out)-1].Nodes[name] = b
		size += len(name) + len(b) + 8
	}
	return out
}

// split writes a Fleet in parts that a reader adds up: the maps and lists of a later one belong to the
// first.
func split(f *roster.Fleet) ([]json.RawMessage, error) {
	first := *f
	first.Scopes, first.Identities, first.Bindings, first.Guides, first.Problems, first.Apps = map[string]roster.Scope{}, nil, nil, nil, nil, nil
	p := &parts{}
	p.add(first)
	for _, k := range slices.Sorted(maps.Keys(f.Scopes)) {
		put(p, k, f.Scopes[k], func(x *roster.Fleet) *map[string]roster.Scope { return &x.Scopes })
	}
	for _, k := range slices.Sorted(maps.Keys(f.Identities)) {
		put(p, k, f.Identities[k], func(x *roster.Fleet) *map[string]roster.Identity { return &x.Identities })
	}
	for _, k := range slices.Sorted(maps.Keys(f.Guides)) {
		put(p, k, f.Guides[k], func(x *roster.Fleet) *map[string]roster.Guide { return &x.Guides })
	}
	for _, k := range slices.Sorted(maps.Keys(f.Apps)) {
		put(p, k, f.Apps[k], func(x *roster.Fleet) *map[string][]roster.App { return &x.Apps })
	}
	for _, b := range f.Bindings {
		x := p.room(b)
		x.Bindings = append(x.Bindings, b)
	}
	for _, b := range f.Problems {
		x := p.room(b)
		x.Problems = append(x.Problems, b)
	}
	var out []json.RawMessage
	for _, x := range p.all {
		b, err := encode(x)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

type parts struct {
	all  []*roster.Fleet
	size int
}

func (p *parts) add(f roster.Fleet) { p.all, p.size = append(p.all, &f), 0 }

// room returns the part that the value goes into.
func (p *parts) room(v any) *roster.Fleet {
	b, _ := encode(v) // the whole was encoded before
	if p.size += len(b); p.size > part {
		head := *p.all[0]
		head.Scopes, head.Identities, head.Bindings, head.Guides, head.Problems, head.Apps = map[string]roster.Scope{}, nil, nil, nil, nil, nil
		p.add(head)
		p.size = len(b)
	}
	return p.all[len(p.all)-1]
}

func put[V any](p *parts, key string, v V, in func(*roster.Fleet) *map[string]V) {
	m := in(p.room(map[string]V{key: v}))
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = v
}

// encode writes JSON as it is, without the escapes for HTML, and without an end of line.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), nil
}

func decode(b []byte, v any) error { return json.Unmarshal(b, v) }
