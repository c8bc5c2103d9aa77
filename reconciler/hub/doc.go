// Package hub is the one public port of a fleet: it wires the services for nodes and for
// people to the reconciler's roster and to the bus.
//
// In: the reconciler's roster and store, certificates, keys of the bus. Out: one HTTPS port
// with /auth/, /bus and /v2/ for nodes, /api/v1/ and the console for people, /metrics and
// /healthz for monitors.
//
// Guarantees: it holds nothing that can sign a state or write to Git; nodes run on, and keep
// their access, while the reconciler or the hub is away; what Git takes away ends at once.
package hub
