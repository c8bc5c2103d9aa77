package uplink

import (
	"context"
	"sync"
	"time"
)

// limiter bounds what a hub brings about: logs and events are few, and have to keep what people
// asked for.
type limiter struct {
	requests bucket
	denials  bucket // that are told; all are refused, and counted
	floods   bucket // that are told: requests which did not pass

	mu       sync.Mutex
	replayed time.Time
	waiting  bool // a replay does
}

// bucket lets bursts through and little more.
type bucket struct {
	mu      sync.Mutex
	left    float64
	at      time.Time
	dropped int
}

// allow reports whether one more may pass, and if so how many did not since the last one.
func (b *bucket) allow(burst, rate float64) (ok bool, dropped int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.at.IsZero() {
		b.left = burst
	}
	b.left = min(burst, b.left+rate*now.Sub(b.at).Seconds())
	b.at = now
	if b.left < 1 {
		b.dropped++
		return false, 0
	}
	b.left--
	dropped, b.dropped = b.dropped, 0
	return true, dropped
}

// betweenReplays is the least between two times that all events are told again: each hub that
// starts asks for it, and all of them hear it.
const betweenReplays = 10 * time.Second

// replay tells all events again that are remembered, soon.
func (u *Uplink) replay(ctx context.Context) {
	l := &u.limit
	l.mu.Lock()
	wait, asked := betweenReplays-time.Since(l.replayed), l.waiting
	l.waiting = true
	l.mu.Unlock()
	if asked {
		return
	}
	run := func() {
		over := time.NewTimer(wait)
		defer over.Stop()
		select {
		case <-ctx.Done(): // the next connection tells them anyway
		case <-over.C:
		}
		l.mu.Lock()
		l.replayed, l.waiting = time.Now(), false
		l.mu.Unlock()
		u.mu.Lock()
		u.sent, u.round = 0, u.round+1
		u.mu.Unlock()
		poke(u.fresh)
	}
	if !u.start(run) {
		l.mu.Lock()
		l.waiting = false
		l.mu.Unlock()
	}
}
