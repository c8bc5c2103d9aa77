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
type nodeFrame struct {
	Name, Workspace string
	Sources         []source // of logs
	Logs            bool     // the node grants them
	Known           bool     // it has said what it grants
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
	App   string
	CPU   spark
	Log   string // query of its log
	Grant bool
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
	f := nodeFrame{Name: d.Name, Workspace: d.Workspace}
	head := nodeHead{NodeDetail: d, HasUsage: d.Usage != nil}
	apps := nodeApps{Node: d.Name, Stale: d.Status == hubapi.Unknown}
	charts, cpus, memory := nodeCharts{None: "No figures yet"}, 0.0, 0.0
	if r := d.Report; r != nil {
		head.Machine, head.State, head.Agent = &r.Machine, &r.State, &r.Agent
		f.Known, f.Logs, cpus = true, r.Remote.Logs, float64(r.Machine.CPUs)
		for _, g := range []struct {
			name string
			on   bool
		}{{"logs", r.Remote.Logs}, {"restart", r.Remote.Restart}, {"exec", r.Remote.Exec}} {
			if g.on {
				head.Grants = append(head.Grants, g.name)
			}
		}
		apps.Apps, apps.Hidden = x.appRows(r, history)
	}
	head.Steps = steps(d)
	apps.Restart, apps.Why = x.mayRestart(d)
	if x.may(d.Workspace, access.Logs) {
		f.Sources = sources(d)
	}
	if d.Usage != nil {
		memory, charts.None = float64(d.Usage.MemoryLimit), "No figures in the last hour"
	}
	charts.All = []chart{
		newChart("CPU", history.Node, now, cpus, func(s hubapi.Sample) float64 { return s.CPU }, cores),
		newChart("Memory", history.Node, now, memory, func(s hubapi.Sample) float64 { return float64(s.Memory) }, func(f float64) string { return size(int64(f)) }),
	}
	return &view{title: d.Name, nav: "nodes", frame: "node", data: f, watch: ops.Query{Node: d.Name}, parts: []part{
		{"head", head}, {"apps", apps}, {"charts", charts}, {"events", eventsList{Items: events.Items, OneNode: true}},
	}}, nil
}

func (x *exchange) appRows(r *wire.Status, history hubapi.Metrics) (rows []appRow, hidden int) {
	shown := 0
	for _, a := range r.Apps {
		row := appRow{App: a}
		for _, c := range a.Containers {
			if shown++; shown > nodeInstances {
				hidden++
				continue
			}
			row.Containers = append(row.Containers, instanceRow{Instance: c, App: a.Name, CPU: newSpark(history.Instances[a.Name+"/"+c.Name]), Log: logQuery(a.Name, c.Name), Grant: r.Remote.Logs})
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
		return false, "Its state in Git does not let the cloud restart apps. Write remote: restart: true into the node and merge it."
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

// sources are what logs can be had of: each container, each app with several, and the agent.
func sources(d hubapi.NodeDetail) (out []source) {
	if d.Report == nil {
		return nil
	}
	for _, a := range d.Report.Apps {
		if len(a.Containers) > 1 {
			out = append(out, source{clip(60, a.Name) + " – all containers", logQuery(a.Name, "")})
		}
		for _, c := range a.Containers {
			title := clip(60, a.Name)
			if c.Name != a.Name {
				title += " / " + clip(60, c.Name)
			}
			out = append(out, source{title, logQuery(a.Name, c.Name)})
			if len(out) >= nodeInstances {
				return out
			}
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
