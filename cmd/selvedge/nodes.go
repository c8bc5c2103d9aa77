package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/show"
	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

func nodesCommand() *cobra.Command {
	var f hubFlags
	var o output
	var q queryFlags
	c := &cobra.Command{
		Use:   "nodes [NODE…]",
		Short: "List nodes and how they do",
		Long: `nodes lists the nodes that the caller may see: whether they are Ready, the generation of the
state that Git wants and the one that they run, and when the hub heard of them last. All that is
known of one is shown by 'selvedge node show'.`,
		Example:           "  selvedge nodes -l role=gateway --status NotReady,Unknown\n  selvedge nodes -w folders/plant-a/line-1 -o wide",
		ValidArgsFunction: completeWith(&f, nodeNames),
		RunE: f.run(func(c *cobra.Command, hub *client.Client, args []string) error {
			l, err := q.nodes(c.Context(), hub, args)
			if err != nil {
				return err
			}
			return o.write(c, "nodes", l, names(l.Items, nodeName), func() *show.Table { return nodeTable(l.Items, o.wide(), time.Now()) })
		}),
	}
	f.register(c)
	o.register(c)
	q.register(c, &f)
	q.registerNodes(c, &f)
	return c
}

func nodeName(n hubapi.Node) string { return n.Name }

func nodeTable(nodes []hubapi.Node, wide bool, now time.Time) *show.Table {
	t := &show.Table{Heading: []string{"NAME", "STATUS", "WANTED", "APPLIED", "SEEN", "VERSION"}}
	if wide {
		t.Heading = append(t.Heading, "PROVEN", "WORKSPACE", "APPS", "RESTARTS", "LABELS", "WHY")
	}
	for _, n := range nodes {
		row := []show.Cell{
			{Text: n.Name}, readiness(n.Status), {Text: generation(n.Wanted)}, {Text: generation(n.Applied)},
			{Text: show.Ago(now, n.LastSeen)}, {Text: n.Version},
		}
		if wide {
			row = append(row, show.Cell{Text: generation(n.LastGood)}, show.Cell{Text: n.Workspace}, show.Cell{Text: fmt.Sprintf("%d/%d", n.Healthy, n.Apps)},
				show.Cell{Text: strconv.Itoa(n.Restarts)}, show.Cell{Text: labels(n.Labels)}, show.Cell{Text: n.Why})
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func readiness(r hubapi.Readiness) show.Cell {
	c := show.Cell{Text: string(r), Colour: show.Red}
	switch r {
	case hubapi.Ready:
		c.Colour = show.Green
	case hubapi.Unknown:
		c.Colour = show.Yellow
	case hubapi.Waiting:
		c.Colour = show.Dim
	}
	return c
}

func generation(r wire.Ref) string {
	if r.Generation == 0 {
		return ""
	}
	return strconv.FormatInt(r.Generation, 10)
}

func labels(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, ",")
}

func nodeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "node",
		Short: "Show a node; let nodes in, and remove them",
		Long: `node works on single nodes. A new node joins by the line that 'selvedge node join' prints,
waits in 'selvedge node pending', and is let in by 'selvedge node approve', which commits a file for
it to a clone of the config repo: the merge of that commit is what lets it in.`,
	}
	one := nodeShowCommand("show NODE", "Show all that is known of a node")
	c.AddCommand(one, nodePendingCommand(), nodeJoinCommand(), nodeApproveCommand(), nodeRejectCommand(), nodeRemoveCommand())
	return c
}
