package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

// requestTime is how long a node may think unless the context says otherwise.
const requestTime = 10 * time.Second

// Request asks a node and decodes its answer. It returns *NotConnected if the node is not
// there, ErrTimeout if it does not answer until ctx ends, or within 10 seconds.
func (b *Bus) Request(ctx context.Context, node, verb string, req, answer any) error {
	nc, subject, data, err := b.message(node, verb, req)
	if err != nil {
		return err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, requestTime)
		defer cancel()
	}
	b.count.requests.Add(1)
	m, err := nc.RequestWithContext(ctx, subject, data)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return &NotConnected{node}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("ask node %q to %s: %w", node, verb, ErrTimeout)
	case errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrConnectionClosed):
		return ErrNotReady
	case err != nil:
		return fmt.Errorf("ask node %q to %s: %w", node, verb, err)
	}
	if err := json.Unmarshal(m.Data, answer); err != nil {
		return fmt.Errorf("node %q answers %s with what is no answer: %w", node, verb, err)
	}
	return nil
}

// Notify tells a node something, if it is there.
func (b *Bus) Notify(node, verb string, msg any) error {
	nc, subject, data, err := b.message(node, verb, msg)
	if err != nil {
		return err
	}
	if err := nc.Publish(subject, data); err != nil {
		return ErrNotReady
	}
	return nil
}

func (b *Bus) message(node, verb string, msg any) (*nats.Conn, string, []byte, error) {
	if !nodestate.ValidNode(node) {
		return nil, "", nil, fmt.Errorf("%q is no name of a node", node)
	}
	nc, err := b.conn()
	if err != nil {
		return nil, "", nil, err
	}
	var data []byte
	if msg != nil {
		if data, err = json.Marshal(msg); err != nil {
			return nil, "", nil, fmt.Errorf("%s for node %q: %w", verb, node, err)
		}
	}
	if len(data) > wire.MaxRequest {
		return nil, "", nil, fmt.Errorf("%s for node %q: %d bytes are more than the %d of a request", verb, node, len(data), wire.MaxRequest)
	}
	return nc, wire.RequestSubject(node, verb), data, nil
}
