package ops

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"selvedge/internal/serve"
)

// quota bounds how often something that strangers cause is written down, by who causes it.
// The zero value is ready.
type quota struct {
	mu     sync.Mutex
	since  time.Time // when the minute began
	counts map[string]int
}

const (
	quotaPerMinute = 20
	quotaKeys      = 10000 // remembered; beyond, the others share one count
)

// allow counts one more and reports whether it is within the bound.
func (q *quota) allow(key string, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.counts == nil || now.Sub(q.since) >= time.Minute || now.Before(q.since) {
		q.since, q.counts = now, map[string]int{}
	}
	if _, known := q.counts[key]; !known && len(q.counts) >= quotaKeys {
		key = ""
	}
	q.counts[key]++
	return q.counts[key] <= quotaPerMinute
}

// source names the serve.Source of a caller's address: host or host:port.
func source(remote string) string {
	if host, _, err := net.SplitHostPort(remote); err == nil {
		remote = host
	}
	ip, err := netip.ParseAddr(remote)
	if err != nil {
		return ""
	}
	return serve.Source(ip).String()
}
