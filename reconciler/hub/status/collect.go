package status

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

// counters are what the store counts itself.
type counters struct {
	reports, events, restarts prometheus.Counter
	dropped                   *prometheus.CounterVec
	watchers                  prometheus.Gauge
}

func (c *counters) init() {
	c.reports = prometheus.NewCounter(prometheus.CounterOpts{Name: "selvedge_fleet_reports_total", Help: "Statuses of nodes taken."})
	c.events = prometheus.NewCounter(prometheus.CounterOpts{Name: "selvedge_fleet_events_total", Help: "Events of nodes taken."})
	c.restarts = prometheus.NewCounter(prometheus.CounterOpts{Name: "selvedge_fleet_instance_restarts_total", Help: "Restarts of containers, from one status of a node to the next; at most 100 a status."})
	c.dropped = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "selvedge_fleet_reports_dropped_total", Help: "Statuses and events of nodes dropped."}, []string{"reason"})
	for _, r := range []string{"unlisted", "flood", "oversized", "foreign", "malformed", "old", "full"} {
		c.dropped.WithLabelValues(r)
	}
	c.watchers = prometheus.NewGauge(prometheus.GaugeOpts{Name: "selvedge_fleet_watchers", Help: "Readers of live updates."})
}

func (c *counters) drop(reason string) { c.dropped.WithLabelValues(reason).Inc() }

// labelWorkspaces bounds a label that comes from Git: the largest ones; the rest is "other".
const labelWorkspaces = 100

var (
	nodesDesc     = prometheus.NewDesc("selvedge_fleet_nodes", "Nodes in Git, by status.", []string{"status"}, nil)
	convergedDesc = prometheus.NewDesc("selvedge_fleet_nodes_converged", "Nodes that run the newest state, as far as they were heard.", nil, nil)
	connectedDesc = prometheus.NewDesc("selvedge_fleet_nodes_connected", "Nodes with a live connection.", nil, nil)
	silentDesc    = prometheus.NewDesc("selvedge_fleet_nodes_silent", "Nodes that are Unknown and have reported before: those that never did are not installed yet.", nil, nil)
	conditionDesc = prometheus.NewDesc("selvedge_fleet_nodes_by_condition", "Nodes with a condition; one with what only nodes know is other.", []string{"condition"}, nil)
	lagDesc       = prometheus.NewDesc("selvedge_fleet_generation_lag_seconds", "The longest time that a node that reports has not run the generation wanted.", nil, nil)
	instancesDesc = prometheus.NewDesc("selvedge_fleet_instances", "Containers on nodes that report, by state.", []string{"state"}, nil)
	storedDesc    = prometheus.NewDesc("selvedge_fleet_events_stored", "Events kept.", nil, nil)
	spaceDesc     = prometheus.NewDesc("selvedge_fleet_workspace_nodes", "Nodes of the largest workspaces, by status; the rest is other.", []string{"workspace", "status"}, nil)
	spaceConvDesc = prometheus.NewDesc("selvedge_fleet_workspace_nodes_converged", "Nodes of the largest workspaces that run the newest state; the rest is other.", []string{"workspace"}, nil)
)

// Collectors are the metrics of the fleet. No label names a node.
func (s *Store) Collectors() []prometheus.Collector {
	return []prometheus.Collector{s.counts.reports, s.counts.events, s.counts.restarts, s.counts.dropped, s.counts.watchers, collector{s}}
}

type collector struct{ s *Store }

// Describe implements prometheus.Collector.
func (c collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{nodesDesc, convergedDesc, connectedDesc, silentDesc, conditionDesc, lagDesc, instancesDesc, storedDesc, spaceDesc, spaceConvDesc} {
		to <- d
	}
}

var readinesses = []hubapi.Readiness{hubapi.Ready, hubapi.NotReady, hubapi.Unknown, hubapi.Waiting}

// other is the label of all that has no series of its own.
const other = "other"

// states of containers; what nodes call otherwise is "other".
var states = []string{"absent", "created", "running", "paused", "exited", "lost"}

// conditions that have a series each; a node may report others, which are "other".
var conditions = []string{wire.ConditionDiskPressure, wire.ConditionMemoryPressure, wire.ConditionRuntimeDown, wire.ConditionHeld, wire.ConditionRejected,
	wire.ConditionRefused, wire.ConditionStore, wire.ConditionClockOff, wire.ConditionBehind, wire.ConditionIdentity}

// Collect implements prometheus.Collector.
func (c collector) Collect(to chan<- prometheus.Metric) {
	s := c.s
	sum := s.Summary(nil)
	instances, holding := map[string]int{}, map[string]int{}
	var connected, silent, stored int
	var lag time.Duration
	s.mu.RLock()
	now := s.now()
	for _, r := range s.order {
		if r.connected {
			connected++
		}
		strange := false
		for i := range r.conditions {
			if t := r.conditions[i].Type; slices.Contains(conditions, t) {
				holding[t]++
			} else {
				strange = true
			}
		}
		if strange {
			holding[other]++
		}
		if r.ready == hubapi.Unknown && r.report != nil {
			silent++
		}
		if r.report == nil || r.ready == hubapi.Unknown || r.ready == hubapi.Waiting {
			continue
		}
		if !r.converged && r.want.Generation > 0 {
			lag = max(lag, now.Sub(r.wantSince))
		}
		for i := range r.report.Apps {
			for j := range r.report.Apps[i].Containers {
				state := r.report.Apps[i].Containers[j].State
				if !slices.Contains(states, state) {
					state = other
				}
				instances[state]++
			}
		}
	}
	stored = s.journal.live
	s.mu.RUnlock()

	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, r := range readinesses {
		gauge(nodesDesc, float64(sum.Status[r]), string(r))
	}
	gauge(convergedDesc, float64(sum.Converged))
	gauge(connectedDesc, float64(connected))
	gauge(silentDesc, float64(silent))
	gauge(lagDesc, lag.Seconds())
	gauge(storedDesc, float64(stored))
	for _, st := range append(slices.Clip(states), other) {
		gauge(instancesDesc, float64(instances[st]), st)
	}
	for _, t := range append(slices.Clip(conditions), other) {
		gauge(conditionDesc, float64(holding[t]), t)
	}
	c.workspaces(sum.Workspaces, gauge)
}

func (c collector) workspaces(list []hubapi.WorkspaceSummary, gauge func(*prometheus.Desc, float64, ...string)) {
	if len(list) > labelWorkspaces {
		slices.SortFunc(list, func(a, b hubapi.WorkspaceSummary) int {
			return cmp.Or(b.Nodes-a.Nodes, cmp.Compare(a.Path, b.Path))
		})
		rest := hubapi.WorkspaceSummary{Path: other, Status: map[hubapi.Readiness]int{}}
		for _, w := range list[labelWorkspaces:] {
			rest.Converged += w.Converged
			for k, n := range w.Status {
				rest.Status[k] += n
			}
		}
		list = append(list[:labelWorkspaces:labelWorkspaces], rest)
	}
	for _, w := range list {
		for _, r := range readinesses {
			gauge(spaceDesc, float64(w.Status[r]), w.Path, string(r))
		}
		gauge(spaceConvDesc, float64(w.Converged), w.Path)
	}
}
