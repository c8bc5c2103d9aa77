package bus

import (
	"maps"
	"slices"
	"time"
)

// A connection that is taken over within quickTime of the time before is not a link that broke
// without a word, which is noticed after 40 seconds at the earliest: the one who was put out has
// come back. A machine does so in seconds, however seldom the other one connects. takeovers of
// them within takeoverTime are two machines that take the name from each other, and no longer a
// network that changes. warnTime passes before it is told of the same node again.
const (
	takeovers    = 3
	quickTime    = 35 * time.Second
	takeoverTime = 15 * time.Minute
	warnTime     = 5 * time.Minute
)

// contest is what is remembered of a node whose connections were taken over.
type contest struct {
	last   time.Time
	quick  []time.Time // the newest takeovers at most
	warned time.Time
}

// contests are those of all nodes.
type contests map[string]*contest

// over notes a takeover, and tells whether they are too many.
func (cs contests) over(node string, now time.Time) bool {
	c := cs[node]
	if c == nil {
		cs[node] = &contest{last: now}
		return false
	}
	quick := now.Sub(c.last) <= quickTime
	c.last = now
	if !quick {
		return false
	}
	c.quick = append(c.quick, now)
	c.quick = c.quick[max(0, len(c.quick)-takeovers):]
	if len(c.quick) < takeovers || now.Sub(c.quick[0]) > takeoverTime || now.Sub(c.warned) < warnTime {
		return false
	}
	c.quick, c.warned = nil, now
	return true
}

// sweep forgets what is too old to matter.
func (cs contests) sweep(now time.Time) {
	maps.DeleteFunc(cs, func(_ string, c *contest) bool {
		c.quick = slices.DeleteFunc(c.quick, func(t time.Time) bool { return now.Sub(t) > takeoverTime })
		return len(c.quick) == 0 && now.Sub(c.last) > quickTime && now.Sub(c.warned) > warnTime
	})
}
