package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Bucket opens the key-value bucket of that name, or makes it; values leave it after ttl
// (0: never). It is synced to disk at each write, and on three servers if there are as many.
func (b *Bus) Bucket(ctx context.Context, name string, ttl time.Duration) (jetstream.KeyValue, error) {
	nc, err := b.conn()
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", name, err)
	}
	replicas := 1
	if max(len(b.nodes), len(b.servers)) >= 3 {
		replicas = 3
	}
	c := jetstream.KeyValueConfig{Bucket: name, TTL: ttl, History: 1, Storage: jetstream.FileStorage,
		Replicas: replicas, MaxBytes: 256 << 20, MaxValueSize: 256 << 10}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
	}
	for patience := time.Second; ; patience *= 2 { // a cluster that starts has no leader yet, and does not answer
		try, cancel := context.WithTimeout(ctx, patience)
		kv, err := js.CreateOrUpdateKeyValue(try, c)
		cancel()
		if err == nil {
			return kv, nil
		}
		var api *jetstream.APIError
		if errors.As(err, &api) && api.Code == 400 {
			return nil, fmt.Errorf("bucket %s: %w", name, err)
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("bucket %s: %w", name, err)
		}
	}
}
