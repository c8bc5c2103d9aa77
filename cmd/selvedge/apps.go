package main

import (
	"cmp"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/show"
	"selvedge/reconciler/hub/client"
)

func appsCommand() *cobra.Command {
	var f hubFlags
	var o output
	var q queryFlags
	var instances bool
	c := &cobra.Command{
		Use:   "apps",
		Short: "List apps and on how many nodes they are healthy",
		Args:  cobra.NoArgs,
		RunE: f.run(func(c *cobra.Command, hub *client.Client, _ []string) error {
			query, err := q.query()
			if err != nil {
				return err
			}
			if instances {
				return listInstances(c, hub, query, &o)
			}
			l, err := hub.Apps(c.Context(), query)
			if err != nil {
				return err
			}
			if len(l.Items) == 0 {
				o.empty(c, "apps")
			}
			t, names := &show.Table{}, []string{}
			for _, a := range l.Items {
				t.Heading = []string{"NAME", "WORKSPACE", "NODES", "HEALTHY", "UNKNOWN", "DECLARED AT"}
				healthy := show.Cell{Text: strconv.Itoa(a.Healthy), Colour: show.Green}
				if a.Healthy < a.Nodes {
					healthy.Colour = show.Yellow
				}
				t.Add(a.Name, a.Workspace, strconv.Itoa(a.Nodes), healthy, strconv.Itoa(a.Unknown), cmp.Or(a.Scope, "the platform"))
				names = append(names, a.Name)
			}
			return o.write(c, l, names, func() *show.Table { return t })
		}),
	}
	f.register(c)
	o.register(c, "json", "yaml", "name")
	q.register(c, &f)
	c.Flags().BoolVar(&instances, "instances", false, "list every container on every node")
	return c
}

func listInstances(c *cobra.Command, hub *client.Client, query client.Query, o *output) error {
	l, err := hub.Instances(c.Context(), query)
	if err != nil {
		return err
	}
	if len(l.Items) == 0 {
		o.empty(c, "instances")
	}
	t, names := &show.Table{}, []string{}
	for _, i := range l.Items {
		t.Heading = []string{"NODE/APP/CONTAINER", "STATE", "HEALTHY", "RESTARTS", "SINCE", "CPU", "MEMORY", "IMAGE", "PROBLEM"}
		name := i.Node + "/" + i.App + "/" + i.Name
		cells := instanceCells(i.Instance, time.Now())
		if i.Stale {
			cells[1] = show.Cell{Text: "unknown", Colour: show.Yellow}
		}
		t.Add(append([]any{name}, cells...)...)
		names = append(names, name)
	}
	return o.write(c, l, names, func() *show.Table { return t })
}
