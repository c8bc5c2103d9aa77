package reconciler

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"selvedge/schema/fleet"
)

// metrics are what monitors are told of the loop. No label names a node, a workspace or a
// commit: there are as many series with ten nodes as with ten thousand.
type metrics struct {
	passes  *prometheus.HistogramVec
	errors  *prometheus.CounterVec
	signed  prometheus.Counter
	removed prometheus.Counter
	commits prometheus.Counter
}

func newMetrics(steps []step) *metrics {
	m := &metrics{
		passes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "selvedge_reconciler_pass_duration_seconds", Help: "How long passes took, by outcome.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}, []string{"outcome"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "selvedge_reconciler_errors_total", Help: "Passes that ended early, by the step that ended them; fetch is Git.",
		}, []string{"step"}),
		signed:  prometheus.NewCounter(prometheus.CounterOpts{Name: "selvedge_reconciler_states_signed_total", Help: "States that were signed and published."}),
		removed: prometheus.NewCounter(prometheus.CounterOpts{Name: "selvedge_reconciler_states_removed_total", Help: "States that were withdrawn."}),
		commits: prometheus.NewCounter(prometheus.CounterOpts{Name: "selvedge_reconciler_commits_total", Help: "Commits that came into force."}),
	}
	for _, outcome := range []string{"ok", "error"} {
		m.passes.WithLabelValues(outcome)
	}
	for _, s := range steps {
		m.errors.WithLabelValues(s.name) // from zero: a monitor sees the first error only as a growth
	}
	return m
}

func (m *metrics) pass(began time.Time, p *pass, failed string) {
	outcome := "ok"
	if failed != "" {
		outcome = "error"
		m.errors.WithLabelValues(failed).Inc()
	}
	m.passes.WithLabelValues(outcome).Observe(time.Since(began).Seconds())
	m.signed.Add(float64(p.signed))
	m.removed.Add(float64(p.removed))
}

// Collectors are the loop's metrics, for a registry.
func (r *Reconciler) Collectors() []prometheus.Collector {
	m := r.metrics
	return []prometheus.Collector{m.passes, m.errors, m.signed, m.removed, m.commits, (*gauges)(r)}
}

// gauges tell what the Status says.
type gauges Reconciler

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("selvedge_reconciler_"+name, help, labels, nil)
}

var (
	descNodes      = desc("nodes", "Nodes: current have a state of the commit in force, held keep an earlier one, awaiting have no identity.", "state")
	descWorkspaces = desc("workspaces", "Workspaces in the commit in force.")
	descProblems   = desc("problems", "Findings about the commit seen, by severity.", "severity")
	descInForce    = desc("in_force", "1 if the newest commit seen is in force, 0 if not.")
	descSuccess    = desc("last_success_timestamp_seconds", "When the last good pass ended.")
	descCommit     = desc("commit_timestamp_seconds", "When the commit in force was made.")
	descHubs       = desc("hubs", "Hubs that are connected.")
)

// Describe implements prometheus.Collector.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descNodes, descWorkspaces, descProblems, descInForce, descSuccess, descCommit, descHubs} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	r := (*Reconciler)(g)
	s := r.Status()
	put := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	put(descNodes, float64(s.Nodes), "current")
	put(descNodes, float64(len(s.Held)), "held")
	put(descNodes, float64(len(s.Awaiting)), "awaiting")
	put(descWorkspaces, float64(s.Workspaces))
	count := map[fleet.Severity]int{}
	for _, p := range s.Problems {
		count[p.Severity]++
	}
	for _, severity := range []fleet.Severity{fleet.Error, fleet.Warning} {
		put(descProblems, float64(count[severity]), string(severity))
	}
	inForce := 0.0
	if s.InForce.Hash != "" && s.InForce.Hash == s.Seen.Hash && s.Error == "" {
		inForce = 1
	}
	put(descInForce, inForce)
	if !s.Finished.IsZero() {
		put(descSuccess, float64(s.Finished.UnixMilli())/1000)
	}
	if !s.InForce.Time.IsZero() {
		put(descCommit, float64(s.InForce.Time.Unix()))
	}
	if r.cfg.Feed != nil {
		put(descHubs, float64(r.cfg.Feed.Hubs()))
	}
}
