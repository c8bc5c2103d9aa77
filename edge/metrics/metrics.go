// Package metrics tells Prometheus how this agent does.
//
// In: a function that returns a Snapshot, asked at each scrape. Out: an http.Handler.
//
// It has a registry of its own, and few series: labels come from the node's signed state, at
// most MaxContainers containers are told, and how many are left out is told too.
package metrics

import (
	"net/http"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"selvedge/internal/version"
)

// Snapshot is how the agent does at one moment.
type Snapshot struct {
	Node       string
	Generation int64  // being run
	Newest     int64  // generation, known to be wanted
	LastGood   int64  // generation
	Phase      string // as wire.State
	Healthy    bool   // everything that runs
	Well       bool
	Connected  bool // to the bus
	RuntimeUp  bool
	Contact    int64 // with the registry, Unix seconds; 0: never
	Pulls      uint64
	PullErrors uint64
	Refusals   uint64
	Rollbacks  uint64
	Streams    int // open for people
	Denied     uint64
	Containers []Container
}

// Container is one container of the state.
type Container struct {
	App, Name string
	State     string // as wire.Instance
	Healthy   bool
	Restarts  int
}

// MaxContainers are told in a scrape.
const MaxContainers = 500

// phases are those of wire.State.
var phases = []string{"idle", "held", "prefetch", "applying", "rolledback"}

// Handler serves the metrics.
func Handler(snapshot func() Snapshot) http.Handler {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(
		collector{snapshot},
		collectors.NewGoCollector(collectors.WithGoCollectorMemStatsMetricsDisabled(), collectors.WithoutGoCollectorRuntimeMetrics(regexp.MustCompile(".*"))),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 2})
}

// desc describes one metric.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("selvedge_agent_"+name, help, labels, nil)
}

var (
	build      = desc("build_info", "Always 1; the labels tell which build of the agent this is.", "version", "goversion", "arch")
	node       = desc("node_info", "Always 1; the label is the node's name.", "node")
	generation = desc("generation", "Generation of a state by what it is to the node: running, newest known, last good.", "kind")
	phase      = desc("phase", "1 for what the agent does with states at the moment, 0 for all else.", "phase")
	healthy    = desc("apps_healthy", "1 if all that runs is healthy.")
	well       = desc("well", "1 if the node runs in health what it knows to be wanted.")
	connected  = desc("uplink_connected", "1 if the agent is connected to a hub.")
	rt         = desc("runtime_up", "1 if the container runtime answers.")
	contact    = desc("registry_contact_timestamp_seconds", "When the registry answered last.")
	pulls      = desc("pulls_total", "Times the agent asked the registry for its state.")
	pullErrors = desc("pull_errors_total", "Times it got no answer that it could use.")
	refusals   = desc("refusals_total", "Answers that were not believed.")
	rollbacks  = desc("rollbacks_total", "States that failed here and were taken back.")
	streams    = desc("streams", "Logs and commands that people have open.")
	denied     = desc("requests_denied_total", "Requests of a hub that the signed state does not grant.")
	state      = desc("container_state", "1; the label is what the container does.", "app", "container", "state")
	ok         = desc("container_healthy", "1 if the container is healthy.", "app", "container")
	restarts   = desc("container_restarts_total", "Restarts by this agent since it supervises this version.", "app", "container")
	count      = desc("containers", "Containers of the state.")
	left       = desc("containers_not_told", "Containers that are left out here because there are too many.")
)

type collector struct{ snapshot func() Snapshot }

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{build, node, generation, phase, healthy, well, connected, rt, contact, pulls, pullErrors,
		refusals, rollbacks, streams, denied, state, ok, restarts, count, left} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.snapshot()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(build, 1, version.Version, runtime.Version(), runtime.GOARCH)
	if s.Node != "" {
		gauge(node, 1, text(s.Node))
	}
	gauge(generation, float64(s.Generation), "running")
	gauge(generation, float64(s.Newest), "newest")
	gauge(generation, float64(s.LastGood), "last-good")
	for _, p := range phases {
		gauge(phase, yes(p == s.Phase), p)
	}
	gauge(healthy, yes(s.Healthy))
	gauge(well, yes(s.Well))
	gauge(connected, yes(s.Connected))
	gauge(rt, yes(s.RuntimeUp))
	if s.Contact > 0 {
		gauge(contact, float64(s.Contact))
	}
	counter(pulls, s.Pulls)
	counter(pullErrors, s.PullErrors)
	counter(refusals, s.Refusals)
	counter(rollbacks, s.Rollbacks)
	gauge(streams, float64(s.Streams))
	counter(denied, s.Denied)
	gauge(count, float64(len(s.Containers)))
	told := s.Containers[:min(len(s.Containers), MaxContainers)]
	gauge(left, float64(len(s.Containers)-len(told)))
	seen := map[[2]string]bool{}
	for _, x := range told {
		k := [2]string{text(x.App), text(x.Name)}
		if seen[k] { // twice the same would spoil the whole scrape
			continue
		}
		seen[k] = true
		gauge(state, 1, k[0], k[1], known(x.State))
		gauge(ok, yes(x.Healthy), k[0], k[1])
		counter(restarts, uint64(max(x.Restarts, 0)), k[0], k[1])
	}
}

// known keeps the label to the states of wire.Instance.
func known(s string) string {
	if slices.Contains([]string{"absent", "created", "running", "paused", "exited", "lost"}, s) {
		return s
	}
	return "unknown"
}

func text(s string) string { return strings.ToValidUTF8(s, "?") }

func yes(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
