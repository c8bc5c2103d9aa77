package status

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// Config configures a Store.
type Config struct {
	Path string           // of the file; its folder must exist
	Log  *slog.Logger     // nil: discards
	Now  func() time.Time // nil: the clock
}

// Store keeps what is known of nodes. It is safe for concurrent use.
type Store struct{}

// Open reads the file, or makes it.
func Open(Config) (*Store, error) { return &Store{}, nil }

// Run tells time and writes the file until ctx ends.
func (*Store) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Close writes and closes the file.
func (*Store) Close() error { return nil }

// Want tells which nodes Git has. With reset, those that are not among nodes are gone.
func (*Store) Want(reset bool, nodes map[string]roster.Node, removed []string) {}

// Fleet tells what Git says besides nodes.
func (*Store) Fleet(roster.Fleet) {}

// Changes tells commits that took effect, oldest first; those known already are left.
func (*Store) Changes([]roster.Change) {}

// Report takes a wire.Status that came on the subject of node.
func (*Store) Report(node string, data []byte) {}

// Events takes wire.Events that came on the subject of node.
func (*Store) Events(node string, data []byte) {}

// Presence tells that a node connected, or that its connection ended.
func (*Store) Presence(node string, connected bool) {}

// Note keeps an event of the hub's own; node may be empty. Time and Seq are filled in.
func (*Store) Note(node string, e wire.Event) {}

// Nodes lists nodes.
func (*Store) Nodes(Query) (hubapi.List[hubapi.Node], error) { return hubapi.List[hubapi.Node]{}, nil }

// Node tells all that is known of a node.
func (*Store) Node(name string) (hubapi.NodeDetail, bool) { return hubapi.NodeDetail{}, false }

// Instances lists containers: Search is for a part of node, app, container or image, App for the one app.
func (*Store) Instances(Query) (hubapi.List[hubapi.Instance], error) {
	return hubapi.List[hubapi.Instance]{}, nil
}

// Apps lists apps by workspace, counting the nodes that the query chooses.
func (*Store) Apps(Query) (hubapi.List[hubapi.App], error) { return hubapi.List[hubapi.App]{}, nil }

// EventList lists events.
func (*Store) EventList(EventQuery) (hubapi.List[hubapi.Event], error) {
	return hubapi.List[hubapi.Event]{}, nil
}

// Metrics returns the history of a node since then: a sample each 10 seconds of the last ten
// minutes, and one each minute of the hour before.
func (*Store) Metrics(node string, since time.Time) (hubapi.Metrics, bool) {
	return hubapi.Metrics{}, false
}

// ChangeList lists changes that touch something visible, newest first.
func (*Store) ChangeList(visible func(workspace string) bool, limit int, cont string) (hubapi.List[hubapi.Change], error) {
	return hubapi.List[hubapi.Change]{}, nil
}

// Change tells how far a commit got on each visible node; the start of a hash that names one only will do.
func (*Store) Change(hash string, visible func(workspace string) bool) (hubapi.Change, bool) {
	return hubapi.Change{}, false
}

// Summary counts. Pending is for the caller to fill in.
func (*Store) Summary(visible func(workspace string) bool) hubapi.Summary { return hubapi.Summary{} }

// Watch sends updates of what a query chooses until ctx ends, and then closes the channel. A slow
// reader loses intermediate states of a node and old events, never the newest. Where more than 100
// nodes match, new figures of usage alone are no update.
func (*Store) Watch(ctx context.Context, q Query) <-chan hubapi.Update {
	c := make(chan hubapi.Update)
	context.AfterFunc(ctx, func() { close(c) })
	return c
}

// Collectors are the metrics of the fleet.
func (*Store) Collectors() []prometheus.Collector { return nil }
