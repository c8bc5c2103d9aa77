package main

import (
	"cmp"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/show"
	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
)

func appsCommand() *cobra.Command {
	var f hubFlags
	var o output
	var q queryFlags
	var instances bool
	c := &cobra.Command{
		Use:               "apps [APP]",
		Short:             "List apps and on how many nodes they are healthy",
		Args:              atMostOne("APP"),
		ValidArgsFunction: first(completeWith(&f, appNames)),
		RunE: f.run(func(c *cobra.Command, hub *client.Client, args []string) error {
			query, err := q.ofApp(args)
			if err != nil {
				return err
			}
			if instances {
				l, err := hub.Instances(c.Context(), query)
				if err == nil {
					err = noApp(args, len(l.Items))
				}
				if err != nil {
					return err
				}
				return writeInstances(c, l, &o)
			}
			l, err := hub.Apps(c.Context(), query)
			if err == nil {
				err = noApp(args, len(l.Items))
			}
			if err != nil {
				return err
			}
			return o.write(c, "apps", l, names(l.Items, func(a hubapi.App) string { return a.Name }), func() *show.Table { return appTable(l.Items) })
		}),
	}
	f.register(c)
	o.register(c)
	q.register(c, &f)
	c.Flags().BoolVar(&instances, "instances", false, "list every container on every node")
	return c
}

func appTable(apps []hubapi.App) *show.Table {
	t := &show.Table{Heading: []string{"NAME", "WORKSPACE", "NODES", "HEALTHY", "UNKNOWN", "DECLARED AT"}}
	for _, a := range apps {
		healthy := show.Cell{Text: strconv.Itoa(a.Healthy), Colour: show.Green}
		if a.Healthy < a.Nodes {
			healthy.Colour = show.Yellow
		}
		t.Add(a.Name, a.Workspace, strconv.Itoa(a.Nodes), healthy, strconv.Itoa(a.Unknown), cmp.Or(a.Scope, "the platform"))
	}
	return t
}

func writeInstances(c *cobra.Command, l hubapi.List[hubapi.Instance], o *output) error {
	name := func(i hubapi.Instance) string { return i.Node + "/" + i.App + "/" + i.Name }
	return o.write(c, "instances", l, names(l.Items, name), func() *show.Table {
		t := &show.Table{Heading: instanceHeading("NODE/APP/CONTAINER", o.wide())}
		if o.wide() {
			t.Heading = append(t.Heading, "WORKSPACE")
		}
		for _, i := range l.Items {
			cells := instanceCells(i.Instance, o.wide(), time.Now())
			if i.Stale {
				cells[1] = show.Cell{Text: "unknown", Colour: show.Yellow}
			}
			if o.wide() {
				cells = append(cells, i.Workspace)
			}
			t.Add(append([]any{name(i)}, cells...)...)
		}
		return t
	})
}
