// Package edge is the agent's loop: it keeps one node running what its newest
// verified state says, with or without the cloud.
//
// In: the node's settings, its key, its store, and a registry that may answer. Out:
// running containers, and a Status for people.
//
// Guarantees: what the store holds is started before any network is asked; a state
// that was not verified is never applied; a newer state takes over from one that is
// still on its way; a state that does not get healthy by its deadline is refused and the
// last good one runs again, as a whole; holding stops updates and nothing else;
// containers outlive the agent. The clock decides nothing about a state.
package edge
