package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"selvedge/edge/apply"
	"selvedge/edge/journal"
	"selvedge/edge/uplink"
	"selvedge/schema/wire"
)

// hands do what the hub asks, once uplink has found it granted.
type hands struct{ a *Agent }

var _ uplink.Hands = hands{}

// coded gives an error of the agent's a code for the hub.
func coded(err error) error {
	code := wire.CodeFailed
	switch {
	case err == nil:
		return nil
	case errors.Is(err, apply.ErrUnknown):
		code = wire.CodeNotFound
	case errors.Is(err, apply.ErrBusy):
		code = wire.CodeBusy
	case errors.Is(err, apply.ErrUnavailable), errors.Is(err, apply.ErrNotRunning): // who follows a log asks again
		code = wire.CodeUnavailable
	}
	return &wire.Error{Code: code, Message: err.Error()}
}

// maxAgo is longer ago than anything was printed.
const maxAgo = 100 * 365 * 24 * time.Hour

// Logs writes a container's log, the agent's, or those of all containers of an app with
// their names in front.
func (h hands) Logs(ctx context.Context, r wire.LogsRequest, w io.Writer) error {
	if r.AgoMS > 0 {
		r.Since = h.a.cfg.Now().Add(-time.Duration(min(r.AgoMS, maxAgo.Milliseconds())) * time.Millisecond)
	}
	if r.Agent {
		if h.a.cfg.Journal == nil {
			return &wire.Error{Code: wire.CodeNotFound, Message: "this agent keeps no log of its own; look at the machine's journal"}
		}
		return coded(h.a.cfg.Journal.Logs(ctx, journal.Options{Since: r.Since, Tail: r.Tail, Follow: r.Follow, Timestamps: r.Timestamps}, w))
	}
	reader, ok := h.a.cfg.Runtime.(apply.LogReader)
	if !ok {
		return &wire.Error{Code: wire.CodeFailed, Message: "this node's runtime keeps no logs"}
	}
	list, err := h.a.apply.Find(ctx, r.App, r.Container, r.Previous)
	if err != nil {
		return coded(err)
	}
	o := apply.LogOptions{Since: r.Since, Tail: r.Tail, Follow: r.Follow, Timestamps: r.Timestamps, Previous: r.Previous}
	several := slices.ContainsFunc(list, func(i apply.Instance) bool { return i.Container != list[0].Container })
	from := func(i apply.Instance, w io.Writer) io.Writer {
		if !several {
			return w
		}
		return &named{w: w, name: []byte("[" + i.Container + "] ")}
	}
	if !several || !r.Follow || r.Previous { // one after the other
		for _, i := range list {
			if err := reader.Logs(ctx, i.ID, o, from(i, w)); err != nil {
				return coded(err)
			}
		}
		return nil
	}
	var (
		mu   sync.Mutex
		wg   sync.WaitGroup
		errs = make([]error, len(list))
	)
	for n, i := range list {
		wg.Go(func() {
			errs[n] = reader.Logs(ctx, i.ID, o, from(i, &locked{mu: &mu, w: w}))
		})
	}
	wg.Wait()
	return coded(errors.Join(errs...))
}

// named puts a name in front of each line. What it is given are whole lines.
type named struct {
	w    io.Writer
	name []byte
}

func (n *named) Write(p []byte) (int, error) {
	var b bytes.Buffer
	b.Grow(len(p) + 16*len(n.name))
	for line := range bytes.Lines(p) {
		b.Write(n.name)
		b.Write(line)
	}
	if _, err := n.w.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

type locked struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// Exec runs a command in a container.
func (h hands) Exec(ctx context.Context, r wire.ExecRequest, t uplink.Terminal) (int, error) {
	execer, ok := h.a.cfg.Runtime.(apply.StreamExecer)
	if !ok {
		return 0, &wire.Error{Code: wire.CodeFailed, Message: "this node's runtime runs no commands"}
	}
	list, err := h.a.apply.Find(ctx, r.App, r.Container, false)
	if err != nil {
		return 0, coded(err)
	}
	if len(list) > 1 {
		var names []string
		for _, i := range list {
			names = append(names, i.Container)
		}
		return 0, &wire.Error{Code: wire.CodeInvalid, Message: fmt.Sprintf("app %q has several containers; name one of %q", r.App, names)}
	}
	resize, stop := sizes(t.Resize)
	defer stop()
	code, err := execer.ExecStream(ctx, list[0].ID, apply.ExecOptions{Command: r.Command, TTY: r.TTY, Stdin: t.Stdin, Stdout: t.Stdout, Stderr: t.Stderr,
		Rows: r.Rows, Columns: r.Columns, Resize: resize})
	return code, coded(err)
}

// sizes turns the one package's sizes into the other's, which know nothing of each other.
func sizes(in <-chan uplink.Size) (<-chan apply.Size, func()) {
	out, done := make(chan apply.Size, 1), make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case s := <-in:
				select {
				case out <- apply.Size(s):
				case <-done:
					return
				}
			}
		}
	}()
	return out, func() { close(done); <-ended }
}

// Restart restarts an app or one container of it, but not while a state is on trial: what people
// restart must not count against it, and have it taken back.
func (h hands) Restart(ctx context.Context, r wire.RestartRequest) error {
	if generation, ok := h.a.onTrial(); ok {
		return &wire.Error{Code: wire.CodeBusy, Message: fmt.Sprintf("generation %d is on trial here; restart it when that is over", generation)}
	}
	return coded(h.a.apply.Restart(ctx, r.App, r.Container))
}

// onTrial returns the generation that is being applied and would be taken back if it got not healthy.
func (a *Agent) onTrial() (generation int64, ok bool) {
	a.mu.Lock()
	applying := a.now.Phase == Applying
	a.mu.Unlock()
	cur, _ := a.store.Current()
	good, ok := a.store.LastGood()
	return cur.Generation(), applying && ok && good.Digest() != cur.Digest()
}
