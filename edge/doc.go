// Package edge is the agent's loop: it keeps one node running what its newest
// verified state says, with or without the cloud.
//
// In: the node's settings, its key, its store, a registry that may answer, and a hub that may be
// there. Out: running containers, a Status for people, and reports to the hub.
//
// Guarantees: what the store holds is started before any network is asked; a state
// that was not verified is never applied; a newer state takes over from one that is
// still on its way; a state that does not get healthy by its deadline is refused and the
// last good one runs again, as a whole; holding stops updates and nothing else;
// containers outlive the agent; what a hub asks is done only as far as the signed state in
// force grants it, and nothing waits for a hub. The clock decides nothing about a state.
package edge
