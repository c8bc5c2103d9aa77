package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/show"
	"selvedge/internal/exit"
	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

func eventsCommand() *cobra.Command {
	var f hubFlags
	var o output
	var follow bool
	var node string
	var limit int
	c := &cobra.Command{
		Use:     "events",
		Short:   "Show what happened on nodes and in the hub",
		Long:    `events prints the latest events, oldest first. With -f it goes on, live.`,
		Example: "  selvedge events --node gw-7\n  selvedge events -f",
		Args:    none,
		RunE: f.run(func(c *cobra.Command, hub *client.Client, _ []string) error {
			if limit < 1 {
				return exit.Usagef("--limit %d: want at least 1", limit)
			}
			l, err := hub.Events(c.Context(), node, limit)
			if err != nil {
				return err
			}
			if !follow {
				l.Items = oldestFirst(l.Items)
				return o.write(c, "events", l, names(l.Items, eventID), func() *show.Table { return eventTable(l.Items, true, o.wide(), time.Now()) })
			}
			if o.format == "yaml" {
				return exit.Usagef("-f prints lines; use -o json")
			}
			return followEvents(c, hub, &o, node, oldestFirst(l.Items))
		}),
	}
	f.register(c)
	o.register(c)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on, live, until interrupted")
	c.Flags().StringVar(&node, "node", "", "of this node only")
	c.Flags().IntVar(&limit, "limit", 50, "at most so many of the past")
	complete(c, "node", completeWith(&f, nodeNames))
	return c
}

// oldestFirst turns a list of the hub around: the newest is at the end, where people look.
func oldestFirst(events []hubapi.Event) []hubapi.Event {
	events = slices.Clone(events)
	slices.SortStableFunc(events, func(a, b hubapi.Event) int { return a.Received.Compare(b.Received) })
	return events
}

func followEvents(c *cobra.Command, hub *client.Client, o *output, node string, past []hubapi.Event) error {
	w := c.OutOrStdout()
	row := func(e hubapi.Event) *show.Table {
		t := eventTable([]hubapi.Event{e}, true, o.wide(), time.Now())
		t.Rows[0][0].Text = e.Received.Local().Format(time.RFC3339)
		return t
	}
	var columns show.Columns // every line is a table of its own
	printEvent := func(e hubapi.Event) error {
		switch o.format {
		case "json":
			return show.Line(w, e)
		case "name":
			_, err := fmt.Fprintln(w, show.Text(e.ID))
			return err
		}
		t := row(e)
		columns.Fill(t)
		return t.Write(w, show.Colours(w))
	}
	for _, e := range past {
		columns.Fill(row(e))
	}
	known := map[string]bool{} // of the past, which a watch may tell again
	for _, e := range past {
		known[e.ID] = true
		if err := printEvent(e); err != nil {
			return err
		}
	}
	after := "0" // none yet: what comes before the watch begins is among all of them
	if len(past) > 0 {
		after = past[len(past)-1].ID
	}
	return watch(c, hub, client.WatchOptions{Node: node, After: after}, func(u hubapi.Update) error {
		e := u.Event
		if e == nil || node != "" && e.Node != node || known[e.ID] {
			return nil
		}
		return printEvent(*e)
	})
}

func eventID(e hubapi.Event) string { return e.ID }

func eventTable(events []hubapi.Event, withNode, wide bool, now time.Time) *show.Table {
	t := &show.Table{Heading: []string{"SEEN", "SEVERITY", "REASON", "OBJECT", "MESSAGE"}}
	if wide {
		t.Heading = []string{"SEEN", "SEVERITY", "REASON", "OBJECT", "WORKSPACE", "GENERATION", "ID", "MESSAGE"}
	}
	for _, e := range events {
		severity := show.Cell{Text: e.Severity}
		switch e.Severity {
		case "warning":
			severity.Colour = show.Yellow
		case "error":
			severity.Colour = show.Red
		}
		var object []string
		if withNode {
			object = append(object, e.Node)
		}
		object = filled(append(object, e.App, e.Container)...)
		cells := []any{show.Ago(now, e.Received), severity, e.Reason, strings.Join(object, "/")}
		if wide {
			cells = append(cells, e.Workspace, generation(wire.Ref{Generation: e.Generation}), e.ID)
		}
		t.Add(append(cells, e.Message)...)
	}
	return t
}
