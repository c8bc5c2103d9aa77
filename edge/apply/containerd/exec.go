package containerd

import (
	"context"
	"sync"

	"selvedge/edge/apply"
)

// maxOutput bounds what is kept of a command's output: the end of it.
const maxOutput = 4 << 10

// Exec runs a command in a running container and waits for it. When the context
// ends first, the command is killed.
func (r *Runtime) Exec(ctx context.Context, id string, command []string) (int, string, error) {
	var out lastBytes
	code, err := r.ExecStream(ctx, id, apply.ExecOptions{Command: command, Stdout: &out, Stderr: &out})
	return code, out.String(), err
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
