package console

import (
	"maps"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"selvedge/reconciler/hub/ops"
	"selvedge/schema/hubapi"
)

const (
	pageSize = 100
	maxParam = 1024
)

func escape(s string) string { return url.QueryEscape(s) }

// param is a parameter of the page, bounded and visible.
func (x *exchange) param(name string) string {
	v := strings.TrimSpace(x.r.URL.Query().Get(name))
	if len(v) > maxParam {
		v = v[:maxParam]
	}
	return clean(v)
}

// link is this page with other parameters: pairs of name and value; an empty value takes
// one away.
func (x *exchange) link(pairs ...string) string {
	q := url.Values{}
	for k, v := range x.r.URL.Query() {
		if len(v) > 0 && v[0] != "" && len(v[0]) <= maxParam {
			q.Set(k, v[0])
		}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if q.Del(pairs[i]); pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	to := strings.TrimPrefix(x.r.URL.EscapedPath(), "/live")
	if len(q) == 0 {
		return to
	}
	return to + "?" + q.Encode()
}

// pager says where in a list a page stands.
type pager struct {
	From, To, Total       int
	First, Previous, Next string // links; empty: none
}

// pager makes the links of a page of a list, of at most limit items. Tokens lead forward only,
// so each link carries those of the pages before it, as many as fit.
func (x *exchange) pager(items, limit, total int, cont string) pager {
	here, before := x.param("continue"), x.param("before")
	from, err := strconv.Atoi(x.param("from")) // only told: continue is what counts
	if err != nil || from < 0 || from > total || here == "" {
		from = 0
	}
	p := pager{From: from + 1, To: min(from+items, total), Total: total}
	if items == 0 {
		p.From = 0
	}
	if here != "" {
		p.First = x.link("continue", "", "from", "", "before", "")
	}
	if back, last, ok := cutLast(before); here != "" && ok {
		p.Previous = x.link("continue", last, "from", strconv.Itoa(max(0, from-limit)), "before", back)
	}
	if cont != "" {
		trail := before + "." + here // the first page's is empty
		for len(trail) > maxParam {
			_, trail, _ = strings.Cut(trail[1:], ".")
			trail = "." + trail
		}
		p.Next = x.link("continue", cont, "from", strconv.Itoa(from+items), "before", trail)
	}
	return p
}

// cutLast takes the last token off a trail, in which each has a dot in front.
func cutLast(trail string) (rest, last string, ok bool) {
	i := strings.LastIndexByte(trail, '.')
	if i < 0 {
		return trail, "", false
	}
	return trail[:i], trail[i+1:], true
}

// nodesForm is the filter as it was sent.
type nodesForm struct {
	Status, Workspace, Labels, App, Search, Condition, Sort string
	States                                                  []string
	Places                                                  places
	Apps                                                    []string
}

// places are what can be chosen: workspaces, and folders, as PATH/*, which hold what is below.
type places struct {
	Chosen              string
	Folders, Workspaces []string
}

const maxPlaces = 1000

// placesIn are those with nodes, and what is chosen already.
func placesIn(sum hubapi.Summary, chosen string) places {
	p := places{Chosen: chosen}
	folders := map[string]bool{}
	for _, w := range sum.Workspaces[:min(maxPlaces, len(sum.Workspaces))] {
		p.Workspaces = append(p.Workspaces, w.Path)
		for dir := path.Dir(w.Path); strings.Contains(dir, "/"); dir = path.Dir(dir) {
			folders[dir+"/*"] = true
		}
	}
	if _, folder := placeOf(chosen); folder != "" {
		folders[chosen] = true
	} else if chosen != "" && !slices.Contains(p.Workspaces, chosen) {
		p.Workspaces = append(p.Workspaces, chosen)
	}
	p.Folders = slices.Sorted(maps.Keys(folders))
	return p
}

// placeOf is the workspace or the folder that was chosen.
func placeOf(chosen string) (workspace, folder string) {
	if dir, ok := strings.CutSuffix(chosen, "/*"); ok {
		return "", dir
	}
	return chosen, ""
}

type nodesList struct {
	Items   []hubapi.Node
	Pager   pager
	Columns []column
	Any     bool // a filter is set
	Problem *hubapi.Problem
	Clear   string
}

// column is a head of the table; one without Href cannot be sorted by.
type column struct {
	Name, Title, Href, Class string
	Sorted                   string // aria-sort
}

func nodesPage(x *exchange) (*view, error) {
	ctx := x.r.Context()
	f := nodesForm{Status: x.param("status"), Workspace: x.param("workspace"), Labels: x.param("labels"), App: x.param("app"), Search: x.param("q"), Condition: x.param("condition"),
		Sort: x.param("sort"), States: []string{string(hubapi.Ready), string(hubapi.NotReady), string(hubapi.Unknown), string(hubapi.Waiting)}}
	q := ops.Query{Workspace: f.Workspace, Labels: f.Labels, App: f.App, Search: f.Search, Condition: f.Condition, Sort: f.Sort, Limit: pageSize, Continue: x.param("continue")}
	q.Workspace, q.Folder = placeOf(f.Workspace)
	if f.Status != "" {
		q.Status = []hubapi.Readiness{hubapi.Readiness(f.Status)}
	}
	anything := f.Status != "" || f.Workspace != "" || f.Labels != "" || f.App != "" || f.Search != "" || f.Condition != ""
	list, err := x.c.Ops.Nodes(ctx, x.caller, q)
	out := nodesList{Any: anything, Clear: "/nodes"}
	if p := problemOf(err); p != nil && p.Reason == hubapi.ReasonInvalid {
		out.Problem, err = p, nil // of the filter: it stays to be mended
		q = ops.Query{Node: "-"}
	}
	if err != nil {
		return nil, err
	}
	out.Items, out.Pager, out.Columns = list.Items, x.pager(len(list.Items), pageSize, list.Total, list.Continue), x.columns(f.Sort)
	v := &view{title: "Nodes", nav: "nodes", frame: "nodes", watch: q, parts: []part{{"list", out}}}
	v.watch.Limit, v.watch.Continue, v.watch.Sort = 0, "", ""
	if strings.HasPrefix(x.r.URL.Path, "/live/") {
		return v, nil // the frame is not shown again
	}
	sum, err := x.c.Ops.Summary(ctx, x.caller)
	if err != nil {
		return nil, err
	}
	f.Places = placesIn(sum, f.Workspace)
	apps, err := x.c.Ops.Apps(ctx, x.caller, ops.Query{Limit: 500})
	if err != nil {
		return nil, err
	}
	for _, a := range apps.Items {
		f.Apps = append(f.Apps, a.Name)
	}
	slices.Sort(f.Apps)
	f.Apps = slices.Compact(f.Apps)
	v.data = f
	return v, nil
}

// columns are the table's heads: a click sorts, a second one turns the order round.
func (x *exchange) columns(by string) []column {
	order, reverse := strings.CutPrefix(by, "-")
	if order == "" {
		order = "name"
	}
	out := []column{{Name: "name", Title: "Node"}, {Name: "status", Title: "Status"}, {Name: "workspace", Title: "Workspace"}, {Title: "Generation", Class: "num"},
		{Title: "Apps", Class: "num"}, {Name: "cpu", Title: "CPU", Class: "num"}, {Name: "memory", Title: "Memory", Class: "num"}, {Name: "restarts", Title: "Restarts", Class: "num"},
		{Name: "lastSeen", Title: "Last seen", Class: "num"}}
	for i := range out {
		c := &out[i]
		if c.Name == "" {
			continue
		}
		to := c.Name
		if c.Name == order {
			c.Sorted = "ascending"
			if largest := c.Name == "cpu" || c.Name == "memory" || c.Name == "restarts"; reverse != largest {
				c.Sorted = "descending"
			}
			if !reverse {
				to = "-" + to
			}
		}
		c.Href = x.link("sort", to, "continue", "", "from", "", "before", "")
	}
	return out
}
