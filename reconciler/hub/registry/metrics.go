package registry

import "github.com/prometheus/client_golang/prometheus"

// newRequests counts by what is asked for, and by how it ended: "ok", a code of the distribution
// spec, or "broken" in the middle. Clients that ask without a token before they show it count as unauthorized, too.
func newRequests() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "selvedge", Subsystem: "registry", Name: "requests_total",
		Help: "Requests for states and images, by how they ended."}, []string{"kind", "outcome"})
}

// Collectors returns the metrics of what nodes pull through the hub.
func (r *Registry) Collectors() []prometheus.Collector { return []prometheus.Collector{r.requests} }
