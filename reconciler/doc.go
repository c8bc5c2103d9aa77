// Package reconciler is the cloud's loop: it turns the newest commit of a config
// repo into one signed, published state a node.
//
// In: a Git source, a validator, a signer, a publisher and the trust directory. Out:
// states in the publisher's registry, and a Status for people.
//
// Guarantees: the last good state of every node stays published whatever happens to
// the repo; a refused workspace keeps its nodes' states and stops nobody else; only
// what changed is signed; a generation never falls; a pass that is killed anywhere is
// finished by the next one. It holds no port and no user's rights.
package reconciler
