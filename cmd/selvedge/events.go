package main

import (
	"fmt"
	"slices"
	"strconv"
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
	}, lost(c))
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

func changesCommand() *cobra.Command {
	var f hubFlags
	var o output
	var limit int
	c := &cobra.Command{
		Use:   "changes",
		Short: "List commits that took effect, and how far each got",
		Long: `changes lists the latest commits in force, newest first: how many nodes each touched, how many
run it, or something newer, and on how many it failed. 'selvedge describe change COMMIT' shows
the nodes of one.`,
		Args: cobra.NoArgs,
		RunE: f.run(func(c *cobra.Command, hub *client.Client, _ []string) error {
			if limit < 1 {
				return exit.Usagef("--limit %d: want at least 1", limit)
			}
			l, err := hub.Changes(c.Context(), limit)
			if err != nil {
				return err
			}
			if len(l.Items) == 0 {
				o.empty(c, "changes")
			}
			t, names := &show.Table{}, []string{}
			for _, ch := range l.Items {
				t.Heading = []string{"COMMIT", "AGE", "NODES", "DONE", "FAILED", "REMOVED", "AUTHOR", "SUBJECT"}
				t.Add(fmt.Sprintf("%.12s", ch.Hash), show.Ago(time.Now(), ch.At), strconv.Itoa(ch.Touched), progress(ch),
					failed(ch.Failed), strconv.Itoa(ch.Removed), name(ch.Author), show.Short(ch.Subject, 72))
				names = append(names, ch.Hash)
			}
			return o.write(c, l, names, func() *show.Table { return t })
		}),
	}
	f.register(c)
	o.register(c, "json", "yaml", "name")
	c.Flags().IntVar(&limit, "limit", 20, "at most so many")
	return c
}

// name is an author without the address.
func name(author string) string {
	n, _, _ := strings.Cut(author, " <")
	return show.Short(n, 24)
}

func progress(ch hubapi.Change) show.Cell {
	c := show.Cell{Text: strconv.Itoa(ch.Done), Colour: show.Green}
	if ch.Done < ch.Touched {
		c.Colour = show.Yellow
	}
	return c
}

func failed(n int) show.Cell {
	c := show.Cell{Text: strconv.Itoa(n)}
	if n > 0 {
		c.Colour = show.Red
	}
	return c
}

func changeShowCommand(use, short string) *cobra.Command {
	var f hubFlags
	var o output
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: f.run(func(c *cobra.Command, hub *client.Client, args []string) error {
			ch, err := hub.Change(c.Context(), args[0])
			if err != nil {
				return err
			}
			if o.format != "" {
				return o.write(c, ch, nil, nil)
			}
			w, t := c.OutOrStdout(), &show.Table{}
			t.Add("Commit", ch.Hash)
			t.Add("Subject", ch.Subject)
			t.Add("Author", ch.Author)
			t.Add("In force", ch.At.Local().Format(time.RFC3339))
			t.Add("Progress", fmt.Sprintf("%d of %s done, %d failed, %d removed", ch.Done, count(ch.Touched, "node"), ch.Failed, ch.Removed))
			if err := t.Write(w, show.Colours(w)); err != nil {
				return err
			}
			nodes := &show.Table{Heading: []string{"NODE", "WORKSPACE", "GENERATION", "STATE"}}
			for _, n := range ch.Nodes {
				nodes.Add(n.Node, n.Workspace, strconv.FormatInt(n.Generation, 10), n.State)
			}
			return section(w, "Nodes", nodes, show.Colours(w))
		}),
	}
	f.register(c)
	o.register(c, "json", "yaml")
	return c
}

func auditCommand() *cobra.Command {
	var f hubFlags
	var o output
	var limit int
	c := &cobra.Command{
		Use:   "audit",
		Short: "Show who did what, by the hub's audit log",
		Long:  `audit prints the latest entries of the hub's audit log, oldest first. It takes the role admin.`,
		Args:  cobra.NoArgs,
		RunE: f.run(func(c *cobra.Command, hub *client.Client, _ []string) error {
			if limit < 1 {
				return exit.Usagef("--limit %d: want at least 1", limit)
			}
			l, err := hub.Audit(c.Context(), limit)
			if err != nil {
				return err
			}
			return o.write(c, l, nil, func() *show.Table { return auditTable(l.Items) })
		}),
	}
	f.register(c)
	o.register(c, "json", "yaml")
	c.Flags().IntVar(&limit, "limit", 50, "at most so many")
	return c
}

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
		Use: "nodes", Aliases: []string{"node"}, Short: "Show what nodes use", Args: cobra.NoArgs,
		RunE: f.run(func(c *cobra.Command, hub *client.Client, _ []string) error {
			query, err := q.query()
			if err != nil {
				return err
			}
			l, err := hub.Nodes(c.Context(), query)
			if err != nil {
				return err
			}
			slices.SortStableFunc(l.Items, func(a, b hubapi.Node) int { return compareUsage(b.Usage, a.Usage) })
			return o.write(c, l, nil, func() *show.Table { return topNodes(l.Items) })
		}),
	}
	f.register(c)
	o.register(c, "json", "yaml")
	q.register(c, &f)
	return c
}

func topAppsCommand() *cobra.Command {
	var f hubFlags
	var o output
	var q queryFlags
	c := &cobra.Command{
		Use: "apps", Aliases: []string{"app"}, Short: "Show what apps use on all their nodes together", Args: cobra.NoArgs,
		RunE: f.run(func(c *cobra.Command, hub *client.Client, _ []string) error {
			query, err := q.query()
			if err != nil {
				return err
			}
			l, err := hub.Instances(c.Context(), query)
			if err != nil {
				return err
			}
			apps := sumApps(l.Items)
			return o.write(c, hubapi.List[appUsage]{Items: apps, Total: len(apps)}, nil, func() *show.Table { return topApps(apps) })
		}),
	}
	f.register(c)
	o.register(c, "json", "yaml")
	q.register(c, &f)
	return c
}

func restartCommand() *cobra.Command {
	var f hubFlags
	c := &cobra.Command{
		Use:   "restart NODE/APP[/CONTAINER]",
		Short: "Restart an app on a node, or one container of it",
		Long: `restart asks the node to stop and start the containers of an app. The node does so only if
remote: restart in its signed state grants it.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: first(completeWith(&f, targets)),
		RunE: f.run(func(c *cobra.Command, hub *client.Client, args []string) error {
			node, app, container, ok := client.ParseTarget(args[0])
			if !ok || app == "" {
				return exit.Usagef("%q: want NODE/APP or NODE/APP/CONTAINER", args[0])
			}
			patience := time.AfterFunc(3*time.Second, func() {
				fmt.Fprintf(c.ErrOrStderr(), "waiting for %s: its containers get their time to stop …\n", show.Text(node))
			})
			defer patience.Stop()
			err := hub.Restart(c.Context(), node, hubapi.RestartRequest{App: app, Container: container})
			if err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "%s restarted\n", show.Text(args[0]))
			return nil
		}),
	}
	f.register(c)
	return c
}
