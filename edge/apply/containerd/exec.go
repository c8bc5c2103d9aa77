package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/errdefs"
	"github.com/containerd/nerdctl/v2/pkg/idgen"
)

// maxOutput bounds what is kept of a command's output: the end of it.
const maxOutput = 4 << 10

// Exec runs a command in a running container and waits for it. When the context
// ends first, the command is killed.
func (r *Runtime) Exec(ctx context.Context, id string, command []string) (int, string, error) {
	if len(command) == 0 {
		return 0, "", errors.New("run a command in the container: no command was given")
	}
	ctx, c, err := r.open(ctx)
	if err != nil {
		return 0, "", err
	}
	made, err := c.LoadContainer(ctx, id)
	if err != nil {
		return 0, "", r.wrap("run a command in the container", err)
	}
	spec, err := made.Spec(ctx)
	if err != nil {
		return 0, "", r.wrap("run a command in the container", err)
	}
	task, err := made.Task(ctx, nil)
	if err != nil {
		return 0, "", r.wrap("run a command in the container", err)
	}
	p := *spec.Process
	p.Args, p.Terminal = command, false
	var out lastBytes
	fifos := filepath.Join(r.c.RunDir, "fifo")
	if err := os.MkdirAll(fifos, 0o700); err != nil {
		return 0, "", fmt.Errorf("run a command in the container: %w", err)
	}
	x, err := task.Exec(ctx, "exec-"+idgen.GenerateID()[:16], &p, cio.NewCreator(cio.WithStreams(nil, &out, &out), cio.WithFIFODir(fifos)))
	if err != nil {
		return 0, "", r.wrap(fmt.Sprintf("run %q in the container", command), err)
	}
	free := context.WithoutCancel(ctx)
	defer func() {
		bound, cancel := context.WithTimeout(free, stopBound)
		defer cancel()
		if _, err := x.Delete(bound, client.WithProcessKill); err != nil && !errdefs.IsNotFound(err) {
			r.log.Debug("an ended command stays listed", "error", err)
		}
	}()
	ended, err := x.Wait(free)
	if err != nil {
		return 0, "", r.wrap(fmt.Sprintf("run %q in the container", command), err)
	}
	if err := x.Start(ctx); err != nil {
		return 0, "", r.wrap(fmt.Sprintf("run %q in the container", command), err)
	}
	select {
	case st := <-ended:
		x.IO().Wait()
		return int(st.ExitCode()), out.String(), st.Error()
	case <-ctx.Done():
		_ = x.Kill(free, syscall.SIGKILL) // Delete makes sure
		return 0, out.String(), ctx.Err()
	}
}

// lastBytes keeps the end of what is written. Both streams write to it.
type lastBytes struct {
	mu sync.Mutex
	b  []byte
}

func (l *lastBytes) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	if over := len(l.b) - maxOutput; over > 0 {
		l.b = append(l.b[:0], l.b[over:]...)
	}
	return len(p), nil
}

func (l *lastBytes) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}
