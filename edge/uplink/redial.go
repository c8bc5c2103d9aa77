package uplink

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// steady is how long a connection stands before the hub counts as one that keeps connections.
const steady = time.Minute

// redial says which hub is tried next, and when. The pause is never nothing, since 10,000 nodes
// lose a hub in the same moment; it has full jitter, and grows until a connection has stood for
// a while: a hub, or what is in front of it, may take each connection and end it at once.
type redial struct {
	most time.Duration // the longest pause

	mu       sync.Mutex
	last     string // URL that was tried last
	attempts int    // since a connection that stood
	since    time.Time
	soon     bool
}

// next implements nats.ReconnectToServerHandler. The library calls it under its own lock.
func (r *redial) next(hubs []nats.Server, _ nats.ServerInfo) (*nats.Server, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := slices.IndexFunc(hubs, func(s nats.Server) bool { return s.URL.String() == r.last })
	if r.soon && at >= 0 {
		r.soon = false
		return &hubs[at], 0
	}
	if !r.since.IsZero() && time.Since(r.since) > steady {
		r.attempts = 0
	}
	r.since, r.soon = time.Time{}, false
	r.attempts++
	at = (at + 1) % len(hubs)
	r.last = hubs[at].URL.String()
	most := min(time.Second<<min(r.attempts, 10), r.most)
	return &hubs[at], 50*time.Millisecond + rand.N(most)
}

// connected notes a connection.
func (r *redial) connected(url string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.since, r.soon = url, time.Now(), false
}

// again lets the next attempt go to the same hub at once: the connection ends by our own will.
func (r *redial) again() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.soon = true
}
