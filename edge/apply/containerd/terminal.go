package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/nerdctl/v2/pkg/idgen"
	"github.com/opencontainers/runtime-spec/specs-go"

	"selvedge/edge/apply"
)

// lastWords is how long after a command's end its output may be silent before it is given
// up: something that it left behind may hold it open for ever.
const lastWords = time.Second

// ExecStream runs a command for a person.
func (r *Runtime) ExecStream(ctx context.Context, id string, o apply.ExecOptions) (int, error) {
	if len(o.Command) == 0 || o.Command[0] == "" {
		return 0, errors.New("run a command in the container: no command was given")
	}
	what := fmt.Sprintf("run %.200q in the container", o.Command)
	nctx, c, err := r.open(ctx)
	if err != nil {
		return 0, err
	}
	ask, done := context.WithTimeout(nctx, askBound)
	defer done()
	made, err := c.LoadContainer(ask, id)
	if errdefs.IsNotFound(err) {
		return 0, fmt.Errorf("%s: %w", what, apply.ErrNotRunning)
	}
	if err != nil {
		return 0, r.unanswered(what, err)
	}
	switch st, err := taskState(ask, made); {
	case err != nil:
		return 0, r.wrap(what, err)
	case st != client.Running:
		return 0, fmt.Errorf("%s: %w: it is %s", what, apply.ErrNotRunning, st)
	}
	spec, err := made.Spec(ask)
	if err != nil {
		return 0, r.unanswered(what, err)
	}
	task, err := made.Task(ask, nil)
	if err != nil {
		return 0, r.wrap(what, err)
	}
	fifos := r.fifos()
	if err := os.MkdirAll(fifos, 0o700); err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	s := newSession(o)
	// a start that has begun is not cut off: what came of it could not be told, nor ended
	free := context.WithoutCancel(nctx)
	begin, cancel := context.WithTimeout(free, stopBound)
	defer cancel()
	x, err := task.Exec(begin, r.commands+idgen.GenerateID()[:16], process(spec.Process, o), cio.NewCreator(append(s.streams(o), cio.WithFIFODir(fifos))...))
	if err != nil {
		return 0, r.wrap(what, explain(err))
	}
	defer r.endExec(free, x)
	ended, err := x.Wait(free)
	if err != nil {
		return 0, r.wrap(what, err)
	}
	if err := x.Start(begin); err != nil {
		return 0, r.wrap(what, explain(err))
	}
	resize, eof := o.Resize, s.eof
	if !o.TTY {
		resize = nil
	}
	for {
		select {
		case st := <-ended:
			if err := st.Error(); err != nil {
				return 0, r.wrap(what, err)
			}
			return int(st.ExitCode()), s.drain(ctx, x.IO())
		case size, ok := <-resize:
			if !ok {
				resize = nil
			} else if err := x.Resize(nctx, uint32(size.Columns), uint32(size.Rows)); err != nil {
				r.log.Debug("a terminal keeps its size", "error", err)
			}
		case <-eof:
			eof = nil
			if err := x.CloseIO(nctx, client.WithStdinCloser); err != nil {
				r.log.Debug("the end of the input is not told", "error", err)
			}
		case <-ctx.Done():
			killSession(x.Pid())
			return 0, ctx.Err()
		}
	}
}

// process is the command as the container itself would run it.
func process(of *specs.Process, o apply.ExecOptions) *specs.Process {
	p := *of
	p.Args, p.Terminal, p.ConsoleSize = o.Command, o.TTY, nil
	if o.TTY {
		hasTerm := slices.ContainsFunc(p.Env, func(e string) bool { return strings.HasPrefix(e, "TERM=") })
		if p.Env = slices.Clone(p.Env); !hasTerm {
			p.Env = append(p.Env, "TERM=xterm-256color")
		}
		if o.Rows > 0 && o.Columns > 0 {
			p.ConsoleSize = &specs.Box{Height: uint(o.Rows), Width: uint(o.Columns)}
		}
	}
	return &p
}

// endExec removes every trace of a command, running or not.
func (r *Runtime) endExec(ctx context.Context, x client.Process) {
	bound, cancel := context.WithTimeout(ctx, stopBound)
	defer cancel()
	if _, err := x.Delete(bound, client.WithProcessKill); err != nil {
		if !errdefs.IsNotFound(err) {
			r.log.Debug("an ended command stays listed", "error", err)
		}
		if io := x.IO(); io != nil { // the container ended under it: nobody else closes them
			io.Cancel()
			io.Wait()
			_ = io.Close() // closed twice, maybe
		}
	}
}

// session watches what goes through a command's streams.
type session struct {
	eof     chan struct{} // closed at the end of the input
	once    sync.Once
	writing atomic.Int32
	last    atomic.Int64 // when something was written, Unix nanoseconds
	in      io.Reader
}

func newSession(o apply.ExecOptions) *session {
	return &session{eof: make(chan struct{}), in: o.Stdin}
}

func (s *session) streams(o apply.ExecOptions) []cio.Opt {
	var in io.Reader
	if o.Stdin != nil {
		in = s
	}
	opts := []cio.Opt{cio.WithStreams(in, sink{s, o.Stdout}, sink{s, o.Stderr})}
	if o.TTY {
		opts = append(opts, cio.WithTerminal)
	}
	return opts
}

// Read notes the end of the input: the shim holds the pipe open until it is told.
func (s *session) Read(p []byte) (int, error) {
	n, err := s.in.Read(p)
	if err != nil {
		s.once.Do(func() { close(s.eof) })
	}
	return n, err
}

type sink struct {
	s *session
	w io.Writer // nil: nowhere
}

func (k sink) Write(p []byte) (int, error) {
	if k.w == nil {
		return len(p), nil
	}
	k.s.writing.Add(1)
	n, err := k.w.Write(p)
	k.s.last.Store(time.Now().UnixNano())
	k.s.writing.Add(-1)
	return n, err
}

// drain waits for the rest of an ended command's output.
func (s *session) drain(ctx context.Context, streams cio.IO) error {
	done := make(chan struct{})
	go func() { // ends at the latest when the streams are closed
		streams.Wait()
		close(done)
	}()
	s.last.Store(time.Now().UnixNano())
	tick := time.NewTicker(lastWords / 4)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			if s.writing.Load() == 0 && now.UnixNano()-s.last.Load() > int64(lastWords) {
				return nil
			}
		}
	}
}

// killSession kills a command and what it started: runc makes each the leader of a session,
// whose number is not given to another while any process of it is left.
func killSession(leader uint32) {
	if leader <= 1 {
		return
	}
	for range 5 { // those that fork meanwhile
		found := false
		entries, _ := os.ReadDir("/proc") // without it the shim kills the leader alone
		for _, e := range entries {
			pid := int(number(e.Name()))
			if pid > 1 && sessionOf(e.Name()) == int64(leader) && syscall.Kill(pid, syscall.SIGKILL) == nil {
				found = true
			}
		}
		if !found {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// sessionOf reads proc_pid_stat(5): pid (name) state ppid pgrp session.
func sessionOf(pid string) int64 {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 4 || f[0] == "Z" {
		return 0
	}
	return number(f[3])
}
