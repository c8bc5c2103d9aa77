package status

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

// Sizes of the history: an hour by the minute, ten minutes by ten seconds.
const (
	slots     = 60
	coarse    = time.Minute
	fine      = 10 * time.Second
	maxSeries = 32 // instances of a node
)

// point is a sample in four bytes: two short floats.
type point struct {
	cpu    short // cores
	memory short // KiB
}

// short is a float of five bits of exponent, from a lowest one, and eleven of mantissa: right
// to 0.03%. Smaller numbers are zero, larger ones the largest.
type short uint16

const (
	cpuLowest    = -15 // 2⁻¹⁵ cores, to 2¹⁷
	memoryLowest = 0   // 1 KiB, to 4 TiB
)

var none = point{cpu: 0xffff}

func pack(f float64, lowest int) short {
	if !(f > 0) {
		return 0
	}
	m, e := math.Frexp(f) // m in [0.5, 1)
	e -= 1 + lowest
	switch {
	case e < 0:
		return 0
	case e > 31:
		return 0xfffe
	}
	return short(min(math.Round(float64(e)*2048+(2*m-1)*2048), 0xfffe)) // 0xffff is none; rounding up may carry, rightly
}

func (s short) unpack(lowest int) float64 {
	if s == 0 {
		return 0
	}
	return math.Ldexp(1+float64(s&2047)/2048, int(s>>11)+lowest)
}

// series is one thing's history: rings, at the number of the interval modulo slots.
type series struct {
	fine, coarse [slots]point
}

// history is a node's. All its series are sampled together.
type history struct {
	fine, coarse int64 // the last intervals, since 1970
	n            int   // samples in the last coarse one
	node         *series
	parts        []part
}

// part is an instance.
type part struct {
	app, container string
	seen           int64 // coarse interval
	*series
}

func newSeries() *series {
	s := &series{}
	for i := range slots {
		s.fine[i], s.coarse[i] = none, none
	}
	return s
}

func (h *history) add(now time.Time, s *wire.Status) {
	f, c := now.Unix()/int64(fine/time.Second), now.Unix()/int64(coarse/time.Second)
	if c < h.coarse { // the hub's clock was set back
		*h = history{}
	}
	if c != h.coarse {
		h.n = 0
	}
	h.n++
	h.advance(f, c)
	if s.Usage != nil {
		if h.node == nil {
			h.node = newSeries()
		}
		h.put(h.node, s.Usage)
	}
	for i := range s.Apps {
		for j := range s.Apps[i].Containers {
			if k := &s.Apps[i].Containers[j]; k.Usage != nil {
				if p := h.part(s.Apps[i].Name, k.Name, c); p != nil {
					h.put(p, k.Usage)
				}
			}
		}
	}
}

// advance empties the slots that are passed.
func (h *history) advance(f, c int64) {
	each := func(do func(*series)) {
		if h.node != nil {
			do(h.node)
		}
		for i := range h.parts {
			do(h.parts[i].series)
		}
	}
	for n := max(h.fine+1, f-slots+1); n <= f; n++ {
		each(func(s *series) { s.fine[n%slots] = none })
	}
	for n := max(h.coarse+1, c-slots+1); n <= c; n++ {
		each(func(s *series) { s.coarse[n%slots] = none })
	}
	h.fine, h.coarse = f, c
}

func (h *history) put(s *series, u *wire.Usage) {
	cpu, memory := u.CPU, float64(u.Memory)/1024
	p := point{pack(cpu, cpuLowest), pack(memory, memoryLowest)}
	s.fine[h.fine%slots] = p
	m := &s.coarse[h.coarse%slots]
	if *m == none || h.n <= 1 {
		*m = p
		return
	}
	n := float64(h.n) // the mean of the minute
	a, b := m.cpu.unpack(cpuLowest), m.memory.unpack(memoryLowest)
	*m = point{pack(a+(cpu-a)/n, cpuLowest), pack(b+(memory-b)/n, memoryLowest)}
}

// part finds an instance's series; one that has not been seen for an hour gives way.
func (h *history) part(app, container string, now int64) *series {
	old := -1
	for i := range h.parts {
		p := &h.parts[i]
		if p.app == app && p.container == container {
			p.seen = now
			return p.series
		}
		if p.seen < now-slots {
			old = i
		}
	}
	n := part{app, container, now, newSeries()}
	switch {
	case old >= 0:
		h.parts[old] = n
	case len(h.parts) < maxSeries:
		h.parts = append(h.parts, n)
	default:
		return nil
	}
	return n.series
}

// samples lists a series, oldest first: the hour by the minute until ten seconds begin.
func (h *history) samples(s *series, since time.Time) []hubapi.Sample {
	out := []hubapi.Sample{}
	if s == nil {
		return out
	}
	add := func(p point, n int64, every time.Duration) {
		at := time.Unix(n*int64(every/time.Second), 0).UTC()
		if p != none && !at.Before(since) {
			out = append(out, hubapi.Sample{Time: at, CPU: p.cpu.unpack(cpuLowest), Memory: int64(p.memory.unpack(memoryLowest) * 1024)})
		}
	}
	first := h.fine - slots + 1
	for first <= h.fine && (first < 0 || s.fine[first%slots] == none) {
		first++ // after a restart there may be minutes only
	}
	ratio := int64(coarse / fine)
	for n := max(0, h.coarse-slots+1); (n+1)*ratio <= first; n++ {
		add(s.coarse[n%slots], n, coarse)
	}
	for n := first; n <= h.fine; n++ {
		add(s.fine[n%slots], n, fine)
	}
	return out
}

// Metrics returns the history of a node since then: a sample each 10 seconds of the last ten
// minutes, and one each minute of the hour before.
func (s *Store) Metrics(node string, since time.Time) (hubapi.Metrics, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r := s.nodes[node]
	if r == nil {
		return hubapi.Metrics{}, false
	}
	h := &r.history
	m := hubapi.Metrics{Node: h.samples(h.node, since), Instances: map[string][]hubapi.Sample{}}
	for _, p := range h.parts {
		if l := h.samples(p.series, since); len(l) > 0 {
			m.Instances[p.app+"/"+p.container] = l
		}
	}
	return m, true
}

// encode writes a history for the file; whole adds the ten seconds.
func (h *history) encode(whole bool) []byte {
	b := []byte{1, 0}
	if whole {
		b[1] = 1
	}
	b = binary.AppendVarint(b, h.fine)
	b = binary.AppendVarint(b, h.coarse)
	put := func(app, container string, seen int64, s *series) {
		b = binary.AppendUvarint(b, uint64(len(app)))
		b = append(b, app...)
		b = binary.AppendUvarint(b, uint64(len(container)))
		b = append(b, container...)
		b = binary.AppendVarint(b, seen)
		rings := [][slots]point{s.coarse}
		if whole {
			rings = append(rings, s.fine)
		}
		for i := range rings {
			for _, p := range rings[i] {
				b = binary.LittleEndian.AppendUint16(b, uint16(p.cpu))
				b = binary.LittleEndian.AppendUint16(b, uint16(p.memory))
			}
		}
	}
	if h.node != nil {
		put("", "", 0, h.node)
	}
	for _, p := range h.parts {
		put(p.app, p.container, p.seen, p.series)
	}
	return b
}

var errHistory = errors.New("a row of history is damaged")

func decodeHistory(b []byte) (h history, err error) {
	if len(b) < 2 || b[0] != 1 {
		return history{}, errHistory
	}
	whole := b[1] == 1
	b = b[2:]
	number := func() int64 {
		v, n := binary.Varint(b)
		if n <= 0 {
			err = errHistory
			return 0
		}
		b = b[n:]
		return v
	}
	word := func() string {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > maxName || uint64(len(b)-n) < v {
			err = errHistory
			return ""
		}
		s := name(string(b[n : n+int(v)]))
		b = b[n+int(v):]
		return s
	}
	h.fine, h.coarse = number(), number()
	if h.fine < 0 || h.coarse < 0 || h.fine > 1<<40 || h.coarse > 1<<40 {
		return history{}, errHistory
	}
	for len(b) > 0 && err == nil {
		p := part{app: word(), container: word(), seen: number(), series: newSeries()}
		rings := []*[slots]point{&p.coarse}
		if whole {
			rings = append(rings, &p.fine)
		}
		if len(b) < len(rings)*slots*4 || len(h.parts) == maxSeries {
			return history{}, errHistory
		}
		for _, ring := range rings {
			for i := range ring {
				ring[i] = point{short(binary.LittleEndian.Uint16(b)), short(binary.LittleEndian.Uint16(b[2:]))}
				b = b[4:]
			}
		}
		if p.app == "" && p.container == "" {
			h.node = p.series
		} else {
			h.parts = append(h.parts, p)
		}
	}
	if err != nil {
		return history{}, err
	}
	return h, nil
}
