package containerd

import (
	"context"
	"io"

	"selvedge/edge/apply"
)

// ExecStream runs a command for a person.
func (r *Runtime) ExecStream(ctx context.Context, id string, o apply.ExecOptions) (int, error) {
	code, out, err := r.Exec(ctx, id, o.Command)
	if err == nil && o.Stdout != nil {
		_, err = io.WriteString(o.Stdout, out)
	}
	return code, err
}
