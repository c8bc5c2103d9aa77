package status

import (
	"errors"
	"time"

	"selvedge/schema/hubapi"
)

// ErrQuery marks a query that makes no sense: a selector, an order or a continue token.
var ErrQuery = errors.New("invalid query")

// Query chooses nodes, and what is on them. The zero value chooses everything.
type Query struct {
	Node      string // that one only
	Workspace string
	Folder    string // workspaces there and below
	Labels    string // a selector as kubectl has it
	Status    []hubapi.Readiness
	App       string // nodes that should run it
	Search    string // part of a name or a label, in any case
	Condition string // a type that holds
	Limit     int    // 0 means 100; at most 1,000
	Continue  string // of the page before
	// Sort is name (the default), workspace, status (worst first), cpu, memory, restarts (most first) or
	// lastSeen (longest ago first); a minus in front turns it round.
	Sort    string
	Visible func(workspace string) bool // nil: everything
	// Initial makes Watch begin with all that match.
	Initial bool
}

// EventQuery chooses events.
type EventQuery struct {
	Node, Workspace, Folder string
	App, Reason, Search     string
	Severity                string    // at least: info, warning or error
	Since                   time.Time // received at or after
	After                   string    // ID: what came later, oldest first; empty: newest first
	Limit                   int       // 0 means 100; at most 1,000
	Continue                string
	Visible                 func(workspace string) bool
}
