package containerd

import (
	"context"

	"selvedge/schema/wire"
)

// Usage tells what a running container uses.
func (r *Runtime) Usage(ctx context.Context, id string) (wire.Usage, error) {
	return wire.Usage{}, nil
}
