package hub

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"selvedge/reconciler/hub/bus"
	"selvedge/reconciler/hub/follow"
	"selvedge/schema/wire"
)

// noticesPerSecond spreads the pulls that a change of the whole fleet brings; the first few
// nodes of any change hear of it at once.
const (
	noticesPerSecond = 1000
	noticesAtOnce    = 200
)

// tellPause is between attempts while the bus takes nothing.
const tellPause = time.Second

// notifier tells nodes that there is something new for them. A notice that is lost costs
// time only: nodes ask by themselves, too.
type notifier struct {
	tell func(node, verb string, msg any) error
	log  *slog.Logger
	wake chan struct{}

	mu    sync.Mutex
	told  map[string]int64 // node → generation, as the roster had it last
	queue map[string]word
}

// word is what a node is told, at once.
type word struct {
	notice wire.Notice
	report bool // ask for its status and events
}

// and joins what was to be told before with what came since.
func (w word) and(since word) word {
	if since.notice.Generation == 0 {
		since.notice.Generation = w.notice.Generation
	}
	return word{wire.Notice{Generation: since.notice.Generation, Trust: w.notice.Trust || since.notice.Trust}, w.report || since.report}
}

func newNotifier(tell func(node, verb string, msg any) error, log *slog.Logger) *notifier {
	return &notifier{tell: tell, log: log, wake: make(chan struct{}, 1), told: map[string]int64{}, queue: map[string]word{}}
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
			n.add(name, word{notice: wire.Notice{Generation: node.Generation}})
		}
	}
	if d.Trust && !d.Reset {
		for name := range v.Nodes() {
			n.add(name, word{notice: wire.Notice{Trust: true}})
		}
	}
}

// ask has nodes report now what they report by themselves only now and then.
func (n *notifier) ask(names []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range names {
		n.add(name, word{report: true})
	}
}

// add is called with the lock.
func (n *notifier) add(name string, w word) {
	n.queue[name] = n.queue[name].and(w)
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// again takes back what could not be told.
func (n *notifier) again(name string, w word) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, listed := n.told[name]; listed {
		n.queue[name] = w.and(n.queue[name])
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
			name, w, ok := n.next()
			if !ok {
				break
			}
			if err := pace.Wait(ctx); err != nil {
				return ctx.Err()
			}
			err := n.say(name, w)
			if !errors.Is(err, bus.ErrNotReady) {
				if err != nil {
					n.log.Debug("notice", "node", name, "error", err)
				}
				continue
			}
			n.again(name, w)
			select {
			case <-time.After(tellPause):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

func (n *notifier) say(name string, w word) error {
	if w.notice != (wire.Notice{}) {
		if err := n.tell(name, wire.VerbNotice, w.notice); err != nil {
			return err
		}
	}
	if w.report {
		return n.tell(name, wire.VerbReport, nil)
	}
	return nil
}

func (n *notifier) next() (string, word, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, w := range n.queue {
		delete(n.queue, name)
		return name, w, true
	}
	return "", word{}, false
}
