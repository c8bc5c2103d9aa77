// Package follow keeps the newest roster.
//
// In: the reconciler's stream, over a unix socket or mutual TLS. Out: a View of the fleet that
// never changes under its reader, what each change was, and a transport to the same
// reconciler for its store of states.
//
// Guarantees: events of one change are applied together or not at all; what is malformed or
// too large is refused and asked for anew; the last roster is kept in a file, so that a hub
// starts without the reconciler; a lost connection is tried again for ever, and nothing
// is forgotten meanwhile. It decides nothing about people or nodes.
package follow
