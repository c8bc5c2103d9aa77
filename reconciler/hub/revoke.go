package hub

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// revoker takes keys that Git does not list any more off the bus. What fails here is done by
// the sweep of the bus, within a minute.
type revoker struct {
	revoke func(ctx context.Context, publicKeys ...string) error
	log    *slog.Logger
	wake   chan struct{}

	mu   sync.Mutex
	keys []string
}

func newRevoker(revoke func(context.Context, ...string) error, log *slog.Logger) *revoker {
	return &revoker{revoke: revoke, log: log, wake: make(chan struct{}, 1)}
}

func (r *revoker) gone(keys []string) {
	if len(keys) == 0 {
		return
	}
	r.mu.Lock()
	r.keys = append(r.keys, keys...)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *revoker) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.wake:
		}
		r.mu.Lock()
		keys := r.keys
		r.keys = nil
		r.mu.Unlock()
		once, cancel := context.WithTimeout(ctx, time.Minute)
		if err := r.revoke(once, keys...); err != nil && ctx.Err() == nil {
			r.log.Error("revoke; it is tried again within a minute", "keys", len(keys), "error", err)
		}
		cancel()
	}
}
