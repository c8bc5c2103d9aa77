// Package uplink holds the one outbound connection of a node: NATS over WebSocket to a hub.
//
// In: tokens of package auth, what the node knows of itself, what the state in force grants the
// hub, and hands that do what is asked. Out: statuses, events, answers, streams of frames, and a
// word when there may be something new to pull.
//
// Guarantees: whatever the hub asks is done only as far as Granted says at that moment, and an
// open stream ends when that is taken away; requests, streams, messages and what waits for the
// hub are bounded, so a hub that floods or falls silent fills no memory; each message that is no
// request is dropped. Who asks for what is logged, made fit for one line. A connection that
// breaks is made again for ever, with jitter; nothing else of the agent waits for it.
//
// It decides nothing about states and stores nothing: events are remembered as long as the
// agent runs.
package uplink
