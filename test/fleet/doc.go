// Package fleet drills a hub with a whole fleet on it: kills, cuts, floods, thieves and
// liars.
//
// The hub is a process of its own, so that it can be killed; the roster comes from a real
// feed, nodes are the agent's own uplink over TLS (package swarm), people use the real
// client. There is neither Git nor a container: test/demo and cmd have those.
package fleet
