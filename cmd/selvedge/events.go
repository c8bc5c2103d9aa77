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
		Args:    cobra.NoArgs,
		RunE: f.run(func(c *cobra.Command, hub *client.Client, _ []string) error {
			if limit < 1 {
				return exit.Usagef("--limit %d: want at least 1", limit)
			}
			l, err := hub.Events(c.Context(), node, limit)
			if err != nil {
				return err
			}
			if !follow {
				if len(l.Items) == 0 {
					o.empty(c, "events")
				}
				return o.write(c, l, nil, func() *show.Table { return eventTable(oldestFirst(l.Items), time.Now(), true) })
			}
			if o.format == "yaml" {
				return exit.Usagef("-f prints lines; use -o json")
			}
			return followEvents(c, hub, &o, node, oldestFirst(l.Items))
		}),
	}
	f.register(c)
	o.register(c, "json", "yaml")
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
	width := 0 // of the widest object so far
	printEvent := func(e hubapi.Event) error {
		if o.format == "json" {
			return show.Line(w, e)
		}
		t := eventTable([]hubapi.Event{e}, time.Now(), true)
		t.Heading = nil
		t.Rows[0][0].Text = e.Received.Local().Format(time.RFC3339) // every line is a table of its own: columns are filled up here
		t.Rows[0][1].Text, t.Rows[0][2].Text = fmt.Sprintf("%-7s", e.Severity), fmt.Sprintf("%-12s", e.Reason)
		object := &t.Rows[0][3].Text
		width = max(width, min(len(*object), 48))
		*object = fmt.Sprintf("%-*s", width, *object)
		return t.Write(w, show.Colours(w))
	}
	for _, e := range past {
		width = max(width, min(len(e.Node+"/"+e.App+"/"+e.Container), 48))
	}
	known := map[string]bool{} // of the past, which a watch may tell again
	for _, e := range past {
		known[e.ID] = true
		if err := printEvent(e); err != nil {
			return err
		}
	}
	after := ""
	if len(past) > 0 {
		after = past[len(past)-1].ID
	}
	return hub.Watch(c.Context(), client.WatchOptions{Node: node, After: after}, func(u hubapi.Update) error {
		e := u.Event
		if e == nil || node != "" && e.Node != node || known[e.ID] {
			return nil
		}
		return printEvent(*e)
	}, lost(c, ""))
}

func eventTable(events []hubapi.Event, now time.Time, withNode bool) *show.Table {
	t := &show.Table{}
	if len(events) > 0 {
		t.Heading = []string{"SEEN", "SEVERITY", "REASON", "OBJECT", "MESSAGE"}
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
		t.Add(show.Ago(now, e.Received), severity, e.Reason, strings.Join(object, "/"), e.Message)
	}
	return t
}
