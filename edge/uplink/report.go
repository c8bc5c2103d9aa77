package uplink

import (
	"context"
	"encoding/json"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/nats.go"

	"selvedge/internal/backoff"
	"selvedge/schema/wire"
)

// between is the least between two statuses; tests of others rely on none less.
const between = time.Second

// maxBatch bounds one message of events, well below wire.MaxMessage.
const maxBatch = 256 << 10

// Event notes something that happened. Its number and, unless it has one, its time are set here.
func (u *Uplink) Event(e wire.Event) {
	if e.Time.IsZero() {
		e.Time = u.cfg.Now()
	}
	e.Time = e.Time.UTC().Round(0)
	e.Message = Line(e.Message, wire.MaxText/4)
	u.mu.Lock()
	u.lastSeq++
	e.Seq = u.lastSeq
	if len(u.ring) == wire.MaxEvents {
		u.ring = append(u.ring[:0], u.ring[1:]...) // the oldest: the hub has it, or nobody asked for so long
	}
	u.ring = append(u.ring, e)
	u.mu.Unlock()
	poke(u.fresh)
	poke(u.sooner)
}

// Events returns what is remembered, oldest first.
func (u *Uplink) Events() []wire.Event {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]wire.Event(nil), u.ring...)
}

// reporting sends statuses and events until the context ends.
func (u *Uplink) reporting(ctx context.Context, conn *nats.Conn) {
	var last time.Time
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-u.fresh:
			u.sendEvents(conn)
			continue
		case <-u.sooner:
			if rest := between - time.Since(last); rest > 0 && !last.IsZero() {
				due.Reset(rest)
				continue
			}
		case <-due.C:
		}
		if conn.IsConnected() {
			u.sendStatus(conn)
			last = time.Now()
		}
		due.Reset(backoff.Jitter(u.cfg.Interval * 4 / 3)) // between 2/3 and 4/3 of it
	}
}

func (u *Uplink) sendStatus(conn *nats.Conn) {
	s := u.cfg.Status()
	s.Node, s.Epoch, s.Seq, s.Time = u.cfg.Node, u.epoch, u.seq.Add(1), u.cfg.Now().UTC().Round(0)
	b, err := encode(s)
	if err != nil {
		u.cfg.Log.Error("the status cannot be told", "error", err)
		return
	}
	conn.Publish(wire.StatusSubject(u.cfg.Node), b) // an error means no connection: the next one follows it
}

// encode makes a status that is within its bounds: long texts are cut first, then what each
// instance uses goes, then instances, which are counted.
func encode(s wire.Status) ([]byte, error) {
	left, all := wire.MaxInstance, 0
	for _, a := range s.Apps {
		all += len(a.Containers)
	}
	cut := func(f func(*wire.Instance), keep int) {
		apps := append([]wire.App(nil), s.Apps...)
		s.LeftOut = all
		for n := range apps {
			list := append([]wire.Instance(nil), apps[n].Containers...)
			if len(list) > keep {
				list = list[:max(keep, 0)]
			}
			keep -= len(list)
			for i := range list {
				f(&list[i])
			}
			s.LeftOut -= len(list)
			apps[n].Containers = list
		}
		s.Apps = apps
	}
	s.Why, s.State.Problem, s.State.LinkError = clip(s.Why, wire.MaxText), clip(s.State.Problem, wire.MaxText), clip(s.State.LinkError, wire.MaxText)
	steps := []func(){
		func() { cut(func(i *wire.Instance) { shorten(i, wire.MaxText) }, left) },
		func() { cut(func(i *wire.Instance) { shorten(i, 160) }, left) },
		func() { cut(func(i *wire.Instance) { shorten(i, 40); i.Usage = nil }, left) },
	}
	for ; ; left /= 2 {
		for _, step := range steps {
			step()
			b, err := json.Marshal(s)
			if err != nil || len(b) <= wire.MaxStatus {
				return b, err
			}
		}
		if left == 0 {
			s.Apps, s.LeftOut, s.State.Rejected, s.Conditions = nil, all, nil, nil
			return json.Marshal(s)
		}
	}
}

func shorten(i *wire.Instance, most int) {
	i.Problem, i.LastExit.Reason = clip(i.Problem, most), clip(i.LastExit.Reason, most)
}

func (u *Uplink) sendEvents(conn *nats.Conn) {
	u.mu.Lock()
	round := u.round
	var due []wire.Event
	for _, e := range u.ring {
		if e.Seq > u.sent {
			due = append(due, e)
		}
	}
	u.mu.Unlock()
	for len(due) > 0 && conn.IsConnected() {
		n, size := 0, 0
		for n < len(due) && (n == 0 || size < maxBatch) {
			size += 256 + 2*len(due[n].Message)
			n++
		}
		b, err := json.Marshal(wire.Events{Node: u.cfg.Node, Epoch: u.epoch, Events: due[:n]})
		if err != nil {
			u.cfg.Log.Error("events cannot be told", "error", err)
			return
		}
		if conn.Publish(wire.EventsSubject(u.cfg.Node), b) != nil {
			return // they are said again after the next connect
		}
		u.mu.Lock()
		if u.round == round {
			u.sent = max(u.sent, due[n-1].Seq)
		}
		u.mu.Unlock()
		due = due[n:]
	}
}

// Line makes a text fit for one line of at most that many bytes, whoever wrote it.
func Line(s string, most int) string {
	if len(s) > 4*most {
		s = s[:4*most]
	}
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "�"), func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }), " ")
	return clip(s, most)
}

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-3], "") + "…"
}
