package console

import (
	"cmp"
	"slices"
	"time"

	"selvedge/reconciler/access"
	"selvedge/reconciler/hub/ops"
	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
)

// What the fleet's page shows at most; links lead to the rest.
const (
	fleetWorst      = 8
	fleetChanges    = 5
	fleetEvents     = 6
	fleetWorkspaces = 200
	fleetProblems   = 50
	fleetConditions = 12 // nodes name them
)

type fleetTotals struct {
	hubapi.Summary
	Join bool
}

type fleetTrouble struct {
	Summary    hubapi.Summary
	Nodes      []hubapi.Node
	More       int
	Conditions []count
	Other      int // conditions that are not shown
	Problems   []roster.Problem
	Hidden     int
}

type count struct {
	Name string
	N    int
	Href string
}

type fleetPlaces struct {
	Workspaces []placeLine
	Hidden     int
}

type placeLine struct {
	hubapi.WorkspaceSummary
	Href string
	Bad  int
}

type fleetLately struct {
	Changes []hubapi.Change
	Events  []hubapi.Event
}

// fleetPage is the start: what converged, what not, and where.
func fleetPage(x *exchange) (*view, error) {
	ctx := x.r.Context()
	sum, err := x.c.Ops.Summary(ctx, x.caller)
	if err != nil {
		return nil, err
	}
	worst, err := x.c.Ops.Nodes(ctx, x.caller, ops.Query{Status: []hubapi.Readiness{hubapi.NotReady, hubapi.Unknown}, Sort: "status", Limit: fleetWorst})
	if err != nil {
		return nil, err
	}
	changes, err := x.c.Ops.Changes(ctx, x.caller, fleetChanges, "")
	if err != nil {
		return nil, err
	}
	events, err := x.c.Ops.Events(ctx, x.caller, ops.EventQuery{Severity: "warning", Limit: fleetEvents})
	if err != nil {
		return nil, err
	}
	trouble := fleetTrouble{Summary: sum, Nodes: worst.Items, More: worst.Total - len(worst.Items), Problems: problemsFirst(sum.Problems)}
	if n := len(trouble.Problems) - fleetProblems; n > 0 {
		trouble.Problems, trouble.Hidden = trouble.Problems[:fleetProblems], n
	}
	for name, n := range sum.Conditions {
		trouble.Conditions = append(trouble.Conditions, count{name, n, "/nodes?condition=" + escape(name)})
	}
	slices.SortFunc(trouble.Conditions, func(a, b count) int { return cmp.Or(b.N-a.N, cmp.Compare(a.Name, b.Name)) })
	if n := len(trouble.Conditions) - fleetConditions; n > 0 {
		trouble.Conditions, trouble.Other = trouble.Conditions[:fleetConditions], n
	}
	v := &view{title: "Fleet", nav: "fleet", frame: "fleet", every: 2 * time.Second} // a commit alone wakes no watch
	v.parts = []part{
		{"empty", sum},
		{"totals", fleetTotals{sum, x.mayJoin()}},
		{"trouble", trouble},
		{"places", placesOf(sum)},
		{"lately", fleetLately{changes.Items, events.Items}},
	}
	return v, nil
}

// placesOf lists workspaces, those with trouble first.
func placesOf(sum hubapi.Summary) (p fleetPlaces) {
	for _, w := range sum.Workspaces {
		p.Workspaces = append(p.Workspaces, placeLine{w, "/nodes?workspace=" + escape(w.Path), w.Status[hubapi.NotReady] + w.Status[hubapi.Unknown]})
	}
	slices.SortStableFunc(p.Workspaces, func(a, b placeLine) int { return cmp.Compare(min(b.Bad, 1), min(a.Bad, 1)) })
	if n := len(p.Workspaces) - fleetWorkspaces; n > 0 {
		p.Workspaces, p.Hidden = p.Workspaces[:fleetWorkspaces], n
	}
	return p
}

// mayJoin reports whether the caller may let nodes in anywhere.
func (x *exchange) mayJoin() bool {
	return slices.ContainsFunc(x.who.Roles, func(b roster.Binding) bool { return b.Role == access.Editor || b.Role == access.Admin })
}

// may reports whether ops would let the caller act at a scope, so that pages offer nothing
// in vain. ops decides again.
func (x *exchange) may(scope string, a access.Action) bool {
	return access.Decide(x.who.Roles, x.caller.Subject, scope, a).Allowed
}
