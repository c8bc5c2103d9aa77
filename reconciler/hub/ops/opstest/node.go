package opstest

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"selvedge/schema/wire"
)

// Node is a peer that speaks as an agent does.
type Node struct {
	Name string
	conn *nats.Conn
	t    testing.TB

	// Refuse, if set, is the answer to every request.
	Refuse atomic.Pointer[wire.Error]
	Silent atomic.Bool   // nothing is answered
	Sent   atomic.Int64  // frames of streams
	Ended  chan string   // IDs of streams that ended, for whatever reason
	Take   chan struct{} // closed by a test: the command "stuck" begins to take its input

	mu       sync.Mutex
	requests []string // verb and body
	streams  map[string]*feed
}

// feed is a stream that a node sends.
type feed struct {
	id     string
	credit chan int
	input  chan wire.Control
	cancel chan struct{}
	once   sync.Once
}

// Join connects a node and lets it report.
func (w *World) Join(t testing.TB, name string) *Node {
	t.Helper()
	n := &Node{Name: name, t: t, conn: w.connect(t, name), Ended: make(chan string, 100), Take: make(chan struct{}), streams: map[string]*feed{}}
	_, err := n.conn.Subscribe(wire.RequestSubject(name, ">"), n.take)
	must(t, err)
	must(t, n.conn.Flush())
	n.Report(t)
	deadline := time.Now().Add(20 * time.Second)
	for {
		if d, ok := w.Status.Node(name); ok && d.Report != nil {
			return n
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not report", name)
		}
		time.Sleep(time.Millisecond) // the store tells nobody
	}
}

// Report sends a status and an event.
func (n *Node) Report(t testing.TB) {
	t.Helper()
	now := time.Now()
	ref := wire.Ref{Generation: 7, Digest: "sha256:" + strings.Repeat("7", 64)}
	b, err := json.Marshal(wire.Status{
		Node: n.Name, Epoch: "e1", Seq: uint64(now.UnixNano()), Time: now, Agent: wire.Agent{Version: "v1", Started: now}, Machine: wire.Machine{Hostname: n.Name, CPUs: 2},
		State: wire.State{Pulled: ref, Current: ref, LastGood: ref, Phase: "idle"}, Well: true, Usage: &wire.Usage{CPU: 0.5, Memory: 1 << 20},
		Apps: []wire.App{{Name: "web", Healthy: true, Containers: []wire.Instance{{Name: "nginx", Image: "nginx@sha256:1", State: "running", Healthy: true, Usage: &wire.Usage{Memory: 5}}}},
			{Name: "soon"}}, // nothing of it runs yet
	})
	must(t, err)
	must(t, n.conn.Publish(wire.StatusSubject(n.Name), b))
	b, err = json.Marshal(wire.Events{Node: n.Name, Epoch: "e1", Events: []wire.Event{{Seq: 1, Time: now, Severity: "info", Reason: "Started", Message: n.Name + " has started"}}})
	must(t, err)
	must(t, n.conn.Publish(wire.EventsSubject(n.Name), b))
	must(t, n.conn.Flush())
}

// Requests are what was asked of the node: verb, space, body.
func (n *Node) Requests() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.requests...)
}

// Close cuts the connection.
func (n *Node) Close() { n.conn.Close() }

// take answers a request, or control of a stream.
func (n *Node) take(m *nats.Msg) {
	verb := strings.TrimPrefix(m.Subject, wire.RequestSubject(n.Name, ""))
	if id, ok := strings.CutPrefix(verb, "s."); ok {
		n.control(id, m.Data)
		return
	}
	if verb == wire.VerbNotice || verb == wire.VerbReport {
		return
	}
	n.mu.Lock()
	n.requests = append(n.requests, verb+" "+string(m.Data))
	n.mu.Unlock()
	answer, _ := json.Marshal(wire.Answer{Error: n.Refuse.Load()})
	var f *feed
	var req struct {
		Stream           string
		Follow, Previous bool
		Command          []string
		Window           int
	}
	if verb != wire.VerbRestart && n.Refuse.Load() == nil && json.Unmarshal(m.Data, &req) == nil {
		f = &feed{id: req.Stream, credit: make(chan int, 1000), input: make(chan wire.Control, 100), cancel: make(chan struct{})}
		f.credit <- req.Window
		n.mu.Lock()
		n.streams[f.id] = f
		n.mu.Unlock()
	}
	if n.Silent.Load() || m.Respond(answer) != nil || f == nil {
		return
	}
	go func() { n.stream(f, verb, req.Follow, req.Previous, req.Command); n.Ended <- f.id }()
}

func (n *Node) control(id string, data []byte) {
	n.mu.Lock()
	f := n.streams[id]
	n.mu.Unlock()
	var c wire.Control
	if f == nil || json.Unmarshal(data, &c) != nil {
		return
	}
	if c.Credit > 0 {
		f.credit <- c.Credit
	}
	if c.Cancel {
		f.once.Do(func() { close(f.cancel) })
	}
	if c.Input != nil || c.EOF || c.Rows > 0 {
		f.input <- c
	}
}

// stream sends: of logs two lines, with follow endless frames, with previous an error behind
// the first line; of exec "cat" the input back
// until its end, "stuck" how much came once it takes any, "fail" an error, "flood" endless
// frames, and else "out" and "err".
func (n *Node) stream(f *feed, verb string, follow, previous bool, command []string) {
	credit := 0
	send := func(kind byte, b []byte) bool {
		for credit == 0 {
			select {
			case credit = <-f.credit:
			case <-f.cancel:
				return false
			}
		}
		credit--
		n.Sent.Add(1)
		select {
		case <-f.cancel:
			return false
		default:
		}
		return n.conn.Publish(wire.StreamSubject(n.Name, f.id), wire.Frame(kind, b)) == nil
	}
	end := wire.End{}
	switch {
	case verb == wire.VerbLogs:
		send(wire.FrameOut, []byte("line 1\n"))
		if previous {
			end.Error = &wire.Error{Code: wire.CodeFailed, Message: "the file is damaged"}
			break
		}
		send(wire.FrameErr, []byte("line 2\n"))
		for big := make([]byte, wire.MaxFrame); follow && send(wire.FrameOut, big); {
		}
	case command[0] == "cat":
		for c := range n.inputs(f) {
			if c.Rows > 0 {
				send(wire.FrameErr, []byte("resized"))
			}
			if len(c.Input) > 0 {
				send(wire.FrameOut, c.Input)
			}
			if c.EOF {
				break
			}
		}
	case command[0] == "stuck":
		send(wire.FrameOut, fmt.Append(nil, n.stuck(f)))
	case command[0] == "fail":
		end.Error = &wire.Error{Code: wire.CodeFailed, Message: "it broke"}
	case command[0] == "flood":
		for big := make([]byte, wire.MaxFrame); send(wire.FrameOut, big); {
		}
	default:
		send(wire.FrameOut, []byte("out"))
		send(wire.FrameErr, []byte("err"))
		end.ExitCode = 3
	}
	_ = n.conn.Publish(wire.StreamSubject(n.Name, f.id), wire.EndFrame(end)) // the test has ended
}

// stuck takes no input, and says so, until Take is closed; then all of it to its end.
func (n *Node) stuck(f *feed) (taken int) {
	for {
		_ = n.conn.Publish(wire.StreamSubject(n.Name, f.id), wire.Frame(wire.FrameAlive, fmt.Append(nil, taken))) // the test has ended
		select {
		case <-n.Take:
		case <-f.cancel:
			return taken
		}
		for step := 0; step < wire.InputStep; {
			select {
			case c := <-f.input:
				if c.EOF {
					return taken
				}
				taken, step = taken+len(c.Input), step+len(c.Input)
			case <-f.cancel:
				return taken
			}
		}
	}
}

func (n *Node) inputs(f *feed) func(func(wire.Control) bool) {
	return func(yield func(wire.Control) bool) {
		for {
			select {
			case c := <-f.input:
				if !yield(c) {
					return
				}
			case <-f.cancel:
				return
			}
		}
	}
}
