// Package monitoring loads the alert rules and dashboards of docs/monitoring with
// Prometheus' own tool, and needs every metric that they name to be one that is served.
package monitoring
