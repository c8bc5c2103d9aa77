// Package wire is what agents and hubs say to each other over the live connection: subjects,
// messages, streams, and the exchange that opens it.
//
// Messages are JSON; unknown fields are ignored by both sides, so that old agents and new
// hubs understand each other. Nothing here can change what a node should run: that is
// nodestate's alone. docs/bus.md describes the protocol.
//
// The package holds shapes, bounds and their checks, and does no input or output.
package wire
