package edge

import (
	"net/http"
	"sync/atomic"

	"selvedge/edge/metrics"
)

// counts are of what happened since the agent started.
type counts struct{ pulls, pullErrors, refusals, rollbacks atomic.Uint64 }

// Metrics serves how the agent does, for Prometheus, also before it runs.
func (a *Agent) Metrics() http.Handler { return metrics.Handler(a.snapshot) }

// snapshot measures nothing: a monitor that asks often costs no more than its answers.
func (a *Agent) snapshot() metrics.Snapshot {
	s := a.Status()
	m := metrics.Snapshot{
		Node: s.Node, Newest: s.Store.Floor.Generation, Phase: string(s.Update.Phase),
		Healthy: s.Apply.Healthy, Well: s.Well(), RuntimeUp: s.Node != "" && s.Apply.RuntimeError == "",
		Pulls: a.counts.pulls.Load(), PullErrors: a.counts.pullErrors.Load(),
		Refusals: a.counts.refusals.Load(), Rollbacks: a.counts.rollbacks.Load(),
	}
	if c := s.Store.Current; c != nil {
		m.Generation = c.Generation
	}
	if g := s.Store.LastGood; g != nil {
		m.LastGood = g.Generation
	}
	if t := s.Link.Contact; !t.IsZero() {
		m.Contact = t.Unix()
	} else if t := s.Store.LastContact; !t.IsZero() {
		m.Contact = t.Unix()
	}
	if h := s.Hub; h != nil {
		m.Connected, m.Streams = h.Connected, h.Streams
	}
	a.mu.Lock()
	if link := a.hub.link; link != nil {
		m.Denied = link.Denied()
	}
	a.mu.Unlock()
	for _, app := range s.Apply.Apps {
		for _, c := range app.Containers {
			m.Containers = append(m.Containers, metrics.Container{App: app.Name, Name: c.Name, State: string(c.State), Healthy: c.Healthy, Restarts: c.Restarts})
		}
	}
	return m
}
