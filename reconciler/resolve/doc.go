// Package resolve computes each node's desired state.
//
// In go an evaluated fleet and what was accepted before; out come one rendered state
// a node, the nodes that keep their last state and why, and problems for people. The
// result depends on these two alone: no clock, no I/O, no order of a map. A Resolver
// remembers what it rendered of workspaces that did not change, and a test shows that
// this alters nothing.
//
// A workspace is accepted or refused as a whole. It is refused when it could not be
// evaluated, when two of its parts contradict each other, and when it claims a name or
// a key that belongs to a node elsewhere. The nodes of a refused workspace are held:
// they keep their last state, and their names and keys, so that nobody takes them over
// in the meantime. So are nodes on their way into a refused workspace. All other
// workspaces go on.
//
// The package does not look at what the schema and the policies say: that was done,
// also for the values with overrides merged in.
package resolve
