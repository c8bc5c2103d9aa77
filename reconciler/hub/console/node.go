package console

import (
	"time"

	"selvedge/reconciler/access"
	"selvedge/reconciler/hub/ops"
	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

const (
	nodeEvents    = 50
	nodeInstances = 500
)

// nodeFrame is what of a node's page stays.
type nodeFrame struct{ Name, Workspace string }

// nodeLog is what can be read of a node.
type nodeLog struct {
	Node    string
	Sources []source
	Refused bool // by who may see what
	Denied  bool // by the state that the node runs
}

// source is something that prints.
type source struct{ Title, Query string }

type nodeHead struct {
	hubapi.NodeDetail
	Machine  *wire.Machine
	State    *wire.State
	Agent    *wire.Agent
	Wanted   step
	Steps    []step
	Grants   []string
	HasUsage bool
}

// step is one of the generations that a node stands between.
type step struct {
	Title string
	Ref   wire.Ref
	Tone  string
	Note  string
}

type nodeApps struct {
	Node    string
	Apps    []appRow
	Hidden  int
	Logs    bool
	Restart bool   // ops would do it
	Why     string // not
	Stale   bool
}

type appRow struct {
	wire.App
	Wanted     bool
	Containers []instanceRow
}

type instanceRow struct {
	wire.Instance
	App string
	CPU spark
	Log string // query of its log
}

type nodeCharts struct {
	All  []chart
	None string // in place of a chart without figures
}

func nodePage(x *exchange) (*view, error) {
	ctx, name := x.r.Context(), x.r.PathValue("node")
	d, err := x.c.Ops.Node(ctx, x.caller, name)
	if err != nil {
		return nil, err
	}
	now := x.c.Now()
	history, err := x.c.Ops.Metrics(ctx, x.caller, name, now.Add(-time.Hour))
	if err != nil {
		return nil, err
	}
	events, err := x.c.Ops.NodeEvents(ctx, x.caller, name, ops.EventQuery{Limit: nodeEvents})
	if err != nil {
		return nil, err
	}
	head := nodeHead{NodeDetail: d, HasUsage: d.Usage != nil}
	apps := nodeApps{Node: d.Name, Stale: d.Status == hubapi.Unknown}
	charts, cpus, memory := nodeCharts{None: "No figures yet"}, 0.0, 0.0
	if r := d.Report; r != nil {
		head.Machine, head.State, head.Agent = &r.Machine, &r.State, &r.Agent
		cpus = float64(r.Machine.CPUs)
		for _, g := range []struct {
			name string
			on   bool
		}{{"logs", r.Remote.Logs}, {"restart", r.Remote.Restart}, {"exec", r.Remote.Exec}} {
			if g.on {
				head.Grants = append(head.Grants, g.name)
			}
		}
		apps.Apps, apps.Hidden = appRows(r, history)
	}
	head.Steps = steps(d)
	apps.Restart, apps.Why = x.mayRestart(d)
	logs := x.logOf(d)
	apps.Logs = len(logs.Sources) > 0
	if d.Usage != nil {
		memory, charts.None = float64(d.Usage.MemoryLimit), "No figures in the last hour"
	}
	charts.All = []chart{
		newChart("CPU", history.Node, now, cpus, func(s hubapi.Sample) float64 { return s.CPU }, cores),
		newChart("Memory", history.Node, now, memory, func(s hubapi.Sample) float64 { return float64(s.Memory) }, func(f float64) string { return size(int64(f)) }),
	}
	return &view{title: d.Name, nav: "nodes", frame: "node", data: nodeFrame{d.Name, d.Workspace}, watch: ops.Query{Node: d.Name}, parts: []part{
		{"head", head}, {"apps", apps}, {"log", logs}, {"charts", charts}, {"events", eventsList{Items: events.Items, OneNode: true}},
	}}, nil
}

func appRows(r *wire.Status, history hubapi.Metrics) (rows []appRow, hidden int) {
	shown := 0
	for _, a := range r.Apps {
		row := appRow{App: a}
		for _, c := range a.Containers {
			if shown++; shown > nodeInstances {
				hidden++
				continue
			}
			row.Containers = append(row.Containers, instanceRow{Instance: c, App: a.Name, CPU: newSpark(history.Instances[a.Name+"/"+c.Name]), Log: logQuery(a.Name, c.Name)})
		}
		rows = append(rows, row)
	}
	return rows, hidden
}

// mayRestart says why no button is shown, where a person would look for one.
func (x *exchange) mayRestart(d hubapi.NodeDetail) (bool, string) {
	switch {
	case !x.may(d.Workspace, access.Operate):
		return false, "" // who looks on needs no excuse
	case d.Report == nil:
		return false, ""
	case !d.Report.Remote.Restart:
		return false, "The state that it runs does not let the cloud restart apps. Write remote: restart: true into the node, merge it, and wait until the node runs it."
	case !d.Connected:
		return false, "It is not connected, so nothing can be asked of it now."
	}
	return true, ""
}

// steps are the generations from Git to what proved itself.
func steps(d hubapi.NodeDetail) []step {
	want := d.Wanted.Generation
	tone := func(r wire.Ref) string {
		switch {
		case r.Generation == 0:
			return "idle"
		case r.Generation >= want:
			return "ok"
		}
		return "warn"
	}
	out := []step{{"Wanted", d.Wanted, "idle", "what Git says"}, {"Pulled", d.Pulled, tone(d.Pulled), "verified on the node"}, {"Applied", d.Applied, tone(d.Applied), "being run"}, {"Last good", d.LastGood, tone(d.LastGood), "proven healthy"}}
	if d.Report != nil {
		for _, r := range d.Report.State.Rejected {
			if r.Generation == want {
				out[2].Tone = "bad"
			}
		}
	}
	return out
}

// logOf says what can be read of a node, or what is in the way.
func (x *exchange) logOf(d hubapi.NodeDetail) nodeLog {
	l := nodeLog{Node: d.Name}
	switch {
	case !x.may(d.Workspace, access.Logs):
		l.Refused = true
	case d.Report == nil:
	case !d.Report.Remote.Logs:
		l.Denied = true
	default:
		l.Sources = sources(d.Report)
	}
	return l
}

// sources are what logs can be had of: each container that is shown, each app with several,
// and the agent.
func sources(r *wire.Status) (out []source) {
	shown := 0
	for _, a := range r.Apps {
		if len(a.Containers) > 1 && shown < nodeInstances {
			out = append(out, source{clip(60, a.Name) + " – all containers", logQuery(a.Name, "")})
		}
		for _, c := range a.Containers {
			if shown++; shown > nodeInstances {
				break
			}
			title := clip(60, a.Name)
			if c.Name != a.Name {
				title += " / " + clip(60, c.Name)
			}
			out = append(out, source{title, logQuery(a.Name, c.Name)})
		}
	}
	return append(out, source{"the agent", "agent=true"})
}

func logQuery(app, container string) string {
	q := "app=" + escape(app)
	if container != "" {
		q += "&container=" + escape(container)
	}
	return q
}
