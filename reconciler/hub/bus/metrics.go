package bus

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// counters count since the start.
type counters struct {
	statuses, events, requests, frames             atomic.Int64
	coalesced, flooded, malformed, oversized       atomic.Int64
	slow, revocations, kicked, twice               atomic.Int64
	tunnelled, tunnelFull, tunnelRefused, overruns atomic.Int64
}

// slowConsumers counts those of the embedded server.
func (b *Bus) slowConsumers() float64 {
	if b.link.Load() == nil || b.srv == nil { // in this order: link is set after srv
		return 0
	}
	return float64(b.srv.NumSlowConsumers())
}

// Collectors returns the metrics of the bus.
func (b *Bus) Collectors() []prometheus.Collector {
	var all []prometheus.Collector
	counter := func(name, help string, label, value string, v *atomic.Int64) {
		o := prometheus.CounterOpts{Namespace: "selvedge", Subsystem: "bus", Name: name, Help: help}
		if label != "" {
			o.ConstLabels = prometheus.Labels{label: value}
		}
		all = append(all, prometheus.NewCounterFunc(o, func() float64 { return float64(v.Load()) }))
	}
	gauge := func(name, help string, f func() int) {
		o := prometheus.GaugeOpts{Namespace: "selvedge", Subsystem: "bus", Name: name, Help: help}
		all = append(all, prometheus.NewGaugeFunc(o, func() float64 { return float64(f()) }))
	}
	c := &b.count
	gauge("connections", "Nodes that are connected.", func() int { return b.presence.count() })
	gauge("tunnels", "Connections that this hub passes on.", func() int { return int(b.tunnel.opened.Load()) })
	gauge("streams", "Streams from nodes that are open.", b.streams.len)
	const messages = "Messages of nodes that were taken, and requests to them."
	counter("messages_total", messages, "kind", "status", &c.statuses)
	counter("messages_total", messages, "kind", "event", &c.events)
	counter("messages_total", messages, "kind", "request", &c.requests)
	counter("messages_total", messages, "kind", "frame", &c.frames)
	const dropped = "Messages of nodes that were dropped."
	counter("dropped_total", dropped, "reason", "coalesced", &c.coalesced)
	counter("dropped_total", dropped, "reason", "flood", &c.flooded)
	counter("dropped_total", dropped, "reason", "malformed", &c.malformed)
	counter("dropped_total", dropped, "reason", "oversized", &c.oversized)
	const slow = "Connections, or the hub's own subscriptions, that did not keep up."
	counter("slow_consumers_total", slow, "side", "hub", &c.slow)
	all = append(all, prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "selvedge", Subsystem: "bus", Name: "slow_consumers_total",
		Help: slow, ConstLabels: prometheus.Labels{"side": "server"}}, b.slowConsumers))
	counter("stream_overruns_total", "Streams that were cut off because the node ignored credit.", "", "", &c.overruns)
	counter("revocations_total", "Keys that were revoked.", "", "", &c.revocations)
	counter("kicks_total", "Connections that the hub ended.", "", "", &c.kicked)
	counter("twice_total", "Times that a node's key was found in use twice.", "", "", &c.twice)
	counter("tunnel_attempts_total", "Connections to the tunnel by outcome.", "outcome", "open", &c.tunnelled)
	counter("tunnel_attempts_total", "Connections to the tunnel by outcome.", "outcome", "full", &c.tunnelFull)
	counter("tunnel_attempts_total", "Connections to the tunnel by outcome.", "outcome", "refused", &c.tunnelRefused)
	return all
}
