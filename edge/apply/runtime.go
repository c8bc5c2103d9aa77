package apply

import (
	"context"
	"errors"
	"time"

	"selvedge/schema/nodestate"
)

// What a Runtime reports about itself or a Spec, to be matched with errors.Is.
var (
	// ErrUnavailable: the runtime does not answer. Containers may go on running.
	ErrUnavailable = errors.New("container runtime is not reachable")
	// ErrImageMissing: the image is not local; Start never pulls.
	ErrImageMissing = errors.New("image is not on this node")
)

// Runtime runs containers. It holds no desired state and restarts nothing by itself.
type Runtime interface {
	// Pull makes an image local; it returns at once when it is.
	Pull(ctx context.Context, image string) error
	// Observe lists all containers made by Start, in any state.
	Observe(ctx context.Context) ([]Instance, error)
	// Start brings a container up: it resumes a paused one of the same hash, starts
	// a stopped one again, creates a missing one. A container of that app and name
	// with another hash is an error: Stop it first.
	Start(ctx context.Context, s Spec) (Instance, error)
	// Stop ends a container as its spec says: signal, grace period, kill. With keep
	// it stays to be started again; otherwise it is removed. Stopping what is gone is
	// no error.
	Stop(ctx context.Context, id string, keep bool) error
}

// Watcher is a Runtime that tells when something may have changed.
type Watcher interface {
	// Watch calls changed soon after each change until the context ends or the
	// connection is lost.
	Watch(ctx context.Context, changed func()) error
}

// Execer is a Runtime that runs a command inside a running container.
type Execer interface {
	// Exec returns the exit code and the last few KiB of output.
	Exec(ctx context.Context, id string, command []string) (code int, output string, err error)
}

// Tailer is a Runtime that keeps what containers print.
type Tailer interface {
	// Tail returns the last lines, oldest first.
	Tail(ctx context.Context, id string, lines int) ([]string, error)
}

// Pruner is a Runtime that can forget images.
type Pruner interface {
	// Prune removes the images that neither keep names nor a container uses, with all
	// that only they needed.
	Prune(ctx context.Context, keep []string) error
}

// Spec is one container to run.
type Spec struct {
	App        string
	Generation int64 // of the state that created it: a label, not part of the hash
	Hash       string
	Container  nodestate.Container
	Binds      []Bind // config files, read-only
}

// Bind mounts a file of the node into the container, read-only.
type Bind struct{ Host, Path string }

// State is what a container is doing.
type State string

// The states of a container.
const (
	Absent  State = "absent"  // not there
	Created State = "created" // never started
	Running State = "running"
	Paused  State = "paused"
	Exited  State = "exited" // ended with an exit code
	Lost    State = "lost"   // ended without one: the node went down
)

// Instance is one container as the runtime sees it.
type Instance struct {
	ID         string
	App        string
	Container  string
	Hash       string
	Image      string
	Generation int64
	State      State
	ExitCode   int       // when Exited
	Since      time.Time // of the state; zero when unknown
	Address    string    // where its ports answer from this node; empty: nowhere
	Fault      string    // what somebody took away of it, though it runs; only a restart mends it
}

// Key names a container on a node.
type Key struct{ App, Container string }

func (k Key) String() string { return k.App + "/" + k.Container }

// Key returns the instance's name.
func (i Instance) Key() Key { return Key{i.App, i.Container} }

// Key returns the spec's name.
func (s Spec) Key() Key { return Key{s.App, s.Container.Name} }
