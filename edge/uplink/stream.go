package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"selvedge/schema/wire"
)

// Bounds of one stream.
const (
	maxOut   = 2 * wire.MaxFrame // bytes that wait for credit
	maxIn    = 4 << 20           // bytes of input that wait for the command
	endGrace = 10 * time.Second  // for the last frames to go out, once the work is done
)

// stream is one stream of frames from this node to a hub.
type stream struct {
	id     string
	u      *Uplink
	req    request
	ctx    context.Context
	cancel context.CancelCauseFunc
	input  *inbox
	resize chan Size

	mu     sync.Mutex
	wake   chan struct{} // capacity 1: credit, output or room
	room   chan struct{} // capacity 1: output was sent
	out    []piece
	size   int
	credit int
	heard  time.Time
	done   bool // the work ended: what is left goes out
}

// piece is output of one kind.
type piece struct {
	kind byte
	data []byte
}

// begin answers a request for a stream and starts its work.
func (u *Uplink) begin(ctx context.Context, m *nats.Msg, id string, window int, q request, work func(context.Context, *stream) wire.End) {
	if !validStream(id) || window < 1 {
		u.answer(m, refusal(wire.CodeInvalid, "no stream to answer on"))
		return
	}
	if !u.granted(m, q) {
		return
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s := &stream{id: id, u: u, req: q, ctx: ctx, cancel: cancel, resize: make(chan Size, 1),
		wake: make(chan struct{}, 1), room: make(chan struct{}, 1), credit: min(window, maxWindow), heard: time.Now()}
	s.input = newInbox(s.took)
	u.mu.Lock()
	switch {
	case u.streams[id] != nil:
		u.mu.Unlock()
		cancel(nil)
		u.answer(m, refusal(wire.CodeInvalid, "stream %s is open already", id))
		return
	case len(u.streams) >= wire.MaxStreams:
		u.mu.Unlock()
		cancel(nil)
		u.answer(m, refusal(wire.CodeBusy, "%d streams are open on this node already; end one, or try again later", wire.MaxStreams))
		return
	}
	u.streams[id] = s
	u.mu.Unlock()
	u.answer(m, nil)
	if !u.start(func() { s.run(work) }) {
		cancel(nil)
		u.mu.Lock()
		delete(u.streams, id)
		u.mu.Unlock()
		return
	}
	u.enforce() // what was granted above may have been taken away since
}

// validStream keeps an ID from being more than one token of a subject.
func validStream(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for _, r := range id {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
			return false
		}
	}
	return true
}

// run does the work and sends what it writes.
func (s *stream) run(work func(context.Context, *stream) wire.End) {
	began := time.Now()
	defer context.AfterFunc(s.ctx, func() { s.input.close(context.Cause(s.ctx)) })()
	sent := make(chan error, 1)
	go func() { sent <- s.send() }()
	e := work(s.ctx, s)
	s.input.close(io.EOF)
	s.mu.Lock()
	s.done = true
	s.mu.Unlock()
	poke(s.wake)
	late := time.AfterFunc(endGrace+s.u.cfg.idle, func() { s.cancel(errors.New("the hub did not take the rest")) })
	err := <-sent
	late.Stop()
	if cause := context.Cause(s.ctx); cause != nil {
		err = cause
	}
	if err != nil {
		e.Error = asError(err)
	}
	s.cancel(nil)
	s.u.mu.Lock()
	delete(s.u.streams, s.id)
	s.u.mu.Unlock()
	if frame := wire.EndFrame(e); s.publish(frame) != nil {
		s.u.mu.Lock()
		if len(s.u.owed) < wire.MaxStreams {
			s.u.owed[s.id] = frame
		}
		s.u.mu.Unlock()
	}
	poke(s.u.ended)
	log := s.u.cfg.Log.With("verb", s.req.verb, "by", Line(s.req.by, 200), "for", Line(s.req.what, 500), "after", time.Since(began).Round(time.Millisecond))
	if e.Error != nil {
		log = log.With("why", e.Error)
	}
	log.Info("a stream ended")
}

// send sends output as credit allows, and a sign of life while there is none.
func (s *stream) send() error {
	alive := time.NewTicker(s.u.cfg.idle / 3)
	defer alive.Stop()
	for {
		frame, over := s.next()
		if over {
			return nil
		}
		if frame != nil {
			if err := s.publish(frame); err != nil {
				s.cancel(fmt.Errorf("the node's connection was interrupted: %w", err))
				return err
			}
			poke(s.room)
			continue
		}
		select {
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		case <-s.wake:
		case <-alive.C:
			s.mu.Lock()
			silent := time.Since(s.heard)
			s.mu.Unlock()
			if silent > s.u.cfg.idle {
				err := fmt.Errorf("the hub said nothing about it for %v", s.u.cfg.idle)
				s.cancel(err)
				return err
			}
			s.publish(wire.Frame(wire.FrameAlive, nil))
		}
	}
}

func (s *stream) publish(frame []byte) error {
	s.u.mu.Lock()
	conn := s.u.conn
	s.u.mu.Unlock()
	if conn == nil {
		return nats.ErrConnectionClosed
	}
	return conn.Publish(wire.StreamSubject(s.u.cfg.Node, s.id), frame)
}

// took tells the hub how much input the command has read.
func (s *stream) took(taken int64) {
	if err := s.publish(wire.Frame(wire.FrameAlive, strconv.AppendInt(nil, taken, 10))); err != nil {
		s.u.cfg.Log.Debug("what was read is not told", "error", err) // the stream ends with the connection
	}
}

// next takes as much output of one kind as a frame holds, if there is credit.
func (s *stream) next() (frame []byte, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.out) == 0 {
		return nil, s.done
	}
	if s.credit == 0 || s.ctx.Err() != nil {
		return nil, false
	}
	s.credit--
	p := &s.out[0]
	n := min(len(p.data), wire.MaxFrame)
	frame = wire.Frame(p.kind, p.data[:n])
	p.data = p.data[n:]
	s.size -= n
	if len(p.data) == 0 {
		s.out = s.out[1:]
	}
	return frame, false
}

// writer returns where work writes output of a kind. It blocks while the hub takes none.
func (s *stream) writer(kind byte) io.Writer { return writer{s, kind} }

type writer struct {
	s    *stream
	kind byte
}

func (w writer) Write(p []byte) (int, error) {
	s, total := w.s, 0
	for len(p) > 0 {
		s.mu.Lock()
		n := min(len(p), maxOut-s.size)
		if n > 0 {
			if last := len(s.out) - 1; last >= 0 && s.out[last].kind == w.kind {
				s.out[last].data = append(s.out[last].data, p[:n]...)
			} else {
				s.out = append(s.out, piece{w.kind, append([]byte(nil), p[:n]...)})
			}
			s.size += n
		}
		full := s.size == maxOut
		s.mu.Unlock()
		if n > 0 {
			poke(s.wake)
			p, total = p[n:], total+n
			if !full {
				poke(s.room) // another writer may wait, and only one was told
			}
			continue
		}
		select {
		case <-s.ctx.Done():
			return total, context.Cause(s.ctx)
		case <-s.room:
		}
	}
	if s.ctx.Err() != nil {
		return total, context.Cause(s.ctx)
	}
	return total, nil
}

// control takes what the hub says about a stream.
func (u *Uplink) control(id string, data []byte) {
	u.mu.Lock()
	s := u.streams[id]
	u.mu.Unlock()
	if s == nil {
		return // it ended meanwhile
	}
	var c wire.Control
	if err := json.Unmarshal(data, &c); err != nil {
		s.cancel(refusal(wire.CodeInvalid, "control of the stream is not understood"))
		return
	}
	s.mu.Lock()
	s.heard = time.Now()
	if c.Credit > 0 {
		s.credit = min(s.credit+min(c.Credit, maxWindow), maxWindow)
	}
	s.mu.Unlock()
	poke(s.wake)
	if c.Rows > 0 && c.Columns > 0 {
		select { // only the newest counts
		case <-s.resize:
		default:
		}
		select {
		case s.resize <- Size{c.Rows, c.Columns}:
		default:
		}
	}
	if len(c.Input) > 0 {
		if err := s.input.put(c.Seq, c.Input); err != nil {
			s.cancel(err)
			return
		}
	}
	if c.EOF {
		s.input.close(io.EOF)
	}
	if c.Cancel {
		s.cancel(context.Canceled)
	}
}

// enforce ends the streams that the state in force does not grant any more.
func (u *Uplink) enforce() {
	u.mu.Lock()
	any := len(u.streams) > 0
	u.mu.Unlock()
	if !any {
		return
	}
	granted := u.cfg.Granted()
	gone := u.endStreams(refusal(wire.CodeDenied, "the node's newest state does not grant it any more"), func(s *stream) bool { return !s.req.may(granted) })
	for _, s := range gone {
		u.refused.Add(1)
		u.denied(s.req, 0)
	}
}

// endStreams ends those that match.
func (u *Uplink) endStreams(why error, match func(*stream) bool) (ended []*stream) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range u.streams {
		if s.ctx.Err() == nil && match(s) {
			s.cancel(why)
			ended = append(ended, s)
		}
	}
	return ended
}
