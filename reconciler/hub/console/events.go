package console

import (
	"time"

	"selvedge/reconciler/hub/ops"
	"selvedge/schema/hubapi"
)

type eventsForm struct {
	Severity, Workspace, Reason, Search, Node, Since string
	Places                                           places
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
	workspace, folder := placeOf(f.Workspace)
	anything := f.Severity != "" || f.Workspace != "" || f.Reason != "" || f.Search != "" || f.Node != ""
	l, err := x.c.Ops.Events(ctx, x.caller, ops.EventQuery{Node: f.Node, Severity: f.Severity, Workspace: workspace, Folder: folder, Reason: f.Reason, Search: f.Search, Limit: pageSize, Continue: x.param("continue")})
	out := eventsList{Any: anything}
	if p := problemOf(err); p != nil && p.Reason == hubapi.ReasonInvalid {
		out.Problem, err = p, nil
	}
	if err != nil {
		return nil, err
	}
	p := x.pager(len(l.Items), pageSize, l.Total, l.Continue)
	out.Items, out.Pager = l.Items, &p
	v := &view{title: "Events", nav: "events", frame: "events", data: f, watch: ops.Query{Workspace: workspace, Folder: folder, Node: f.Node}, parts: []part{{"list", out}}, every: 5 * time.Second}
	sum, err := x.c.Ops.Summary(ctx, x.caller)
	if err != nil {
		return nil, err
	}
	f.Places = placesIn(sum, f.Workspace)
	v.data = f
	return v, nil
}

func problemOf(err error) *hubapi.Problem {
	if err == nil {
		return nil
	}
	return asProblem(err)
}
