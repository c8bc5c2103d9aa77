package ops

import "github.com/prometheus/client_golang/prometheus"

// counters are what Ops tells monitors. Labels have but a few values, all of them ours.
type counters struct {
	done     *prometheus.CounterVec
	tokens   prometheus.Counter
	unlogged prometheus.Counter
}

func newCounters() counters {
	return counters{
		done: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "selvedge_hub_operations_total",
			Help: "What people did, or were refused, as far as it is audited."}, []string{"operation", "outcome"}),
		tokens: prometheus.NewCounter(prometheus.CounterOpts{Name: "selvedge_hub_tokens_refused_total",
			Help: "API tokens that were shown and are none."}),
		unlogged: prometheus.NewCounter(prometheus.CounterOpts{Name: "selvedge_hub_audit_failures_total",
			Help: "Entries that the audit log could not take; operations that were to begin were refused."}),
	}
}

// Collectors are the metrics of Ops.
func (o *Ops) Collectors() []prometheus.Collector {
	return []prometheus.Collector{o.count.done, o.count.tokens, o.count.unlogged,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "selvedge_hub_streams", Help: "Open streams of people: logs, commands, watches."}, func() float64 {
			o.mu.Lock()
			defer o.mu.Unlock()
			return float64(o.total)
		})}
}
