package main

import (
	"strings"

	"github.com/spf13/cobra"

	"selvedge/internal/exit"
	"selvedge/reconciler/hub/client"
)

func describeCommand() *cobra.Command {
	var f hubFlags
	var o output
	node := nodeShowCommand("node NODE", "Show all that is known of a node")
	change := changeShowCommand("change COMMIT", "Show how far a commit got, node by node")
	node.Aliases, change.Aliases = []string{"nodes"}, []string{"changes"}
	c := &cobra.Command{
		Use:               "describe NODE | node/NODE | change/COMMIT",
		Short:             "Show all that is known of one thing",
		Example:           "  selvedge describe gw-7\n  selvedge describe change 1a2b3c4d",
		Args:              atMostOne("NODE, node/NODE or change/COMMIT"),
		ValidArgsFunction: first(completeWith(&f, nodeNames)),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			kind, name, ok := strings.Cut(args[0], "/")
			if !ok {
				kind, name = node.Name(), kind
			}
			return f.run(func(c *cobra.Command, hub *client.Client, _ []string) error {
				switch {
				case name == "":
				case kind == node.Name() || node.HasAlias(kind):
					return showNode(c, hub, name, &o)
				case kind == change.Name() || change.HasAlias(kind):
					return showChange(c, hub, name, &o)
				}
				return exit.Usagef("%q: want NODE, node/NODE or change/COMMIT", args[0])
			})(c, args)
		},
	}
	f.register(c)
	o.register(c)
	c.AddCommand(node, change)
	return c
}
