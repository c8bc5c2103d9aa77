package wire

import "strings"

// Subjects of a node. Node names hold neither dots nor wildcards (nodestate.ValidNode).
//
// A node publishes on StatusSubject, EventsSubject and below StreamSubject, and answers
// requests; it subscribes to everything below RequestSubject and to its inbox. The bus
// enforces it.
func StatusSubject(node string) string { return "n." + node + ".st" }

// EventsSubject is where a node publishes Events.
func EventsSubject(node string) string { return "n." + node + ".ev" }

// StreamSubject is where a node publishes the frames of a stream; "" gives the prefix with
// its dot, for permissions.
func StreamSubject(node, stream string) string { return "n." + node + ".re." + stream }

// RequestSubject is where a node hears a verb, such as VerbNotice.
func RequestSubject(node, verb string) string { return "n." + node + ".dn." + verb }

// ControlSubject is where a node hears Control about a stream.
func ControlSubject(node, stream string) string { return RequestSubject(node, "s."+stream) }

// InboxPrefix is the prefix of a node's inbox.
func InboxPrefix(node string) string { return "n." + node + ".in" }

// NodeOf returns the node that a subject is of.
func NodeOf(subject string) (node string, ok bool) {
	rest, ok := strings.CutPrefix(subject, "n.")
	if !ok {
		return "", false
	}
	node, _, ok = strings.Cut(rest, ".")
	return node, ok && node != ""
}

// Verbs of requests from the hub.
const (
	VerbNotice  = "notice"  // Notice; no answer
	VerbReport  = "report"  // empty: send status and events now; no answer
	VerbLogs    = "logs"    // LogsRequest → Answer, then a stream
	VerbExec    = "exec"    // ExecRequest → Answer, then a stream
	VerbRestart = "restart" // RestartRequest → Answer, when it is done
)

// Bounds of messages.
const (
	MaxMessage  = 1 << 20   // any message, bytes
	MaxStatus   = 512 << 10 // a Status
	MaxEvents   = 256       // in one Events
	MaxText     = 4 << 10   // a text for people
	MaxRequest  = 64 << 10  // a request of the hub
	MaxStreams  = 32        // open at a node
	MaxInstance = 2000      // instances in a Status
)
