package api

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"selvedge/reconciler/hub/ops"
	"selvedge/schema/hubapi"
)

func whoami(x *exchange) (any, error)  { return x.c.Ops.Whoami(x.r.Context(), x.caller) }
func summary(x *exchange) (any, error) { return x.c.Ops.Summary(x.r.Context(), x.caller) }

// query makes what chooses nodes of the parameters choose and page.
func (x *exchange) query() ops.Query {
	q := ops.Query{
		Node: x.q.text("node"), Workspace: x.q.text("workspace"), Folder: x.q.text("folder"), Labels: x.q.text("labels"),
		App: x.q.text("app"), Search: x.q.text("q"), Condition: x.q.text("condition"), Sort: x.q.text("sort"),
		Limit: x.q.number("limit"), Continue: x.q.text("continue"),
	}
	for _, s := range x.q["status"] {
		q.Status = append(q.Status, hubapi.Readiness(s))
	}
	return q
}

func nodes(x *exchange) (any, error) { return x.c.Ops.Nodes(x.r.Context(), x.caller, x.query()) }
func apps(x *exchange) (any, error)  { return x.c.Ops.Apps(x.r.Context(), x.caller, x.query()) }
func instances(x *exchange) (any, error) {
	return x.c.Ops.Instances(x.r.Context(), x.caller, x.query())
}

func node(x *exchange) (any, error) {
	return x.c.Ops.Node(x.r.Context(), x.caller, x.q.text("node"))
}

// eventQuery makes what chooses events of the parameters events and page.
func (x *exchange) eventQuery() ops.EventQuery {
	return ops.EventQuery{
		Node: x.q.text("node"), Workspace: x.q.text("workspace"), Folder: x.q.text("folder"), App: x.q.text("app"),
		Reason: x.q.text("reason"), Search: x.q.text("q"), Severity: x.q.text("severity"), Since: x.q.since("since"),
		After: x.q.text("after"), Limit: x.q.number("limit"), Continue: x.q.text("continue"),
	}
}

func nodeEvents(x *exchange) (any, error) {
	return x.c.Ops.NodeEvents(x.r.Context(), x.caller, x.q.text("node"), x.eventQuery())
}

func allEvents(x *exchange) (any, error) {
	return x.c.Ops.Events(x.r.Context(), x.caller, x.eventQuery())
}

func metrics(x *exchange) (any, error) {
	return x.c.Ops.Metrics(x.r.Context(), x.caller, x.q.text("node"), x.q.since("since"))
}

func changes(x *exchange) (any, error) {
	return x.c.Ops.Changes(x.r.Context(), x.caller, x.q.number("limit"), x.q.text("continue"))
}

func change(x *exchange) (any, error) {
	return x.c.Ops.Change(x.r.Context(), x.caller, x.q.text("commit"))
}

func restart(x *exchange) (any, error) {
	return nil, x.c.Ops.Restart(x.r.Context(), x.caller, x.q.text("node"), *x.body.(*hubapi.RestartRequest))
}

func guides(x *exchange) (any, error) {
	l, err := x.c.Ops.Guides(x.r.Context(), x.caller)
	return paged(x, l, err, func(g hubapi.Guide) string { return g.Scope + "/" + g.Name })
}

func pending(x *exchange) (any, error) {
	l, err := x.c.Ops.Pending(x.r.Context(), x.caller)
	return paged(x, l, err, func(p hubapi.Pending) string { return p.At.UTC().Format("2006-01-02T15:04:05.000000000") + p.Code })
}

// paged cuts a page out of a list that is there as a whole, ordered by what names an item.
// continue is the name of the last one, for items may come and go from page to page.
func paged[T any](x *exchange, l hubapi.List[T], err error, name func(T) string) (any, error) {
	if err != nil {
		return nil, err
	}
	slices.SortFunc(l.Items, func(a, b T) int { return strings.Compare(name(a), name(b)) })
	if s := x.q.text("continue"); s != "" {
		last, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			return nil, invalid("continue=%.100s: want the member continue of the page before", s)
		}
		from := slices.IndexFunc(l.Items, func(i T) bool { return name(i) > string(last) })
		if from < 0 {
			from = len(l.Items)
		}
		l.Items = l.Items[from:]
	}
	limit := x.q.number("limit")
	if limit == 0 {
		limit = 100
	}
	if limit < len(l.Items) {
		l.Items = l.Items[:limit]
		l.Continue = base64.RawURLEncoding.EncodeToString([]byte(name(l.Items[limit-1])))
	}
	return l, nil
}

func joinTokens(x *exchange) (any, error) {
	return x.c.Ops.JoinTokens(x.r.Context(), x.caller, *x.body.(*hubapi.JoinTokenRequest))
}

func dropPending(x *exchange) (any, error) {
	return nil, x.c.Ops.DropPending(x.r.Context(), x.caller, x.q.text("code"))
}

func auditLog(x *exchange) (any, error) {
	q := ops.AuditQuery{Limit: x.q.number("limit"), Subject: x.q.text("subject"), Operation: x.q.text("operation"), Node: x.q.text("node")}
	if s := x.q.text("continue"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil || n == 0 {
			return nil, invalid("continue=%.100s: want the member continue of the page before", s)
		}
		q.Before = n
	}
	entries, next, err := x.c.Ops.Audit(x.r.Context(), x.caller, q)
	if err != nil {
		return nil, err
	}
	l := hubapi.List[hubapi.AuditEntry]{Items: entries, Total: -1}
	if next > 0 {
		l.Continue = strconv.FormatUint(next, 10)
	}
	return l, nil
}

func openapi(x *exchange) (any, error) { return x.doc, nil }

// methodNotAllowed and the like are made where they are found; what a stream needs of its
// connection and does not have is told here.
func upgradeRequired(detail string) error {
	return &hubapi.Problem{Title: "upgrade required", Status: http.StatusUpgradeRequired, Reason: hubapi.ReasonInvalid, Detail: detail}
}
