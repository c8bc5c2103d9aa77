package enrol

import (
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"selvedge/internal/serve"
)

const (
	maxSources = 10000 // remembered; what is more shares one limit

	// Refusals that are written down. Who never had a join token shall not fill a disk that
	// is never cleaned: a line a minute of each event, after a first thousand.
	rejectsRate   = 1 // a second
	rejectsBurst  = 2000
	strangersRate = 1. / 60
	strangersHits = 1000
)

// limits bounds how often is asked, by each source and by all together.
type limits struct {
	now    func() time.Time
	all    *rate.Limiter
	source rate.Limit
	burst  int
	others *rate.Limiter // of sources that are too many

	mu      sync.Mutex
	sources map[netip.Prefix]*rate.Limiter
	swept   time.Time
}

func newLimits(r Rate, now func() time.Time) *limits {
	if r.All <= 0 {
		r.All = 1000
	}
	if r.Source <= 0 {
		r.Source = 100
	}
	l := &limits{now: now, all: rate.NewLimiter(rate.Limit(r.All), 5*r.All), source: rate.Limit(r.Source), burst: 20 * r.Source, sources: map[netip.Prefix]*rate.Limiter{}}
	l.others = rate.NewLimiter(l.source, l.burst)
	return l
}

// take returns 0, or how long to wait before asking again. A source that asks too often
// takes nothing from the others.
func (l *limits) take(a netip.Addr) time.Duration {
	now := l.now()
	for _, limit := range []*rate.Limiter{l.of(a, now), l.all} {
		r := limit.ReserveN(now, 1)
		if d := r.DelayFrom(now); d > 0 {
			r.CancelAt(now)
			return d
		}
	}
	return 0
}

func (l *limits) of(a netip.Addr, now time.Time) *rate.Limiter {
	p := serve.Source(a)
	if !p.IsValid() {
		return l.others
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sources[p]
	if s != nil {
		return s
	}
	if len(l.sources) >= maxSources && !now.Before(l.swept.Add(time.Second)) {
		l.swept = now
		for p, s := range l.sources {
			if s.TokensAt(now) >= float64(l.burst) { // as good as new
				delete(l.sources, p)
			}
		}
	}
	if len(l.sources) >= maxSources {
		return l.others
	}
	s = rate.NewLimiter(l.source, l.burst)
	l.sources[p] = s
	return s
}

// peer is where a connection comes from.
func peer(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr()
}

// rejects counts what was refused, and writes it to the audit. What strangers cause does not hide
// what is done with join tokens that were given, nor one kind of request another.
type rejects struct {
	c         Config
	given     quota
	strangers map[string]*quota // by event
}

// What may be refused: to join, a token of a node, a pull.
const (
	eventJoin  = "join"
	eventToken = "token"
	eventPull  = "pull"
)

type quota struct {
	limit *rate.Limiter
	all   atomic.Int64

	mu      sync.Mutex
	dropped int
}

func newRejects(c Config) *rejects {
	j := &rejects{c: c, strangers: map[string]*quota{}}
	j.given.limit = rate.NewLimiter(rejectsRate, rejectsBurst)
	for _, event := range []string{eventJoin, eventToken, eventPull} {
		j.strangers[event] = &quota{limit: rate.NewLimiter(strangersRate, strangersHits)}
	}
	return j
}

// take reports whether one more may be written, and how many before it were not.
func (q *quota) take(now time.Time) (ok bool, dropped int) {
	q.all.Add(1)
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.limit.AllowN(now, 1) {
		q.dropped++
		return false, 0
	}
	dropped, q.dropped = q.dropped, 0
	return true, dropped
}

// add writes one down; a stranger is who showed no join token that was given.
func (j *rejects) add(r *http.Request, stranger bool, event string, attrs ...any) {
	q := &j.given
	if stranger {
		q = j.strangers[event]
	}
	ok, dropped := q.take(j.c.Now())
	if !ok {
		return
	}
	attrs = append(attrs, "address", j.c.Source(r).String())
	if dropped > 0 {
		attrs = append(attrs, "dropped", dropped) // events before this one that nobody wrote down
	}
	if j.c.Rejected == nil {
		j.c.Log.Warn("a node was refused", append([]any{"request", event}, attrs...)...)
		return
	}
	j.c.Rejected(event, attrs...)
}
