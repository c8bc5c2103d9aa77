package enrol

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Collectors returns the metrics of who was let in and who was not.
func (e *Enrol) Collectors() []prometheus.Collector {
	counter := func(name, help, event string, all ...*atomic.Int64) prometheus.Collector {
		o := prometheus.CounterOpts{Namespace: "selvedge", Subsystem: "enrol", Name: name, Help: help}
		if event != "" {
			o.ConstLabels = prometheus.Labels{"request": event}
		}
		return prometheus.NewCounterFunc(o, func() (sum float64) {
			for _, v := range all {
				sum += float64(v.Load())
			}
			return sum
		})
	}
	const refused = "Requests of nodes, or of who is none, that were refused."
	j := e.rejects
	return []prometheus.Collector{
		counter("tokens_total", "Tokens that nodes were given.", "", &e.granted),
		counter("refusals_total", refused, eventJoin, &j.given.all, &j.strangers[eventJoin].all),
		counter("refusals_total", refused, eventToken, &j.strangers[eventToken].all),
		counter("refusals_total", refused, eventPull, &j.strangers[eventPull].all),
		counter("limited_total", "Requests that were refused because there were too many.", "", &e.limited),
	}
}
