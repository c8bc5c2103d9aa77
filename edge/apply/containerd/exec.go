package containerd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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

// tailBytes bounds how far back Tail reads.
const tailBytes = 128 << 10

// Tail returns the last lines of a container's log. It reads the file itself:
// nerdctl's reader takes over the process's signals.
func (r *Runtime) Tail(_ context.Context, id string, lines int) ([]string, error) {
	store, err := r.store()
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(filepath.Join(store, "containers", r.c.Namespace))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the log of %.12s: %w", id, err)
	}
	defer root.Close()
	f, err := root.Open(filepath.Join(id, id+"-json.log"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the log of %.12s: %w", id, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the log of %.12s: %w", id, err)
	}
	from := max(fi.Size()-tailBytes, 0)
	b, err := io.ReadAll(io.NewSectionReader(f, from, tailBytes))
	if err != nil {
		return nil, fmt.Errorf("read the log of %.12s: %w", id, err)
	}
	if from > 0 { // begin at a whole line
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	var out []string
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, tailBytes)
	for sc.Scan() {
		var e struct {
			Log string `json:"log"`
		}
		if json.Unmarshal(sc.Bytes(), &e) == nil {
			out = append(out, strings.TrimRight(e.Log, "\r\n"))
		}
	}
	return out[max(len(out)-lines, 0):], nil
}
