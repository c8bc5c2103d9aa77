package console

import (
	"time"

	"selvedge/reconciler/hub/ops"
	"selvedge/schema/hubapi"
)

type eventsForm struct {
	Severity, Workspace, Reason, Search, Node, Since string
	Workspaces                                       []hubapi.WorkspaceSummary
	Any                                              bool
}

type eventsList struct {
	Items   []hubapi.Event
	Pager   *pager
	OneNode bool // the column of nodes says nothing
	Any     bool
	Problem *hubapi.Problem
}

func eventsPage(x *exchange) (*view, error) {
	ctx := x.r.Context()
	f := eventsForm{Severity: x.param("severity"), Workspace: x.param("workspace"), Reason: x.param("reason"), Search: x.param("q"), Node: x.param("node")}
	f.Any = f.Severity != "" || f.Workspace != "" || f.Reason != "" || f.Search != "" || f.Node != ""
	l, err := x.c.Ops.Events(ctx, x.caller, ops.EventQuery{Node: f.Node, Severity: f.Severity, Workspace: f.Workspace, Reason: f.Reason, Search: f.Search, Limit: pageSize, Continue: x.param("continue")})
	out := eventsList{Any: f.Any}
	if p := problemOf(err); p != nil && p.Reason == hubapi.ReasonInvalid {
		out.Problem, err = p, nil
	}
	if err != nil {
		return nil, err
	}
	p := x.pager(len(l.Items), l.Total, l.Continue)
	out.Items, out.Pager = l.Items, &p
	v := &view{title: "Events", nav: "events", frame: "events", data: f, watch: ops.Query{Workspace: f.Workspace, Node: f.Node}, parts: []part{{"list", out}}, every: 5 * time.Second}
	sum, err := x.c.Ops.Summary(ctx, x.caller)
	if err != nil {
		return nil, err
	}
	f.Workspaces = sum.Workspaces[:min(1000, len(sum.Workspaces))]
	v.data = f
	return v, nil
}

func problemOf(err error) *hubapi.Problem {
	if err == nil {
		return nil
	}
	return asProblem(err)
}
