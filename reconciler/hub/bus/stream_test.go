package bus

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"selvedge/schema/wire"
)

// source is a node's side of streams: it sends as far as credit goes.
type source struct {
	n       *node
	id      string
	mu      sync.Mutex
	credit  int
	changed chan struct{}
	control chan wire.Control // what is no credit
	sent    atomic.Int64
}

// serve answers a verb with a stream; send runs for each.
func (n *node) serve(t testing.TB, verb string, refuse *wire.Error, send func(*source)) {
	t.Helper()
	n.answer(t, verb, func(m *nats.Msg) any {
		var r wire.LogsRequest
		if err := json.Unmarshal(m.Data, &r); err != nil {
			return wire.Answer{Error: &wire.Error{Code: wire.CodeInvalid, Message: err.Error()}}
		}
		if refuse != nil {
			return wire.Answer{Error: refuse}
		}
		s := &source{n: n, id: r.Stream, credit: r.Window, changed: make(chan struct{}, 1), control: make(chan wire.Control, 1000)}
		if _, err := n.Subscribe(wire.ControlSubject(n.name, r.Stream), s.hear); err != nil {
			t.Error(err)
		}
		go send(s)
		return wire.Answer{}
	})
}

func (s *source) hear(m *nats.Msg) {
	var c wire.Control
	if json.Unmarshal(m.Data, &c) != nil {
		return
	}
	if c.Credit > 0 {
		s.mu.Lock()
		s.credit += c.Credit
		s.mu.Unlock()
		offer(s.changed, struct{}{})
		return
	}
	offer(s.control, c)
}

// raw sends without asking.
func (s *source) raw(b []byte) error { return s.n.Publish(wire.StreamSubject(s.n.name, s.id), b) }

// send waits for credit; false after 10 seconds without.
func (s *source) send(kind byte, p []byte) bool {
	for {
		s.mu.Lock()
		ok := s.credit > 0
		if ok {
			s.credit--
		}
		s.mu.Unlock()
		if ok {
			s.sent.Add(1)
			return s.raw(wire.Frame(kind, p)) == nil
		}
		select {
		case <-s.changed:
		case <-time.After(patience * 10 * time.Second):
			return false
		}
	}
}

func open(t testing.TB, h *hub, node string) (*Stream, error) {
	t.Helper()
	id := h.NewStreamID()
	return h.Open(t.Context(), node, wire.VerbLogs, id, wire.LogsRequest{Stream: id, Window: wire.Window})
}

func mustOpen(t testing.TB, h *hub, node string) *Stream {
	t.Helper()
	s, err := open(t, h, node)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStream(t *testing.T) {
	h := start(t, Config{})
	n := join(t, h, "a")
	n.serve(t, wire.VerbLogs, nil, func(s *source) {
		s.send(wire.FrameOut, []byte("one"))
		s.raw(wire.Frame(wire.FrameAlive, nil))
		s.send(wire.FrameErr, []byte("two"))
		for c := range s.control {
			if c.EOF {
				s.raw(wire.EndFrame(wire.End{ExitCode: 3}))
				return
			}
			s.send(wire.FrameOut, []byte(strings.ToUpper(string(c.Input))))
		}
	})
	s := mustOpen(t, h, "a")
	next := func(kind byte, text string) {
		t.Helper()
		k, p, err := s.Next(t.Context())
		if err != nil || k != kind || string(p) != text {
			t.Fatalf("%c %q %v, want %c %q", k, p, err, kind, text)
		}
	}
	next(wire.FrameOut, "one")
	next(wire.FrameErr, "two")
	if err := s.Input([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	next(wire.FrameOut, "ABC")
	if h.streams.len() != 1 {
		t.Error(h.streams.len(), "streams")
	}
	s.CloseInput()
	if _, _, err := s.Next(t.Context()); err != io.EOF || s.End().ExitCode != 3 {
		t.Error(err, s.End())
	}
	if err := s.Input([]byte("late")); err != io.ErrClosedPipe {
		t.Error(err)
	}
	if h.streams.len() != 0 {
		t.Error(h.streams.len(), "streams")
	}
}

func TestStreamRefused(t *testing.T) {
	h := start(t, Config{})
	n := join(t, h, "a")
	n.serve(t, wire.VerbLogs, &wire.Error{Code: wire.CodeDenied, Message: "no"}, nil)
	_, err := open(t, h, "a")
	var refused *wire.Error
	if !errors.As(err, &refused) || refused.Code != wire.CodeDenied {
		t.Error(err)
	}
	if _, err := open(t, h, "nobody"); !errors.Is(err, ErrOffline) {
		t.Error(err)
	}
	for _, id := range []string{"", "*", ">", "a.b", "a b"} {
		if _, err := h.Open(t.Context(), "a", wire.VerbLogs, id, wire.LogsRequest{Stream: id}); err == nil {
			t.Errorf("stream %q is opened", id)
		}
	}
	if h.streams.len() != 0 {
		t.Error(h.streams.len(), "streams left")
	}
}

func TestTooManyStreams(t *testing.T) {
	h := start(t, Config{})
	n := join(t, h, "a")
	n.serve(t, wire.VerbLogs, nil, func(s *source) {})
	h.streams.mu.Lock()
	for range maxOpen - 1 {
		h.streams.all[&Stream{b: h.Bus, over: true}] = struct{}{}
	}
	h.streams.mu.Unlock()
	s := mustOpen(t, h, "a")
	if _, err := open(t, h, "a"); err != ErrBusy {
		t.Error(err)
	}
	s.Close()
	mustOpen(t, h, "a")
}

// TestSlowReader: a node waits for who reads, and nothing piles up.
func TestSlowReader(t *testing.T) {
	h := start(t, Config{})
	n := join(t, h, "a")
	src := make(chan *source, 1)
	n.serve(t, wire.VerbLogs, nil, func(s *source) {
		src <- s
		for range 100 {
			s.send(wire.FrameOut, make([]byte, wire.MaxFrame))
		}
		s.raw(wire.EndFrame(wire.End{}))
	})
	s := mustOpen(t, h, "a")
	from := wait(t, "the node", src)
	poll(t, "a window of frames", func() bool { return h.count.frames.Load() >= wire.Window })
	n.flush(t)
	if got := from.sent.Load(); got != wire.Window {
		t.Errorf("%d frames were sent unread", got)
	}
	got := 0
	for {
		_, _, err := s.Next(t.Context())
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		got++
	}
	if got != 100 {
		t.Error("read", got)
	}
}

// TestNodeThatIgnoresCredit is cut off, and what it sent is not kept.
func TestNodeThatIgnoresCredit(t *testing.T) {
	h := start(t, Config{})
	n := join(t, h, "a")
	for what, flood := range map[string][]byte{
		"frames": wire.Frame(wire.FrameOut, make([]byte, wire.MaxFrame)),
		"alives": wire.Frame(wire.FrameAlive, nil),
	} {
		t.Run(what, func(t *testing.T) {
			cancelled := make(chan bool, 1)
			n.serve(t, wire.VerbLogs+what, nil, func(s *source) {
				for range 400 {
					s.raw(flood)
				}
				for c := range s.control {
					if c.Cancel {
						cancelled <- true
						return
					}
				}
			})
			id := h.NewStreamID()
			s, err := h.Open(t.Context(), "a", wire.VerbLogs+what, id, wire.LogsRequest{Stream: id, Window: wire.Window})
			if err != nil {
				t.Fatal(err)
			}
			wait(t, "a cancel", cancelled)
			for err == nil {
				_, _, err = s.Next(t.Context())
			}
			if !errors.Is(err, ErrOverrun) {
				t.Error(err)
			}
		})
	}
	if h.count.overruns.Load() != 2 {
		t.Error("counted", h.count.overruns.Load())
	}
}

func TestStreamOfJunk(t *testing.T) {
	h := start(t, Config{})
	n := join(t, h, "a")
	for what, junk := range map[string][]byte{"empty": {}, "kind": []byte("?x"), "big": make([]byte, wire.MaxFrame+2)} {
		n.serve(t, "logs-"+what, nil, func(s *source) { s.raw(junk) })
		id := h.NewStreamID()
		s, err := h.Open(t.Context(), "a", "logs-"+what, id, wire.LogsRequest{Stream: id, Window: wire.Window})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Next(t.Context()); !errors.Is(err, wire.ErrFrame) {
			t.Error(what, err)
		}
	}
	n.serve(t, wire.VerbLogs, nil, func(s *source) { s.raw([]byte("xjunk")) })
	s := mustOpen(t, h, "a")
	if _, _, err := s.Next(t.Context()); err != io.EOF || s.End().Error == nil {
		t.Error(err, s.End())
	}
}

func TestStreamCancel(t *testing.T) {
	h := start(t, Config{})
	n := join(t, h, "a")
	cancelled := make(chan bool, 1)
	n.serve(t, wire.VerbLogs, nil, func(s *source) {
		for c := range s.control {
			if c.Cancel {
				cancelled <- true
			}
		}
	})
	s := mustOpen(t, h, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.Next(ctx); err != context.Canceled {
		t.Error(err)
	}
	s.Close()
	s.Close()
	wait(t, "the cancel", cancelled)
	if _, _, err := s.Next(t.Context()); err == nil || err == io.EOF {
		t.Error(err)
	}
}

func TestStreamEndsWithConnection(t *testing.T) {
	h := start(t, Config{})
	n := join(t, h, "a")
	n.serve(t, wire.VerbLogs, nil, func(s *source) { s.send(wire.FrameOut, []byte("x")) })
	s := mustOpen(t, h, "a")
	if _, _, err := s.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.Close()
	if _, _, err := s.Next(t.Context()); !errors.Is(err, ErrOffline) {
		t.Error(err)
	}
}

func TestSilentStreamEnds(t *testing.T) {
	h := start(t, Config{})
	h.idle = 900 * time.Millisecond
	n := join(t, h, "a")
	asked := make(chan wire.Control, 100)
	n.serve(t, wire.VerbLogs, nil, func(s *source) {
		for range 4 { // alive for longer than the limit
			c := <-s.control
			asked <- c
			s.raw(wire.Frame(wire.FrameAlive, nil))
		}
		for c := range s.control {
			asked <- c
		}
	})
	s := mustOpen(t, h, "a")
	if _, _, err := s.Next(t.Context()); !errors.Is(err, ErrIdle) {
		t.Error(err)
	}
	if len(asked) < 4 {
		t.Errorf("it ended after %d signs of life", len(asked))
	}
	for c := range asked {
		if c.Cancel {
			return
		}
	}
}

func TestStreamEndsWithHub(t *testing.T) {
	h := start(t, Config{})
	n := join(t, h, "a")
	n.serve(t, wire.VerbLogs, nil, func(s *source) {})
	s := mustOpen(t, h, "a")
	h.stop()
	if _, _, err := s.Next(t.Context()); err == nil || err == io.EOF {
		t.Error(err)
	}
}

func TestBigStreamInBoundedMemory(t *testing.T) {
	const total = 100 << 20
	h := start(t, Config{})
	n := join(t, h, "a")
	n.serve(t, wire.VerbLogs, nil, func(s *source) {
		p := make([]byte, wire.MaxFrame)
		for range total / len(p) {
			s.send(wire.FrameOut, p)
		}
		s.raw(wire.EndFrame(wire.End{}))
	})
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before, most := m.HeapInuse, uint64(0)
	s := mustOpen(t, h, "a")
	got := 0
	for i := 0; ; i++ {
		_, p, err := s.Next(t.Context())
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		got += len(p)
		if i%50 == 0 {
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapInuse)
		}
	}
	if got != total {
		t.Error("read", got)
	}
	t.Logf("heap grew by %d MB, of both sides", (int64(most)-int64(before))>>20)
	if most > before+64<<20 {
		t.Errorf("heap grew from %d to %d", before, most)
	}
}

// BenchmarkStream is one stream through TLS, tunnel and server; beyond meterBurst it tells
// meterRate.
func BenchmarkStream(b *testing.B) {
	h := start(b, Config{})
	n := join(b, h, "a")
	frames := make(chan int, 1)
	n.serve(b, wire.VerbLogs, nil, func(s *source) {
		p := make([]byte, wire.MaxFrame)
		for range <-frames {
			s.send(wire.FrameOut, p)
		}
		s.raw(wire.EndFrame(wire.End{}))
	})
	s := mustOpen(b, h, "a")
	b.SetBytes(wire.MaxFrame)
	b.ResetTimer()
	frames <- b.N
	for {
		if _, _, err := s.Next(context.Background()); err == io.EOF {
			return
		} else if err != nil {
			b.Fatal(err)
		}
	}
}

// TestInputWaits: a node that tells what was taken of the input is not sent much more than that.
func TestInputWaits(t *testing.T) {
	h := start(t, Config{})
	n := join(t, h, "a")
	var got atomic.Int64
	begun := make(chan *source, 1)
	n.serve(t, wire.VerbLogs, nil, func(s *source) {
		s.raw(wire.Frame(wire.FrameAlive, []byte("0")))
		begun <- s
		for c := range s.control {
			got.Add(int64(len(c.Input)))
		}
	})
	s := mustOpen(t, h, "a")
	node := wait(t, "the stream", begun)
	poll(t, "the node's word", func() bool { return s.read.Load() == 0 })
	sent := make(chan error, 1)
	go func() { sent <- s.Input(make([]byte, 3<<20)) }()
	poll(t, "as much as may wait", func() bool { return got.Load() == wire.MaxAhead })
	select {
	case err := <-sent:
		t.Fatal("it does not wait:", err)
	case <-time.After(300 * time.Millisecond):
	}
	node.raw(wire.Frame(wire.FrameAlive, []byte("1048576")))
	if err := wait(t, "the rest", sent); err != nil {
		t.Error(err)
	}
	poll(t, "all of it", func() bool { return got.Load() == 3<<20 })
	go func() { sent <- s.Input(make([]byte, 3<<20)) }()
	poll(t, "it to wait again", func() bool { return got.Load() > 3<<20-1 })
	s.Close()
	if err := wait(t, "its end", sent); err == nil {
		t.Error("input of a stream that was closed is taken")
	}
}
