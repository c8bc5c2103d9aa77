package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Bucket opens the key-value bucket of that name, or makes it; values leave it after ttl
// (0: never). It is synced to disk at each write, and on three servers if the cluster has as many:
// what the servers say counts, for a hub need not be told of all of them.
func (b *Bus) Bucket(ctx context.Context, name string, ttl time.Duration) (jetstream.KeyValue, error) {
	nc, err := b.conn()
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", name, err)
	}
	replicas := 3
	if len(b.servers) == 0 {
		replicas = 1
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
		open := js.CreateOrUpdateKeyValue
		if len(b.servers) > 0 && c.Replicas == 1 {
			open = js.CreateKeyValue // another hub may put it on three servers meanwhile: it is not taken off two
		}
		kv, err := open(try, c)
		if errors.Is(err, jetstream.ErrBucketExists) {
			kv, err = js.KeyValue(try, name)
		}
		if c.Replicas > 1 && tooFew(err) {
			// one that is there stays where it is: a server may be away for a while
			if kv, err = js.KeyValue(try, name); errors.Is(err, jetstream.ErrBucketNotFound) {
				b.log.Warn("the bus has fewer than three servers: what waits for approval is lost with one of them; a hub that starts when there are three mends it", "bucket", name)
				c.Replicas = 1
			}
		}
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

// Error codes of JetStream.
const (
	errNoPeers      = 10005 // of a cluster: not as many servers as replicas
	errNotClustered = 10074
)

// tooFew tells that there are fewer servers than replicas were asked for.
func tooFew(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == errNoPeers || api.ErrorCode == errNotClustered)
}
