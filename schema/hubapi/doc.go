// Package hubapi is the shapes of the hub's REST API, /api/v1.
//
// Lists are {"items": […], "continue": "…"}; errors are problems (RFC 9457,
// application/problem+json). docs/reference/openapi.json describes every route; the server, the
// Go client and the console share these types.
package hubapi

import (
	"time"

	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// MediaTypeProblem is the media type of errors.
const MediaTypeProblem = "application/problem+json"

// Problem is an error (RFC 9457).
type Problem struct {
	Type     string `json:"type,omitempty"` // a URN; empty: about:blank
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail,omitempty"` // cause and next step
	Instance string `json:"instance,omitempty"`
	// Reason is for programs, e.g. notFound, forbidden, offline; see the Reason constants.
	Reason string `json:"reason,omitempty"`
	Scope  string `json:"scope,omitempty"` // where a right is missing
	Needs  string `json:"needs,omitempty"` // the role that would do
}

func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return p.Title
}

// Reasons of problems.
const (
	ReasonUnauthorized = "unauthorized" // no token, or one that is not valid
	ReasonForbidden    = "forbidden"    // no role that allows it
	ReasonDenied       = "denied"       // the node's signed state does not grant it
	ReasonNotFound     = "notFound"
	ReasonInvalid      = "invalid"
	ReasonOffline      = "offline" // the node is not connected
	ReasonTimeout      = "timeout" // it did not answer in time
	ReasonBusy         = "busy"
	ReasonConflict     = "conflict"
	ReasonUnavailable  = "unavailable" // the hub itself, or what is behind it, or a container that does not run; ask again
	ReasonFailed       = "failed"      // the node tried, and it did not work
)

// List is a page of items. Continue, if not empty, is the parameter for the next page.
type List[T any] struct {
	Items    []T    `json:"items"`
	Continue string `json:"continue,omitempty"`
	Total    int    `json:"total"` // that match, on all pages
}

// Readiness is a node's state at a glance.
type Readiness string

// The states of a node.
const (
	Ready    Readiness = "Ready"    // runs the newest state, in health
	NotReady Readiness = "NotReady" // reports, and is not well or behind
	Unknown  Readiness = "Unknown"  // not heard of for wire.UnknownAfter
	Waiting  Readiness = "Waiting"  // in Git without an identity: nothing to hear
)

// Node is a node at a glance.
type Node struct {
	Name       string            `json:"name"`
	Workspace  string            `json:"workspace"`
	Labels     map[string]string `json:"labels,omitempty"`
	Status     Readiness         `json:"status"`
	Why        string            `json:"why,omitempty"` // it is not Ready
	Connected  bool              `json:"connected"`
	LastSeen   time.Time         `json:"lastSeen,omitzero"` // by the hub's clock
	Wanted     wire.Ref          `json:"wanted,omitzero"`   // what Git says: the newest published state
	Pulled     wire.Ref          `json:"pulled,omitzero"`
	Applied    wire.Ref          `json:"applied,omitzero"`
	LastGood   wire.Ref          `json:"lastGood,omitzero"`
	Apps       int               `json:"apps"`    // that should run
	Healthy    int               `json:"healthy"` // of them
	Restarts   int               `json:"restarts"`
	Version    string            `json:"version,omitempty"` // of the agent
	Usage      *wire.Usage       `json:"usage,omitempty"`
	Conditions []wire.Condition  `json:"conditions,omitempty"`
}

// NodeDetail is all that is known of a node.
type NodeDetail struct {
	Node
	PublicKey string       `json:"publicKey,omitempty"`
	Held      string       `json:"held,omitempty"`      // why it keeps an earlier state, by the reconciler
	Report    *wire.Status `json:"report,omitempty"`    // the node's own words, the last
	ClockSkew string       `json:"clockSkew,omitempty"` // node minus hub, as a Go duration; empty within a second
}

// Instance is one container of an app somewhere.
type Instance struct {
	Node      string `json:"node"`
	Workspace string `json:"workspace"`
	App       string `json:"app"`
	wire.Instance
	Stale bool `json:"stale,omitempty"` // the node is Unknown: this was so when it was last heard of
}

// App is an app of a workspace with how it does.
type App struct {
	Name      string `json:"name"`
	Workspace string `json:"workspace"`
	Scope     string `json:"scope"`   // where it is declared
	Nodes     int    `json:"nodes"`   // that should run it
	Healthy   int    `json:"healthy"` // nodes where it is
	Unknown   int    `json:"unknown"` // nodes not heard of
}

// Event is something that happened, on a node or in the hub.
type Event struct {
	ID        string    `json:"id"` // grows in the order in which the hub got to know of it
	Node      string    `json:"node,omitempty"`
	Workspace string    `json:"workspace,omitempty"`
	Received  time.Time `json:"received"` // by the hub's clock
	wire.Event
}

// Sample is a point of a chart.
type Sample struct {
	Time   time.Time `json:"time"`
	CPU    float64   `json:"cpu"`    // cores
	Memory int64     `json:"memory"` // bytes
}

// Metrics is the history of a node and its instances ("app/container"), oldest first.
type Metrics struct {
	Node      []Sample            `json:"node"`
	Instances map[string][]Sample `json:"instances,omitempty"`
}

// Change is a commit and how far it got.
type Change struct {
	roster.Commit
	At      time.Time    `json:"at"`
	Touched int          `json:"touched"` // nodes
	Done    int          `json:"done"`    // run it, or something newer, proven
	Failed  int          `json:"failed"`  // rejected it
	Removed int          `json:"removed"`
	Nodes   []ChangeNode `json:"nodes,omitempty"` // with one change asked for
}

// ChangeNode is how far a change got on a node.
type ChangeNode struct {
	Node       string `json:"node"`
	Workspace  string `json:"workspace"`
	Generation int64  `json:"generation"`
	State      string `json:"state"` // done, failed, applying, waiting, unknown
}

// Summary counts what somebody may see of the fleet.
type Summary struct {
	Platform   string             `json:"platform"`
	Seen       roster.Commit      `json:"seen"`
	InForce    roster.Commit      `json:"inForce"`
	Error      string             `json:"error,omitempty"`
	Problems   []roster.Problem   `json:"problems,omitempty"`
	Nodes      int                `json:"nodes"`
	Status     map[Readiness]int  `json:"status"`
	Converged  int                `json:"converged"`            // run the newest state
	Conditions map[string]int     `json:"conditions,omitempty"` // by type
	Pending    int                `json:"pending"`              // nodes that wait for approval
	Workspaces []WorkspaceSummary `json:"workspaces,omitempty"`
}

// WorkspaceSummary is a Summary's line.
type WorkspaceSummary struct {
	Path      string            `json:"path"`
	Title     string            `json:"title,omitempty"`
	Nodes     int               `json:"nodes"`
	Converged int               `json:"converged"`
	Status    map[Readiness]int `json:"status"`
}

// Pending is a node that joined and waits for approval.
type Pending struct {
	Code      string            `json:"code"`  // names it to people
	Guide     string            `json:"guide"` // SCOPE/NAME
	Scope     string            `json:"scope"` // the guide's
	Name      string            `json:"name"`  // proposed: the guide's prefix and a random code
	Labels    map[string]string `json:"labels,omitempty"`
	PublicKey string            `json:"publicKey"`
	Recipient string            `json:"recipient,omitempty"`
	Proof     wire.JoinProof    `json:"proof"` // that the node itself gave recipient
	Machine   wire.Machine      `json:"machine"`
	Address   string            `json:"address"` // it dialed from
	At        time.Time         `json:"at"`
	Expires   time.Time         `json:"expires"` // then it is forgotten
}

// Guide is a guide as its users see it.
type Guide struct {
	roster.Guide
	Nodes   int `json:"nodes"` // under its prefix and scope
	Pending int `json:"pending"`
}

// JoinTokenRequest asks for join tokens.
type JoinTokenRequest struct {
	Guide string `json:"guide"`           // its name, or SCOPE/NAME
	TTL   string `json:"ttl,omitempty"`   // a Go duration; empty: 1h; at most 24h
	Count int    `json:"count,omitempty"` // 0: 1; at most 1,000; each lets one node in
}

// JoinTokens are what the line to run on a new node is made of.
type JoinTokens struct {
	Tokens      []string  `json:"tokens"`
	Expires     time.Time `json:"expires"`
	Hub         string    `json:"hub"`
	CA          string    `json:"ca,omitempty"` // sha256: of the CA's certificate (DER); empty: a public CA
	Fingerprint string    `json:"fingerprint"`  // of the first root document
}

// RestartRequest names what to restart.
type RestartRequest struct {
	App       string `json:"app"`
	Container string `json:"container,omitempty"` // empty: all of the app
}

// Whoami is the caller.
type Whoami struct {
	Subject string           `json:"subject"` // user:NAME or service:NAME
	Groups  []string         `json:"groups,omitempty"`
	Token   string           `json:"token"` // its name
	Expires time.Time        `json:"expires"`
	Roles   []roster.Binding `json:"roles"` // that apply, after the token's own bounds
}

// ExecMessage is a message of an exec WebSocket. Binary messages carry one byte for the
// channel, then data: 0 stdin (to the hub), 1 stdout, 2 stderr (from it). Text messages are
// ExecMessages; an empty one tells the hub that the caller is there.
type ExecMessage struct {
	Rows     uint16      `json:"rows,omitempty"` // to the hub
	Columns  uint16      `json:"columns,omitempty"`
	EOF      bool        `json:"eof,omitempty"`      // to the hub: stdin ended
	ExitCode *int        `json:"exitCode,omitempty"` // from the hub: the last message
	Error    *wire.Error `json:"error,omitempty"`
}

// Channels of binary messages of an exec WebSocket.
const (
	ChannelIn  byte = 0
	ChannelOut byte = 1
	ChannelErr byte = 2
)

// Update is one server-sent event of GET /api/v1/watch: its "event" field is Kind, its data
// the member of that kind. The first one is a start, which has an ID and nothing else.
type Update struct {
	Kind    string   `json:"-"` // start, node, removed, event, summary
	ID      string   `json:"-"` // with start and event: what to go on behind
	Node    *Node    `json:"node,omitempty"`
	Removed string   `json:"removed,omitempty"`
	Event   *Event   `json:"event,omitempty"`
	Summary *Summary `json:"summary,omitempty"`
}
