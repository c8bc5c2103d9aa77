package hubapi

import "time"

// AuditEntry is a line of the audit log. Each carries the hash of the one before it, so that
// none can be changed or taken out unseen.
type AuditEntry struct {
	Seq       uint64    `json:"seq"`  // 1, 2, 3 …
	Time      time.Time `json:"time"` // by the hub's clock
	Prev      string    `json:"prev"` // SHA-256 of the line before, 64 hex digits; of the first line, zeros
	Subject   string    `json:"subject,omitempty"`
	Token     string    `json:"token,omitempty"`   // its name
	Remote    string    `json:"remote,omitempty"`  // address
	Request   string    `json:"request,omitempty"` // ID, the same in the hub's log
	Operation string    `json:"operation"`         // e.g. exec, restart, logs, joinTokens, dropPending
	Outcome   string    `json:"outcome"`           // one of the Outcome constants
	Scope     string    `json:"scope,omitempty"`
	Node      string    `json:"node,omitempty"`
	App       string    `json:"app,omitempty"`
	Container string    `json:"container,omitempty"`
	Command   []string  `json:"command,omitempty"`
	Detail    string    `json:"detail,omitempty"`
}

// Outcomes of what the audit log tells. What takes time has two lines: begun, and how it
// ended.
const (
	OutcomeBegun   = "begun"
	OutcomeDone    = "done"
	OutcomeFailed  = "failed"  // it was tried, and did not work
	OutcomeRefused = "refused" // no right to it
	OutcomeNoted   = "noted"   // something that the log says of itself
)

// TrailerError is the HTTP trailer of a log stream that did not end well: a Problem as JSON.
const TrailerError = "Selvedge-Error"
