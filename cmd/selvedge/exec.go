package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"selvedge/cmd/selvedge/show"
	"selvedge/internal/exit"
	"selvedge/reconciler/hub/client"
)

func execCommand() *cobra.Command {
	var f hubFlags
	var stdin, tty bool
	var name string
	c := &cobra.Command{
		Use:   "exec NODE[/APP[/CONTAINER]] -- COMMAND [ARG]…",
		Short: "Run a command in a container",
		Long: `exec runs a command in a container of an app; the app may be left out where the node runs only
one. With -it it is connected to the terminal, whose size follows, and keys such as Ctrl-C go to
the command. The node does so only if remote: exec in its signed state grants it.

The exit code is that of the command, or 2 or 3 if it could not be run.`,
		Example: "  selvedge exec -it gw-7/hmi -- sh\n  selvedge exec gw-7/hmi/web -- cat /etc/hostname",
		Args: func(c *cobra.Command, args []string) error {
			if c.ArgsLenAtDash() != 1 || len(args) < 2 {
				return fmt.Errorf("want NODE[/APP[/CONTAINER]], then --, then the command")
			}
			return nil
		},
		ValidArgsFunction: first(completeWith(&f, targets)),
		RunE: f.run(func(c *cobra.Command, hub *client.Client, args []string) error {
			node, app, container, err := target(args[0], name)
			if err != nil {
				return err
			}
			if app == "" {
				if app, err = onlyApp(c.Context(), hub, node, ""); err != nil {
					return err
				}
			}
			o := client.ExecOptions{App: app, Container: container, Command: args[1:], TTY: tty, Stdin: stdin}
			if tty && (!stdin || !show.Terminal(c.InOrStdin())) {
				return exit.Usagef("-t needs a terminal as standard input, and -i; leave it out in scripts")
			}
			code, err := session(c, hub, node, o)
			if err != nil {
				return err
			}
			if code < 0 || code > 255 { // none that a process has: what ends as 0 would look well
				code = 255
			}
			return exit.Quiet(code)
		}),
	}
	f.register(c)
	c.Flags().BoolVarP(&stdin, "stdin", "i", false, "pass standard input on to the command")
	registerContainer(c, &f, &name)
	c.Flags().BoolVarP(&tty, "tty", "t", false, "give the command a terminal")
	return c
}

// target takes NODE[/APP[/CONTAINER]] apart; the container may be given by a flag instead.
func target(arg, name string) (node, app, container string, err error) {
	node, app, container, ok := client.ParseTarget(arg)
	if !ok {
		return "", "", "", exit.Usagef("%q: want NODE, NODE/APP or NODE/APP/CONTAINER", arg)
	}
	if container != "" && name != "" && container != name {
		return "", "", "", exit.Usagef("give one container, not %q and -c %q", arg, name)
	}
	return node, app, cmp.Or(container, name), nil
}

func registerContainer(c *cobra.Command, f *hubFlags, name *string) {
	c.Flags().StringVarP(name, "container", "c", "", "this container of the app")
	complete(c, "container", completeWith(f, containerNames(c)))
}

func session(c *cobra.Command, hub *client.Client, node string, o client.ExecOptions) (int, error) {
	s := client.Streams{In: c.InOrStdin(), Out: c.OutOrStdout(), Err: c.ErrOrStderr()}
	if !o.TTY {
		s.Out, s.Err = safe(s.Out), safe(s.Err)
		return hub.Exec(c.Context(), node, o, s)
	}
	fd := int(os.Stdin.Fd())
	if columns, rows, err := term.GetSize(fd); err == nil {
		o.Rows, o.Columns = size(rows), size(columns)
	}
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	resize, stop := sizes(ctx, fd)
	defer stop()
	s.Resize = resize
	signal.Ignore(syscall.SIGPIPE) // who reads the output may leave: writing fails then, and the terminal is given back
	defer signal.Reset(syscall.SIGPIPE)
	old, err := term.MakeRaw(fd)
	if err != nil {
		return 0, fmt.Errorf("terminal: %w", err)
	}
	defer term.Restore(fd, old) // there is nothing else to do about it
	code, err := hub.Exec(ctx, node, o, s)
	if e, ok := errors.AsType[*fs.PathError](err); ok && errors.Is(e, syscall.EPIPE) { // of a file, not of the connection
		return 128 + int(syscall.SIGPIPE), nil // as without a terminal, and as shells call it
	}
	return code, err
}

// safe keeps a command without a terminal of its own from acting on that of the caller.
func safe(w io.Writer) io.Writer {
	if show.Terminal(w) {
		return show.Filter(w)
	}
	return w
}

// sizes tells each new size of a terminal.
func sizes(ctx context.Context, fd int) (<-chan client.Size, func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGWINCH)
	out, done := make(chan client.Size), make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-signals:
			}
			columns, rows, err := term.GetSize(fd)
			if err != nil {
				continue
			}
			select {
			case <-ctx.Done():
				return
			case out <- client.Size{Rows: size(rows), Columns: size(columns)}:
			}
		}
	}()
	return out, func() {
		signal.Stop(signals)
		cancel()
		<-done
	}
}

// size keeps a terminal's measure within what is sent.
func size(n int) uint16 { return uint16(min(max(n, 0), 1<<16-1)) } // #nosec G115 -- bounded
