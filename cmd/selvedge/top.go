package main

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/show"
	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

func topCommand() *cobra.Command {
	c := &cobra.Command{Use: "top", Short: "Show what nodes and apps use, the hungriest first"}
	c.AddCommand(topNodesCommand(), topAppsCommand())
	return c
}

func topNodesCommand() *cobra.Command {
	var f hubFlags
	var o output
	var q queryFlags
	c := &cobra.Command{
		Use: "nodes [NODE…]", Aliases: []string{"node"}, Short: "Show what nodes use",
		ValidArgsFunction: completeWith(&f, nodeNames),
		RunE: f.run(func(c *cobra.Command, hub *client.Client, args []string) error {
			l, err := q.nodes(c.Context(), hub, args)
			if err != nil {
				return err
			}
			slices.SortStableFunc(l.Items, func(a, b hubapi.Node) int { return compareUsage(b.Usage, a.Usage) })
			return o.write(c, "nodes", l, names(l.Items, nodeName), func() *show.Table { return topNodes(l.Items, o.wide()) })
		}),
	}
	f.register(c)
	o.register(c)
	q.register(c, &f)
	return c
}

func topAppsCommand() *cobra.Command {
	var f hubFlags
	var o output
	var q queryFlags
	c := &cobra.Command{
		Use: "apps [APP]", Aliases: []string{"app"}, Short: "Show what apps use on all their nodes together", Args: atMostOne("APP"),
		ValidArgsFunction: first(completeWith(&f, appNames)),
		RunE: f.run(func(c *cobra.Command, hub *client.Client, args []string) error {
			query, err := q.ofApp(args)
			if err != nil {
				return err
			}
			instances, err := hub.Instances(c.Context(), query)
			if err != nil {
				return err
			}
			apps := sumApps(instances.Items)
			if err := noApp(args, len(apps)); err != nil {
				return err
			}
			l := hubapi.List[appUsage]{Items: apps, Total: len(apps)}
			return o.write(c, "apps", l, names(apps, func(a appUsage) string { return a.Name }), func() *show.Table { return topApps(apps) })
		}),
	}
	f.register(c)
	o.register(c)
	q.register(c, &f)
	return c
}

// appUsage is what an app of a workspace uses on all its nodes.
type appUsage struct {
	Name      string  `json:"name"`
	Workspace string  `json:"workspace"`
	Instances int     `json:"instances"`
	CPU       float64 `json:"cpu"`    // cores
	Memory    int64   `json:"memory"` // bytes
	Stale     int     `json:"stale"`  // instances on nodes that were not heard of, which are not counted in
}

func sumApps(instances []hubapi.Instance) []appUsage {
	type key struct{ workspace, app string }
	sums := map[key]*appUsage{}
	for _, i := range instances {
		k := key{i.Workspace, i.App}
		if sums[k] == nil {
			sums[k] = &appUsage{Name: i.App, Workspace: i.Workspace}
		}
		s := sums[k]
		s.Instances++
		switch {
		case i.Stale:
			s.Stale++
		case i.Usage != nil:
			s.CPU += i.Usage.CPU
			s.Memory += i.Usage.Memory
		}
	}
	out := make([]appUsage, 0, len(sums))
	for _, s := range slices.Collect(maps.Values(sums)) {
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b appUsage) int {
		return cmp.Or(cmp.Compare(b.CPU, a.CPU), cmp.Compare(b.Memory, a.Memory), cmp.Compare(a.Workspace, b.Workspace), cmp.Compare(a.Name, b.Name))
	})
	return out
}

func topApps(apps []appUsage) *show.Table {
	t := &show.Table{Heading: []string{"APP", "WORKSPACE", "INSTANCES", "CPU", "MEMORY", "UNKNOWN"}}
	for _, a := range apps {
		t.Add(a.Name, a.Workspace, strconv.Itoa(a.Instances), show.CPU(a.CPU), show.Bytes(a.Memory), strconv.Itoa(a.Stale))
	}
	return t
}

// compareUsage orders by CPU, then memory; what is not known is least.
func compareUsage(a, b *wire.Usage) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	return cmp.Or(cmp.Compare(a.CPU, b.CPU), cmp.Compare(a.Memory, b.Memory))
}

func topNodes(nodes []hubapi.Node, wide bool) *show.Table {
	t := &show.Table{Heading: []string{"NAME", "CPU", "LOAD", "MEMORY", "MEMORY%", "DISK", "DISK%", "TEMPERATURE"}}
	if wide {
		t.Heading = append(t.Heading, "NETWORK IN", "NETWORK OUT", "STATUS", "WORKSPACE")
	}
	for _, n := range nodes {
		row := []any{n.Name, "", "", "", "", "", "", ""}
		in, out := "", ""
		if u := n.Usage; u != nil {
			heat := ""
			if u.Temperature != nil {
				heat = strconv.FormatFloat(*u.Temperature, 'f', 0, 64) + " °C"
			}
			row = []any{n.Name, show.CPU(u.CPU), strconv.FormatFloat(u.Load, 'f', 2, 64), show.Bytes(u.Memory), percent(u.Memory, u.MemoryLimit),
				show.Bytes(u.Disk), percent(u.Disk, u.DiskLimit), heat}
			in, out = show.Bytes(u.NetRx), show.Bytes(u.NetTx)
		}
		if wide {
			row = append(row, in, out, readiness(n.Status), n.Workspace)
		}
		t.Add(row...)
	}
	return t
}

func percent(n, of int64) string {
	if of <= 0 {
		return ""
	}
	return strconv.FormatFloat(100*float64(n)/float64(of), 'f', 0, 64) + "%"
}
