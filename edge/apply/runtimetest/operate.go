package runtimetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"selvedge/edge/apply"
	"selvedge/schema/wire"
)

var (
	_ apply.LogReader    = (*Fake)(nil)
	_ apply.StreamExecer = (*Fake)(nil)
	_ apply.Meter        = (*Fake)(nil)
)

// Print adds a line to a container's log.
func (f *Fake) Print(k apply.Key, line string) {
	f.change(k, func(c *fakeContainer) { c.log = append(c.log, line) })
}

// Logs writes what the container printed; with Follow it waits for the context's end or the
// container's removal, and writes nothing more.
func (f *Fake) Logs(ctx context.Context, id string, o apply.LogOptions, w io.Writer) error {
	f.mu.Lock()
	c, ok := f.all[id]
	if !ok {
		for _, e := range f.ended {
			if e.ID == id {
				c, ok = e, true
			}
		}
	}
	var lines []string
	if ok {
		lines = slices.Clone(c.log)
	}
	f.mu.Unlock()
	if !ok {
		return apply.ErrUnknown
	}
	switch {
	case o.Tail < 0:
		lines = nil
	case o.Tail > 0:
		lines = lines[max(len(lines)-o.Tail, 0):]
	}
	for _, l := range lines {
		if _, err := io.WriteString(w, l+"\n"); err != nil {
			return err
		}
	}
	if o.Follow {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// Ended lists removed containers.
func (f *Fake) Ended(context.Context) ([]apply.Instance, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []apply.Instance
	for _, c := range f.ended {
		i := c.Instance
		i.State = apply.Exited
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b apply.Instance) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// ExecStream knows the commands "cat", which gives back its input; "echo", which gives back
// its arguments; "exit N"; and "wait", which waits for the context's end.
func (f *Fake) ExecStream(ctx context.Context, id string, o apply.ExecOptions) (int, error) {
	f.mu.Lock()
	c, ok := f.all[id]
	running := ok && c.State == apply.Running
	err := f.down
	f.mu.Unlock()
	switch {
	case err != nil:
		return 0, err
	case !running:
		return 0, apply.ErrNotRunning
	case len(o.Command) == 0:
		return 0, errors.New("no command was given")
	}
	switch o.Command[0] {
	case "cat":
		if o.Stdin != nil && o.Stdout != nil {
			_, err = io.Copy(o.Stdout, o.Stdin)
		}
		return 0, err
	case "echo":
		if o.Stdout != nil {
			_, err = io.WriteString(o.Stdout, strings.Join(o.Command[1:], " ")+"\n")
		}
		return 0, err
	case "exit":
		var code int
		_, err = fmt.Sscan(strings.Join(o.Command[1:], " "), &code)
		return code, err
	case "wait":
		for {
			select {
			case s := <-o.Resize:
				if o.Stdout != nil {
					if _, err := fmt.Fprintf(o.Stdout, "%d %d\n", s.Rows, s.Columns); err != nil {
						return 0, err
					}
				}
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
	}
	return 0, fmt.Errorf("%q: executable file not found", o.Command[0])
}

// Usage is always the same.
func (f *Fake) Usage(_ context.Context, id string) (wire.Usage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.all[id]
	if !ok || c.State != apply.Running {
		return wire.Usage{}, apply.ErrNotRunning
	}
	return wire.Usage{CPU: 0.25, Memory: 10 << 20, MemoryLimit: 64 << 20, NetRx: 1000, NetTx: 2000}, nil
}

// Version is this fake's own.
func (f *Fake) Version(context.Context) (string, error) { return "fake 1", nil }
