package ops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"selvedge/reconciler/access"
	"selvedge/reconciler/hub/bus"
	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

// Bounds of what is asked for.
const (
	maxTail    = 10_000_000
	maxCommand = 16 << 10 // bytes of a command, all words
	maxWords   = 1024
)

// LogOptions say which part of what was printed.
type LogOptions struct {
	Agent      bool // of the agent, not of a container
	App        string
	Container  string // empty: the app's only one, or all with their name in front
	Previous   bool   // of runs that ended
	Follow     bool
	Since      time.Time     // by the node's clock
	Ago        time.Duration // in place of Since: before now
	Tail       int           // lines; 0: all, -1: none of the past
	Timestamps bool
}

// ExecOptions say what to run where.
type ExecOptions struct {
	App       string
	Container string // empty: the app's only one
	Command   []string
	TTY       bool
	Stdin     bool
	Rows      uint16
	Columns   uint16
}

// Stream is a log, or a command that runs. It takes from the node only what its reader
// takes from it. It must be closed.
type Stream struct {
	node    string
	stream  *bus.Stream
	guarded context.Context // ends with the caller's right; not for calls
	once    sync.Once
	close   func(err error)
	bytes   atomic.Int64
	err     error // of the reader
	told    bool  // by the node, how it ended
}

// Next waits for more. The channel is hubapi.ChannelOut or ChannelErr; data is the caller's
// until the next call. At the end the error is io.EOF, and End tells the exit code; else a
// *hubapi.Problem.
func (s *Stream) Next(ctx context.Context) (channel byte, data []byte, err error) {
	for {
		if err := endedBy(s.guarded); err != nil {
			s.err = err // what came before is not theirs any more
			return 0, nil, err
		}
		kind, data, err := s.stream.Next(ctx)
		switch {
		case err == nil && kind == wire.FrameErr:
			channel = hubapi.ChannelErr
		case err == nil && kind == wire.FrameOut:
			channel = hubapi.ChannelOut
		case err == nil:
			continue
		default:
			s.told, s.err = errors.Is(err, io.EOF), s.why(err)
			return 0, nil, s.err
		}
		s.bytes.Add(int64(len(data)))
		return channel, data, nil
	}
}

// why makes an error of the stream one for people.
func (s *Stream) why(err error) error {
	if e := endedBy(s.guarded); e != nil {
		return e
	}
	if errors.Is(err, io.EOF) {
		if e := s.stream.End().Error; e != nil {
			return wireProblem(s.node, e)
		}
		return io.EOF
	}
	if errors.Is(err, context.Canceled) {
		return err // the reader left
	}
	return nodeProblem(s.node, err)
}

// Told reports, after an error of Next, whether the node ended the stream and the error is
// its own word; else it broke, or was ended here.
func (s *Stream) Told() bool { return s.told }

// ExitCode is the command's, after io.EOF.
func (s *Stream) ExitCode() int { return s.stream.End().ExitCode }

// Input sends stdin; it waits while the command takes none.
func (s *Stream) Input(p []byte) error {
	for len(p) > 0 {
		if err := endedBy(s.guarded); err != nil {
			return err
		}
		n := min(len(p), wire.MaxInput)
		if err := s.stream.Input(p[:n]); err != nil {
			return s.why(err)
		}
		p = p[n:]
	}
	return nil
}

// CloseInput ends stdin.
func (s *Stream) CloseInput() error { return s.stream.CloseInput() }

// Resize tells the terminal's new size.
func (s *Stream) Resize(rows, columns uint16) error { return s.stream.Resize(rows, columns) }

// Close ends the stream at the node, if it has not ended, and gives its place back.
func (s *Stream) Close() error {
	s.once.Do(func() { s.close(s.err) })
	return nil
}

// Logs opens what a container, or the agent, printed.
func (o *Ops) Logs(ctx context.Context, c Caller, node string, l LogOptions) (*Stream, error) {
	e, err := o.enter(c)
	if err != nil {
		return nil, err
	}
	switch {
	case l.Agent && (l.App != "" || l.Container != ""):
		return nil, invalid("ask for the agent's log or for an app's, not both")
	case !l.Agent && l.App == "":
		return nil, invalid("name an app, or ask for the agent's log")
	case l.Tail < -1 || l.Tail > maxTail:
		return nil, invalid("tail %d: want a number of lines up to %d, 0 for all, -1 for none of the past", l.Tail, maxTail)
	case l.Previous && l.Follow:
		return nil, invalid("a run that ended cannot be followed")
	}
	if err := validName("container", l.Container); err != nil {
		return nil, err
	}
	a := record(e.Caller, "logs")
	a.Node, a.App, a.Container = node, l.App, l.Container
	if l.Agent {
		a.Detail = "of the agent"
	}
	return o.stream(ctx, e, a, access.Logs, wire.VerbLogs, func(id string) any {
		return wire.LogsRequest{
			Stream: id, By: e.Subject.String(), Agent: l.Agent, App: l.App, Container: l.Container, Previous: l.Previous,
			Follow: l.Follow, Since: l.Since, AgoMS: int64((l.Ago + time.Millisecond - 1) / time.Millisecond), Tail: l.Tail, Timestamps: l.Timestamps, Window: wire.Window,
		}
	})
}

// Exec runs a command in a container.
func (o *Ops) Exec(ctx context.Context, c Caller, node string, x ExecOptions) (*Stream, error) {
	e, err := o.enter(c)
	if err != nil {
		return nil, err
	}
	size := 0
	for _, w := range x.Command {
		size += len(w)
	}
	switch {
	case x.App == "":
		return nil, invalid("name the app in whose container to run the command")
	case len(x.Command) == 0 || x.Command[0] == "":
		return nil, invalid("give the command to run, a parameter a word")
	case size > maxCommand || len(x.Command) > maxWords:
		return nil, invalid("the command is longer than %d words or %d bytes; put it into a script", maxWords, maxCommand)
	case strings.ContainsRune(strings.Join(x.Command, ""), 0):
		return nil, invalid("the command holds a zero byte, which no program can be given")
	}
	if err := validName("container", x.Container); err != nil {
		return nil, err
	}
	a := record(e.Caller, "exec")
	a.Node, a.App, a.Container, a.Command = node, x.App, x.Container, x.Command
	return o.stream(ctx, e, a, access.Exec, wire.VerbExec, func(id string) any {
		return wire.ExecRequest{
			Stream: id, By: e.Subject.String(), App: x.App, Container: x.Container, Command: x.Command,
			TTY: x.TTY, Stdin: x.Stdin, Rows: x.Rows, Columns: x.Columns, Window: wire.Window,
		}
	})
}

// stream opens a stream for what a is about.
func (o *Ops) stream(ctx context.Context, e *entry, a hubapi.AuditEntry, action access.Action, verb string, request func(id string) any) (*Stream, error) {
	n, err := e.target(a.Node, a.App, action)
	a.Scope = n.Workspace
	if err != nil {
		return nil, o.refuse(a, err)
	}
	guarded, release, err := o.guarded(ctx, e, a.Node, func(now *entry) error {
		_, err := now.target(a.Node, a.App, action)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := o.begin(ctx, a); err != nil {
		release()
		return nil, err
	}
	start := time.Now()
	id := o.c.Bus.NewStreamID()
	bs, err := o.c.Bus.Open(guarded, a.Node, verb, id, request(id))
	if err != nil {
		if ended := endedBy(guarded); ended != nil {
			err = ended
		} else {
			err = nodeProblem(a.Node, err)
		}
		release()
		o.finish(a, err)
		return nil, err
	}
	s := &Stream{node: a.Node, stream: bs, guarded: guarded}
	stop := context.AfterFunc(guarded, func() { bs.Close() })
	s.close = func(err error) {
		stop()
		bs.Close()
		release()
		detail := fmt.Sprintf("%d bytes in %v", s.bytes.Load(), time.Since(start).Round(time.Millisecond))
		switch {
		case errors.Is(err, io.EOF):
			if action == access.Exec {
				detail += fmt.Sprintf(", exit code %d", s.ExitCode())
			}
			err = nil
		case err == nil, errors.Is(err, context.Canceled):
			detail += ", ended by the caller"
			err = nil
		}
		a.Detail = strings.TrimPrefix(a.Detail+"; "+detail, "; ")
		a.Command = nil // the line that began has it
		o.finish(a, err)
	}
	return s, nil
}

// validName refuses what is no name of anything, before it is asked for far away.
func validName(what, name string) error {
	if len(name) > 128 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '/' || r == 0x7f }) {
		return invalid("%q is no name of a %s", clip(name), what)
	}
	return nil
}
