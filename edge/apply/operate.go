package apply

import (
	"context"
	"errors"
	"io"
	"time"

	"selvedge/schema/wire"
)

// What keeps a request of a person from being done, to be matched with errors.Is.
var (
	// ErrUnknown: this node has no such app or container.
	ErrUnknown = errors.New("not on this node")
	// ErrNotRunning: the container is there and does not run.
	ErrNotRunning = errors.New("the container does not run")
	// ErrBusy: the same is being done already.
	ErrBusy = errors.New("is being restarted already")
)

// LogOptions select what of a log is read.
type LogOptions struct {
	Since      time.Time // zero: from the beginning
	Tail       int       // lines; 0: all, -1: none of the past
	Follow     bool      // go on with what is printed later, until the container is removed
	Timestamps bool      // RFC 3339 with nanoseconds and a blank before each line
	Previous   bool      // what the containers printed that this one took the place of, as far as it is kept
}

// LogReader is a Runtime that keeps what containers print.
type LogReader interface {
	// Logs writes a container's log, stdout and stderr as they came, raw: what is printed is
	// not to be trusted. The ID may be one of Ended. It returns nil at the end of what there
	// is, the writer's error, or the context's. It writes whole lines, many at a time.
	Logs(ctx context.Context, id string, o LogOptions, w io.Writer) error
	// Ended lists removed containers whose logs are kept, oldest first.
	Ended(ctx context.Context) ([]Instance, error)
}

// Size is a terminal's.
type Size struct{ Rows, Columns uint16 }

// ExecOptions say what to run in a container.
type ExecOptions struct {
	Command        []string
	TTY            bool      // a terminal: Stderr stays empty
	Stdin          io.Reader // nil: none. It is read until its end; who gave it ends it when ExecStream has returned
	Stdout, Stderr io.Writer // nil: dropped. They hold the command up while they block, and must not outlast the context
	Rows, Columns  uint16    // of the terminal at first
	Resize         <-chan Size
}

// StreamExecer is a Runtime that runs commands in a container for people.
type StreamExecer interface {
	// ExecStream runs a command with the container's user, environment and folder, and
	// returns its exit code. When the context ends first, the command is killed with what it
	// started. An error matches ErrNotRunning if there is nothing to run it in.
	ExecStream(ctx context.Context, id string, o ExecOptions) (code int, err error)
}

// Meter is a Runtime that tells what containers use.
type Meter interface {
	// Usage is of a running container, or an error that matches ErrNotRunning. CPU is over
	// the time since it was asked last; the first time, since the start.
	Usage(ctx context.Context, id string) (wire.Usage, error)
}

// Rooted is a Runtime that keeps its things in a folder of the node.
type Rooted interface {
	// Root is where images and what containers write lie. An error matches ErrUnavailable if
	// nobody answers.
	Root(ctx context.Context) (string, error)
}

// Versioner is a Runtime that tells which program it is.
type Versioner interface {
	// Version is a name and a version, e.g. containerd 1.6.20. An error matches
	// ErrUnavailable if nobody answers.
	Version(ctx context.Context) (string, error)
}
