package api

import (
	"net/http"

	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

// Base is where the API is served.
const Base = "/api/v1"

// Media types of answers that are not JSON.
const (
	mediaJSON   = "application/json"
	mediaText   = "text/plain"
	mediaEvents = "text/event-stream"
	mediaSocket = "websocket" // none: the connection is upgraded
)

// route is one operation: the mux and the document are made of it.
type route struct {
	method  string
	pattern string // below Base, as http.ServeMux has it
	id      string // operationId
	summary string
	doc     string
	params  []param
	body    any    // zero value of what is to be sent; nil: nothing
	answer  any    // zero value of what comes back; nil: no content
	media   string // "": JSON
	public  bool   // needs no token

	give   func(*exchange) (any, error)                     // of JSON and of no content
	stream func(*exchange, http.ResponseWriter) (err error) // of other media; an error before anything is written becomes a problem
}

// tagged reports whether answers carry an ETag. The audit log is nobody's to keep.
func (rt route) tagged() bool {
	return rt.method == http.MethodGet && rt.stream == nil && rt.id != "audit"
}

var (
	paramNode = param{name: "node", doc: "Name of the node.", path: true}

	paramLimit    = param{name: "limit", doc: "Most items of a page; 100 if absent.", kind: number, min: 1, max: 1000}
	paramContinue = param{name: "continue", doc: "The member continue of the page before."}
	page          = []param{paramLimit, paramContinue}

	paramSince = param{name: "since", doc: "What came at or after this time (RFC 3339), or at most so long ago, such as 15m.", kind: sinceAgo, max: 64}

	// choose is what chooses nodes, and what is on them.
	choose = []param{
		{name: "labels", doc: "A selector as kubectl writes it, such as role=gateway,line!=2,site in (a,b).", max: 4096},
		{name: "workspace", doc: "Of this workspace, by its path."},
		{name: "folder", doc: "Of workspaces at this path or below."},
		{name: "status", doc: "Nodes in this state; repeat it for any of several.", kind: oneOf, words: states, repeated: true},
		{name: "app", doc: "Nodes that should run this app."},
		{name: "condition", doc: "Nodes where a condition of this type holds, such as Behind."},
		{name: "q", doc: "Part of a name, in any case."},
	}

	events = []param{
		{name: "workspace", doc: "Of this workspace, by its path."},
		{name: "folder", doc: "Of workspaces at this path or below."},
		{name: "app", doc: "About this app."},
		{name: "reason", doc: "With this reason, such as RolledBack."},
		{name: "severity", doc: "At least this severe.", kind: oneOf, words: []string{"info", "warning", "error"}},
		{name: "q", doc: "Part of the message, in any case."},
		{name: "after", doc: "ID of an event: what came later, oldest first."},
		paramSince,
	}

	container = []param{
		{name: "app", doc: "Name of the app."},
		{name: "container", doc: "Name of its container; absent: the only one, or for logs all of them with their name in front."},
	}
)

var states = []string{string(hubapi.Ready), string(hubapi.NotReady), string(hubapi.Unknown), string(hubapi.Waiting)}

// sort is what a list can be sorted by.
func sort(words ...string) []param {
	var all []string
	for _, w := range words {
		all = append(all, w, "-"+w)
	}
	return []param{{name: "sort", doc: "What to sort by; a minus in front turns it round.", kind: oneOf, words: all}}
}

// with joins lists of parameters.
func with(lists ...[]param) (all []param) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// routes is the API.
func routes() []route {
	return []route{
		{method: "GET", pattern: "/whoami", id: "whoami", summary: "Who the token is of",
			doc: "Needs no role.", answer: hubapi.Whoami{}, give: whoami},
		{method: "GET", pattern: "/summary", id: "summary", summary: "Count what the caller may see", answer: hubapi.Summary{}, give: summary},

		{method: "GET", pattern: "/nodes", id: "nodes", summary: "List nodes",
			params: with(choose, sort("name", "workspace", "status", "cpu", "memory", "restarts", "lastSeen"), page), answer: hubapi.List[hubapi.Node]{}, give: nodes},
		{method: "GET", pattern: "/nodes/{node}", id: "node", summary: "All that is known of a node",
			params: []param{paramNode}, answer: hubapi.NodeDetail{}, give: node},
		{method: "GET", pattern: "/nodes/{node}/events", id: "nodeEvents", summary: "List events of a node, newest first",
			params: with([]param{paramNode}, events, page), answer: hubapi.List[hubapi.Event]{}, give: nodeEvents},
		{method: "GET", pattern: "/nodes/{node}/metrics", id: "metrics", summary: "The history of what a node and its instances use",
			doc:    "A sample each 10 seconds of the last ten minutes, and one each minute of the hour before.",
			params: []param{paramNode, paramSince}, answer: hubapi.Metrics{}, give: metrics},
		{method: "GET", pattern: "/nodes/{node}/logs", id: "logs", summary: "What a container or the agent printed",
			doc: "The answer is a stream that ends with what is asked for or, with follow, with the container, the caller's right or the token. " +
				"The node sends no faster than the caller reads. If it did not end well, the trailer " + hubapi.TrailerError + " holds a Problem as JSON. " +
				"Needs `remote: logs: true` of the node in Git.",
			params: with([]param{paramNode}, container, []param{
				{name: "agent", doc: "Of the agent instead of an app.", kind: boolean},
				{name: "previous", doc: "Of runs that ended, as far as they are kept.", kind: boolean},
				{name: "follow", doc: "Go on with what is printed from now on.", kind: boolean},
				{name: "since", doc: "What was printed at or after this time (RFC 3339) by the node's clock, or at most so long ago, such as 15m.", kind: sinceAgo, max: 64},
				{name: "tail", doc: "The last so many lines; 0: all, -1: none of the past.", kind: number, min: -1, max: 10_000_000},
				{name: "timestamps", doc: "The time in front of each line.", kind: boolean},
			}), media: mediaText, stream: logs},
		{method: "GET", pattern: "/nodes/{node}/exec", id: "exec", summary: "Run a command in a container, over a WebSocket",
			doc: "Binary messages carry one byte for the channel and then data: 0 stdin (to the hub), 1 stdout, 2 stderr (from it). " +
				"Text messages are ExecMessages: the terminal's size and the end of stdin to the hub, from it as the last message the exit code or an error. " +
				"While the command takes no input the hub reads nothing. Every 15 seconds it sends a message on channel 1 without data, to tell that it is there. " +
				"A caller may tell the same with empty ExecMessages; once they did, and nothing came of them for a minute, the command is ended. " +
				"Needs `remote: exec: true` of the node in Git, and editor.",
			params: with([]param{paramNode}, container, []param{
				{name: "command", doc: "A word of the command; repeat it for each.", max: 16 << 10, repeated: true, required: true},
				{name: "tty", doc: "Run it in a terminal.", kind: boolean},
				{name: "stdin", doc: "Connect stdin.", kind: boolean},
				{name: "rows", doc: "Of the terminal.", kind: number, min: 1, max: 65535},
				{name: "columns", doc: "Of the terminal.", kind: number, min: 1, max: 65535},
			}), answer: hubapi.ExecMessage{}, media: mediaSocket, stream: exec},
		{method: "POST", pattern: "/nodes/{node}/restart", id: "restart", summary: "Restart an app of a node, or one container of it",
			doc:    "Needs `remote: restart: true` of the node in Git, and editor. Answers when the node has done it.",
			params: []param{paramNode}, body: hubapi.RestartRequest{}, give: restart},

		{method: "GET", pattern: "/apps", id: "apps", summary: "List apps with how they do",
			params: with(choose, []param{{name: "sort", doc: "By workspace and name: there is no other order.", kind: oneOf, words: []string{"name"}}}, page), answer: hubapi.List[hubapi.App]{}, give: apps},
		{method: "GET", pattern: "/instances", id: "instances", summary: "List containers of apps on nodes",
			params: with(choose, sort("name", "cpu", "memory", "restarts"), page), answer: hubapi.List[hubapi.Instance]{}, give: instances},
		{method: "GET", pattern: "/events", id: "events", summary: "List events, newest first",
			params: with([]param{{name: "node", doc: "Of this node."}}, events, page), answer: hubapi.List[hubapi.Event]{}, give: allEvents},
		{method: "GET", pattern: "/changes", id: "changes", summary: "List commits that took effect, newest first",
			params: page, answer: hubapi.List[hubapi.Change]{}, give: changes},
		{method: "GET", pattern: "/changes/{commit}", id: "change", summary: "How far a commit got, node by node",
			params: []param{{name: "commit", doc: "The hash of the commit, or the start of it.", path: true}}, answer: hubapi.Change{}, give: change},
		{method: "GET", pattern: "/watch", id: "watch", summary: "Follow what changes, as server-sent events",
			doc: "The field event is node, removed, event or summary; data is an Update with the member of that name. Updates of one node that a slow reader " +
				"has not taken are merged. Events carry an id, and so does the start, which is nothing else: with Last-Event-ID those that came since and match, " +
				"the newest 1,000 at most, are sent after the nodes. " +
				"The event end, with a Problem, is the last one when the caller's rights change or the token expires. A comment comes every 15 seconds.",
			params: with(choose, []param{
				{name: "node", doc: "This node only."},
				{name: "initial", doc: "Whether to begin with all that matches now; true if absent.", kind: boolean},
			}), answer: hubapi.Update{}, media: mediaEvents, stream: watch},

		{method: "GET", pattern: "/guides", id: "guides", summary: "List guides by which nodes may join",
			params: page, answer: hubapi.List[hubapi.Guide]{}, give: guides},
		{method: "POST", pattern: "/join-tokens", id: "joinTokens", summary: "Make tokens that let nodes ask to join",
			doc: "Each works once. Needs editor at the guide's scope.", body: hubapi.JoinTokenRequest{}, answer: hubapi.JoinTokens{}, give: joinTokens},
		{method: "GET", pattern: "/pending", id: "pending", summary: "List nodes that wait for approval",
			doc: "Those of scopes where the caller is editor.", params: page, answer: hubapi.List[hubapi.Pending]{}, give: pending},
		{method: "DELETE", pattern: "/pending/{code}", id: "dropPending", summary: "Forget a node that waits",
			params: []param{{name: "code", doc: "The code that names it.", path: true}}, give: dropPending},
		{method: "GET", pattern: "/audit", id: "audit", summary: "List what was done, newest first",
			doc: "Entries of scopes where the caller is admin. They are not counted: total is -1. A page may be empty and yet have another one after it.",
			params: with([]param{
				{name: "subject", doc: "By this one, such as user:ana."},
				{name: "operation", doc: "This operation, such as exec."},
				{name: "node", doc: "On this node."},
			}, page), answer: hubapi.List[hubapi.AuditEntry]{}, give: auditLog},

		{method: "GET", pattern: "/openapi.json", id: "openapi", summary: "This document", answer: document{}, public: true, give: openapi},
	}
}

// document stands for the OpenAPI document itself.
type document map[string]any

// enums are the values of string types and fields that have but a few.
var enums = map[string][]string{
	"Readiness":          states,
	"Event.severity":     {"info", "warning", "error"},
	"ChangeNode.state":   {"done", "failed", "applying", "waiting", "unknown"},
	"wire.Error.code":    {wire.CodeDenied, wire.CodeNotFound, wire.CodeInvalid, wire.CodeBusy, wire.CodeUnavailable, wire.CodeFailed},
	"AuditEntry.outcome": {hubapi.OutcomeBegun, hubapi.OutcomeDone, hubapi.OutcomeFailed, hubapi.OutcomeRefused, hubapi.OutcomeNoted},
}
