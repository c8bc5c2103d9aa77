package publish

import (
	"context"
	"sync"
	"time"
)

// trustKey stands for the trust repository among the nodes' names: none has a slash.
const trustKey = "/trust"

// waiters lets requests wait for the next change of a repository.
type waiters struct {
	max int

	mu      sync.Mutex
	n       int
	changed map[string]*change
	closed  bool
}

// change is closed by the next change; the last of its waiters to go drops it.
type change struct {
	done    chan struct{}
	waiting int
}

// join registers a waiter before it looks at what is published, so that no change falls
// between the look and the wait. False: too many wait already.
func (w *waiters) join(key string) (*change, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.n >= w.max {
		return nil, false
	}
	w.n++
	c := w.changed[key]
	if c == nil {
		c = &change{done: make(chan struct{})}
		if w.changed == nil {
			w.changed = map[string]*change{}
		}
		w.changed[key] = c
	}
	c.waiting++
	return c, true
}

func (w *waiters) leave(key string, c *change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n--
	if c.waiting--; c.waiting == 0 && w.changed[key] == c {
		delete(w.changed, key)
	}
}

func (w *waiters) wake(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c := w.changed[key]; c != nil {
		close(c.done)
		delete(w.changed, key)
	}
}

func (w *waiters) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for key, c := range w.changed {
		close(c.done)
		delete(w.changed, key)
	}
}

// wait returns at the change, after d, or when ctx ends.
func (c *change) wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c.done:
	case <-t.C:
	case <-ctx.Done():
	}
}
