// Package backoff says how long to wait before trying again.
package backoff

import (
	"math/rand/v2"
	"time"
)

// Backoff doubles a delay from Min to Max. The zero value waits 1 s at first and
// 5 min at most. It is not safe for concurrent use.
type Backoff struct {
	Min time.Duration // 0 means 1 s
	Max time.Duration // 0 means 5 min

	next time.Duration
}

// Next returns the delay before the next attempt, with full jitter in its upper
// half, so that a fleet that failed together does not come back together.
func (b *Backoff) Next() time.Duration {
	lo, hi := b.Min, b.Max
	if lo <= 0 {
		lo = time.Second
	}
	if hi <= 0 {
		hi = 5 * time.Minute
	}
	if b.next == 0 {
		b.next = lo
	}
	d := min(b.next, hi)
	b.next = min(2*d, hi)
	return Jitter(d)
}

// Reset starts over from Min: call it after a success.
func (b *Backoff) Reset() { b.next = 0 }

// Jitter returns a random duration between half of d and d.
func Jitter(d time.Duration) time.Duration {
	if d <= 1 {
		return d
	}
	return d/2 + rand.N(d/2+1)
}
