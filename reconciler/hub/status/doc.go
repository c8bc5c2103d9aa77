// Package status keeps what nodes report.
//
// Inputs: the roster (what Git wants), statuses and events of nodes as bytes that nobody
// checked yet, and who is connected. Outputs: the shapes of hubapi (nodes, instances,
// apps, events, charts, changes, a summary), a stream of updates, and fleet metrics.
//
// # Readiness
//
//   - Waiting: the node is in Git without a key; there is nothing to hear.
//   - Unknown: nothing was heard of it for wire.UnknownAfter, or ever. After a start of
//     the hub, nodes that were known when it stopped have that long to report again.
//   - NotReady: it reports, and one of these holds; Why names the first: the node says
//     that it is not well, which it also does while it applies a state; a stopping condition
//     (RuntimeDown, Store, Rejected, Refused, Behind); Git has no state for it; it does not
//     run the wanted generation though that was published more than a minute ago. Within that
//     minute a node that is well stays Ready: an ordinary change does not turn a fleet yellow.
//   - Ready: everything else. Pressure on disk or memory, a clock that is off and a held
//     node are conditions to look at and stop nothing by themselves.
//
// A node is converged when it runs the wanted generation, or a newer one, as far as it was heard.
//
// Conditions that only the hub can tell: Behind, the alarm of a frozen registry: the node
// reports, the wanted generation is older than two minutes and the node has not pulled it
// (one that rejected it, or that a person holds, is no such node). ClockOff: the node's
// clock differs from the hub's by more than 30 seconds in the best of several statuses,
// so that one that was late on the way alarms nobody. Identity: the node runs the wanted
// generation and grants the hub something else than Git says.
//
// # Guarantees
//
// What nodes say is bounded in size, count and rate, stripped of control characters and
// never trusted for the name: a message is of the node whose subject it came on. What is
// refused is dropped, counted, and told in an event of the node at most once a minute. Nodes
// that Git does not list are not kept; their events are, for a day. Everything survives a
// restart; a hub that is killed loses seconds of it. A damaged file is moved aside.
//
// The package talks to nobody and decides no access: callers say what may be seen.
// Values that it returns share memory with it and are not to be changed.
package status
