package hub

import (
	"context"
	"log/slog"
	"sync"

	"golang.org/x/time/rate"

	"selvedge/reconciler/hub/follow"
	"selvedge/schema/wire"
)

// noticesPerSecond spreads the pulls that a change of the whole fleet brings; the first few
// nodes of any change hear of it at once.
const (
	noticesPerSecond = 1000
	noticesAtOnce    = 200
)

// notifier tells nodes that there is something new for them. A notice that is lost costs
// time only: nodes ask by themselves, too.
type notifier struct {
	tell func(node, verb string, msg any) error
	log  *slog.Logger
	wake chan struct{}

	mu    sync.Mutex
	told  map[string]int64 // node → generation, as the roster had it last
	queue map[string]wire.Notice
}

func newNotifier(tell func(node, verb string, msg any) error, log *slog.Logger) *notifier {
	return &notifier{tell: tell, log: log, wake: make(chan struct{}, 1), told: map[string]int64{}, queue: map[string]wire.Notice{}}
}

// changed takes what changed in the roster.
func (n *notifier) changed(v *follow.View, d follow.Delta) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if d.Reset {
		for name := range n.told {
			if _, ok := d.Nodes[name]; !ok {
				delete(n.told, name)
			}
		}
	}
	for _, name := range d.Removed {
		delete(n.told, name)
		delete(n.queue, name)
	}
	for name, node := range d.Nodes {
		before, known := n.told[name]
		n.told[name] = node.Generation
		if node.Generation != 0 && node.Generation != before && (known || !d.Reset) {
			n.queue[name] = wire.Notice{Generation: node.Generation, Trust: n.queue[name].Trust}
		}
	}
	if d.Trust && !d.Reset {
		for name := range v.Nodes() {
			n.queue[name] = wire.Notice{Generation: n.queue[name].Generation, Trust: true}
		}
	}
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *notifier) run(ctx context.Context) error {
	pace := rate.NewLimiter(noticesPerSecond, noticesAtOnce)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.wake:
		}
		for {
			name, notice, ok := n.next()
			if !ok {
				break
			}
			if err := pace.Wait(ctx); err != nil {
				return ctx.Err()
			}
			if err := n.tell(name, wire.VerbNotice, notice); err != nil {
				n.log.Debug("notice", "node", name, "error", err)
			}
		}
	}
}

func (n *notifier) next() (string, wire.Notice, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, notice := range n.queue {
		delete(n.queue, name)
		return name, notice, true
	}
	return "", wire.Notice{}, false
}
