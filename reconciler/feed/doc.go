// Package feed serves the roster to hubs.
//
// In: events that say what changed, in order, and the handler of the store of states. Out:
// the stream of package roster at [roster.Path], to any number of hubs, and the store below
// /v2/.
//
// Guarantees: that somebody loses something is on disk before a hub reads it, so that a restart
// never lets back in who was put out; a hub that connects gets the whole, then each change
// once; events of one change arrive together; a reader that is too slow is disconnected, and
// begins anew. As long as nothing was ever told, nothing is: an empty fleet and an unknown
// one are not the same.
//
// Who may connect is decided where the handler is listened for: see [Listen].
package feed
