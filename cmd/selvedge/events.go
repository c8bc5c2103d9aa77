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
	var q eventFlags
	var follow bool
	c := &cobra.Command{
		Use:     "events",
		Short:   "Show what happened on nodes and in the hub",
		Long:    `events prints the latest events, oldest first. With -f it goes on, live.`,
		Example: "  selvedge events --node gw-7 --since 1h\n  selvedge events -f --severity warning --folder folders/plant-a",
		Args:    none,
		RunE: f.run(func(c *cobra.Command, hub *client.Client, _ []string) error {
			query, err := q.query()
			if err != nil {
				return err
			}
			l, err := hub.Events(c.Context(), query)
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
			return followEvents(c, hub, &o, query, oldestFirst(l.Items))
		}),
	}
	f.register(c)
	o.register(c)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on, live, until interrupted")
	q.register(c, &f)
	return c
}

// eventFlags select events.
type eventFlags struct {
	client.EventQuery
	since string
}

// severities, by how bad they are.
var severities = []string{"info", "warning", "error"}

func (q *eventFlags) register(c *cobra.Command, f *hubFlags) {
	c.Flags().StringVar(&q.Node, "node", "", "of this node only")
	c.Flags().StringVarP(&q.Workspace, "workspace", "w", "", "of this workspace, e.g. folders/plant-a/line-1")
	c.Flags().StringVar(&q.Folder, "folder", "", "of this folder and below")
	c.Flags().StringVar(&q.App, "app", "", "about this app")
	c.Flags().StringVar(&q.Reason, "reason", "", "with this reason, e.g. RolledBack")
	c.Flags().StringVar(&q.Severity, "severity", "", "at least this severe: info, warning or error")
	c.Flags().StringVarP(&q.Search, "query", "q", "", "with this text in node, app, reason or message")
	c.Flags().StringVar(&q.since, "since", "", "since a duration ago, e.g. 10m, or a time, e.g. 2027-01-31T08:00:00Z")
	c.Flags().IntVar(&q.Limit, "limit", 50, "at most so many of the past")
	complete(c, "node", completeWith(f, nodeNames))
	complete(c, "workspace", completeWith(f, workspaces))
	complete(c, "folder", completeWith(f, folders))
	complete(c, "app", completeWith(f, appNames))
	complete(c, "severity", cobra.FixedCompletions(severities, cobra.ShellCompDirectiveNoFileComp))
}

func (q *eventFlags) query() (out client.EventQuery, err error) {
	out = q.EventQuery
	switch {
	case q.Limit < 1:
		return out, exit.Usagef("--limit %d: want at least 1", q.Limit)
	case q.Severity != "" && !slices.Contains(severities, q.Severity):
		return out, exit.Usagef("unknown severity %q; there are %s", q.Severity, strings.Join(severities, ", "))
	case q.since != "":
		out.Since, err = moment(q.since, time.Now())
	}
	return out, err
}

// chosen reports whether a watch, which knows less of what events are about, tells one that
// is asked for.
func chosen(q client.EventQuery, e hubapi.Event) bool {
	text := strings.ToLower(strings.Join([]string{e.Node, e.Reason, e.App, e.Message}, "\n"))
	return (q.Since.IsZero() || !e.Received.Before(q.Since)) && (q.Node == "" || e.Node == q.Node) && (q.App == "" || e.App == q.App) && (q.Reason == "" || e.Reason == q.Reason) &&
		slices.Index(severities, e.Severity) >= slices.Index(severities, q.Severity) && strings.Contains(text, strings.ToLower(q.Search))
}

// oldestFirst turns a list of the hub around: the newest is at the end, where people look.
func oldestFirst(events []hubapi.Event) []hubapi.Event {
	events = slices.Clone(events)
	slices.SortStableFunc(events, func(a, b hubapi.Event) int { return a.Received.Compare(b.Received) })
	return events
}

func followEvents(c *cobra.Command, hub *client.Client, o *output, q client.EventQuery, past []hubapi.Event) error {
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
	of := client.Query{Workspace: q.Workspace, Folder: q.Folder, App: q.App}
	return watch(c, hub, client.WatchOptions{Query: of, Node: q.Node, After: after}, func(u hubapi.Update) error {
		e := u.Event
		if e == nil || known[e.ID] || !chosen(q, *e) {
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
