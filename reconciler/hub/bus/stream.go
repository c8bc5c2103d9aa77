package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"selvedge/schema/wire"
)

const (
	streamIdle = wire.StreamIdle * time.Second
	// grantAt is how many frames are taken before credit for them is sent.
	grantAt = wire.Window / 4
	// maxAlive bounds FrameAlive, which costs no credit, within streamIdle.
	maxAlive = 100
	// inputRate bounds what goes to a container's stdin, also of nodes that do not tell what
	// was taken of it.
	inputRate = 2 << 20 // bytes a second
)

// maxOpen bounds streams of all nodes: each may hold a window, 2 MB.
const maxOpen = 256

// Errors with which a stream ends, or does not begin.
var (
	ErrBusy    = errors.New("too many streams are open at this hub; close some")
	ErrIdle    = errors.New("the node has been silent for too long")
	ErrOverrun = errors.New("the node sent more than it was granted, and was cut off")
)

// Stream is what a node sends while it runs or follows something.
type Stream struct {
	b        *Bus
	nc       *nats.Conn
	sub      *nats.Subscription
	node, id string
	via      connID // the node's connection when it was opened
	known    bool   // via is

	frames chan frame    // never more than the window
	done   chan struct{} // closed, with err or end set

	mu     sync.Mutex
	credit int // frames that the node may still send
	owed   int // frames taken and not granted yet
	alive  int
	heard  time.Time
	over   bool
	err    error
	end    wire.End

	input sync.Mutex
	seq   uint64
	paced time.Time
	sent  int64 // bytes of input

	read atomic.Int64  // of them, as the node tells; -1: it never did
	room chan struct{} // capacity 1: it told more
}

type frame struct {
	kind    byte
	payload []byte
}

// streams are those that are open.
type streams struct {
	mu  sync.Mutex
	all map[*Stream]struct{}
}

func (s *streams) init() { s.all = map[*Stream]struct{}{} }

func (s *streams) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

func (s *streams) add(st *Stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) >= maxOpen {
		return false
	}
	s.all[st] = struct{}{}
	return true
}

// gone ends streams over a connection that is no more.
func (s *streams) gone(node string, id connID) {
	s.each(func(st *Stream) {
		if st.node == node && (!st.known || st.via == id) {
			st.finish(&NotConnected{node})
		}
	})
}

func (s *streams) closeAll(err error) { s.each(func(st *Stream) { st.finish(err) }) }

func (s *streams) each(f func(*Stream)) {
	s.mu.Lock()
	all := make([]*Stream, 0, len(s.all))
	for st := range s.all {
		all = append(all, st)
	}
	s.mu.Unlock()
	for _, st := range all {
		f(st)
	}
}

// Open asks a node for a stream. req is a wire.LogsRequest or wire.ExecRequest with that id as
// its Stream and wire.Window as its Window. A node's refusal is a *wire.Error.
func (b *Bus) Open(ctx context.Context, node, verb, id string, req any) (*Stream, error) {
	nc, _, _, err := b.message(node, verb, nil)
	if err != nil {
		return nil, err
	}
	if id == "" || strings.ContainsAny(id, ".*> \t\r\n") {
		return nil, fmt.Errorf("stream %q of node %q: it is no identifier; take NewStreamID's", id, node)
	}
	s := &Stream{b: b, nc: nc, node: node, id: id, credit: wire.Window, heard: time.Now(),
		frames: make(chan frame, wire.Window), done: make(chan struct{}), room: make(chan struct{}, 1)}
	s.read.Store(-1)
	s.via, s.known = b.presence.current(node)
	if s.sub, err = nc.Subscribe(wire.StreamSubject(node, id), s.take); err != nil {
		return nil, ErrNotReady
	}
	// Beyond the window nothing is queued for long: take never waits.
	if err := s.sub.SetPendingLimits(8*wire.Window, 2*wire.Window*(wire.MaxFrame+1)); err != nil {
		return nil, err
	}
	if !b.streams.add(s) {
		s.sub.Unsubscribe()
		return nil, ErrBusy
	}
	var a wire.Answer
	if err := b.Request(ctx, node, verb, req, &a); err != nil {
		s.Close() // the node may have begun
		return nil, err
	}
	if a.Error != nil {
		s.finish(a.Error)
		s.Close()
		return nil, a.Error
	}
	go s.watch()
	return s, nil
}

// take checks and queues a message of the node.
func (s *Stream) take(m *nats.Msg) {
	kind, payload, err := wire.ParseFrame(m.Data)
	if err != nil {
		s.finish(fmt.Errorf("node %q: %w", s.node, err))
		return
	}
	s.b.count.frames.Add(1)
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	s.heard = time.Now()
	switch kind {
	case wire.FrameAlive:
		if n, err := strconv.ParseInt(string(payload), 10, 64); err == nil && n > s.read.Load() {
			s.read.Store(n)
			select {
			case s.room <- struct{}{}:
			default:
			}
		}
		s.alive++
		if s.alive <= maxAlive {
			s.mu.Unlock()
			return
		}
	case wire.FrameEnd:
		var e wire.End
		if json.Unmarshal(payload, &e) != nil {
			e = wire.End{Error: &wire.Error{Code: wire.CodeFailed, Message: "the node does not tell how it ended"}}
		}
		s.end = e
		s.mu.Unlock()
		s.finish(io.EOF)
		return
	default:
		if s.credit > 0 {
			s.credit--
			s.frames <- frame{kind, payload} // has room: credit and queue together are the window
			s.mu.Unlock()
			return
		}
	}
	s.mu.Unlock()
	s.b.count.overruns.Add(1)
	s.b.log.Warn("a node sends more of a stream than it may, and is cut off", "node", s.node)
	s.finish(fmt.Errorf("node %q: %w", s.node, ErrOverrun))
}

// finish ends the stream from this side; the first reason counts. The node is told to stop
// unless it has ended.
func (s *Stream) finish(err error) {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	s.over, s.err = true, err
	s.mu.Unlock()
	s.sub.Unsubscribe()
	s.b.streams.mu.Lock()
	delete(s.b.streams.all, s)
	s.b.streams.mu.Unlock()
	close(s.done) // last: who sees the end sees no stream any more
	var refused *wire.Error
	if err != io.EOF && !errors.As(err, &refused) {
		s.control(wire.Control{Cancel: true})
	}
}

// Next returns the next frame, wire.FrameOut or wire.FrameErr. After the last one it returns
// io.EOF, and End tells how it went; any other error says why the stream broke. Taking a
// frame lets the node send another.
func (s *Stream) Next(ctx context.Context) (kind byte, payload []byte, err error) {
	select {
	case f := <-s.frames:
		return s.taken(f)
	default:
	}
	select {
	case f := <-s.frames:
		return s.taken(f)
	case <-s.done:
		select {
		case f := <-s.frames: // it came before the end
			return s.taken(f)
		default:
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return 0, nil, s.err
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
}

func (s *Stream) taken(f frame) (byte, []byte, error) {
	s.mu.Lock()
	s.owed++
	grant := 0
	if s.owed >= grantAt && !s.over {
		grant, s.owed = s.owed, 0
		s.credit += grant
	}
	s.mu.Unlock()
	if grant > 0 {
		s.control(wire.Control{Credit: grant})
	}
	return f.kind, f.payload, nil
}

// End tells how the stream ended, after io.EOF.
func (s *Stream) End() wire.End {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end
}

// Input sends bytes to the stdin of what runs, in order, at 2 MB a second at most, and waits
// while that takes none.
func (s *Stream) Input(p []byte) error {
	s.input.Lock()
	defer s.input.Unlock()
	for len(p) > 0 {
		part := p[:min(len(p), wire.MaxInput)]
		p = p[len(part):]
		if err := s.pace(len(part)); err != nil {
			return err
		}
		if err := s.behind(int64(len(part))); err != nil {
			return err
		}
		s.seq++
		s.sent += int64(len(part))
		if err := s.control(wire.Control{Input: part, Seq: s.seq}); err != nil {
			return err
		}
	}
	return nil
}

// pace waits until so many bytes may be sent; what is typed never waits.
func (s *Stream) pace(n int) error {
	now := time.Now()
	if s.paced.Before(now.Add(-time.Second)) {
		s.paced = now.Add(-time.Second)
	}
	s.paced = s.paced.Add(time.Duration(n) * time.Second / inputRate)
	if wait := s.paced.Sub(now); wait > 0 {
		select {
		case <-time.After(wait):
		case <-s.done:
		}
	}
	select {
	case <-s.done:
		return s.broken()
	default:
		return nil
	}
}

// behind waits until so many bytes are not too far ahead of what was taken.
func (s *Stream) behind(n int64) error {
	for {
		if taken := s.read.Load(); taken < 0 || s.sent+n-taken <= wire.MaxAhead {
			return nil
		}
		select {
		case <-s.room:
		case <-s.done:
			return s.broken()
		}
	}
}

func (s *Stream) broken() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == io.EOF {
		return io.ErrClosedPipe
	}
	return s.err
}

// Resize tells the new size of the terminal.
func (s *Stream) Resize(rows, cols uint16) error {
	return s.control(wire.Control{Rows: rows, Columns: cols})
}

// CloseInput ends the stdin.
func (s *Stream) CloseInput() error {
	s.input.Lock()
	defer s.input.Unlock()
	return s.control(wire.Control{EOF: true})
}

// Close ends the stream, and what it is of at the node. It may be called again.
func (s *Stream) Close() error {
	s.finish(fmt.Errorf("stream of node %q: %w", s.node, context.Canceled))
	return nil
}

func (s *Stream) control(c wire.Control) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := s.nc.Publish(wire.ControlSubject(s.node, s.id), data); err != nil {
		return ErrNotReady
	}
	return nil
}

// watch ends a stream whose node is silent, and tells the node that somebody is here.
func (s *Stream) watch() {
	tick := time.NewTicker(s.b.idle / 3)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-s.done:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		silent := time.Since(s.heard)
		if n%3 == 2 {
			s.alive = 0
		}
		s.mu.Unlock()
		if silent >= s.b.idle {
			s.finish(fmt.Errorf("node %q: %w", s.node, ErrIdle))
			return
		}
		s.control(wire.Control{})
	}
}
