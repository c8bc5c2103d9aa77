package console

import (
	"cmp"
	"slices"
	"time"

	"selvedge/schema/hubapi"
)

const (
	changesSize = 30
	changeNodes = 1000
)

type changesList struct {
	Items []hubapi.Change
	Pager pager
}

func changesPage(x *exchange) (*view, error) {
	l, err := x.c.Ops.Changes(x.r.Context(), x.caller, changesSize, x.param("continue"))
	if err != nil {
		return nil, err
	}
	return &view{title: "Changes", nav: "changes", frame: "changes", every: 2 * time.Second, parts: []part{{"list", changesList{l.Items, x.pager(len(l.Items), changesSize, l.Total, l.Continue)}}}}, nil
}

type changeDetail struct {
	hubapi.Change
	Shown  []hubapi.ChangeNode
	Hidden int
	States []count
	State  string
	All    string // link without the filter
}

// changeStates are in the order in which people look for them.
var changeStates = []string{"failed", "unknown", "waiting", "applying", "done"}

func changePage(x *exchange) (*view, error) {
	ch, err := x.c.Ops.Change(x.r.Context(), x.caller, x.r.PathValue("commit"))
	if err != nil {
		return nil, err
	}
	d := changeDetail{Change: ch, State: x.param("state"), All: x.link("state", "")}
	n := map[string]int{}
	for _, c := range ch.Nodes {
		n[c.State]++
		if d.State == "" || d.State == c.State {
			d.Shown = append(d.Shown, c)
		}
	}
	for _, s := range changeStates {
		if n[s] > 0 {
			d.States = append(d.States, count{s, n[s], x.link("state", s)})
		}
	}
	slices.SortStableFunc(d.Shown, func(a, b hubapi.ChangeNode) int {
		return cmp.Or(slices.Index(changeStates, a.State)-slices.Index(changeStates, b.State), cmp.Compare(a.Node, b.Node))
	})
	if more := len(d.Shown) - changeNodes; more > 0 {
		d.Shown, d.Hidden = d.Shown[:changeNodes], more
	}
	d.Nodes = nil
	title := clip(60, ch.Subject)
	if title == "" {
		title = "Change " + short(ch.Hash)
	}
	return &view{title: title, nav: "changes", frame: "change", data: d, parts: []part{{"detail", d}}, every: 2 * time.Second}, nil
}

type pendingList struct {
	Items  []pendingRow
	Guides []hubapi.Guide
}

type pendingRow struct {
	hubapi.Pending
	Command string // to approve it
}

// pendingPage lists nodes that ask to be let in. Approving is a commit, made elsewhere.
func pendingPage(x *exchange) (*view, error) {
	ctx := x.r.Context()
	l, err := x.c.Ops.Pending(ctx, x.caller)
	if err != nil {
		return nil, err
	}
	guides, err := x.c.Ops.Guides(ctx, x.caller)
	if err != nil {
		return nil, err
	}
	d := pendingList{Guides: guides.Items}
	for _, p := range l.Items {
		d.Items = append(d.Items, pendingRow{p, "selvedge node approve " + clip(40, p.Code)})
	}
	return &view{title: "Waiting nodes", nav: "pending", frame: "pending", parts: []part{{"list", d}}, every: 3 * time.Second}, nil
}
