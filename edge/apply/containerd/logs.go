package containerd

import (
	"context"
	"fmt"
	"io"
	"strings"

	"selvedge/edge/apply"
)

// Logs writes a container's log.
func (r *Runtime) Logs(ctx context.Context, id string, o apply.LogOptions, w io.Writer) error {
	n := o.Tail
	if n == 0 {
		n = 1000
	}
	lines, err := r.Tail(ctx, id, max(n, 0))
	if err != nil || len(lines) == 0 {
		return err
	}
	_, err = io.WriteString(w, strings.Join(lines, "\n")+"\n")
	if err != nil {
		return fmt.Errorf("write the log of %.12s: %w", id, err)
	}
	return nil
}

// Ended lists removed containers whose logs are kept.
func (r *Runtime) Ended(context.Context) ([]apply.Instance, error) { return nil, nil }
