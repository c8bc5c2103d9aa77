package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/clone"
	"selvedge/cmd/selvedge/show"
	"selvedge/internal/exit"
)

func nodeRemoveCommand() *cobra.Command {
	var w changeFlags
	c := &cobra.Command{
		Use:   "remove NODE",
		Short: "Commit the removal of the file that let a node in",
		Long: `remove deletes the file that 'selvedge node approve' wrote for a node, checks the commit
that it makes, and makes it. The merge of that commit revokes the node at once: its connection is closed,
its pulls are refused. What runs on it goes on until somebody stops it there; to empty a node
first, merge drain: true. It asks no hub.`,
		Args: one("NODE"),
		RunE: func(c *cobra.Command, args []string) error {
			name := args[0]
			bench, err := w.open(c.Context())
			if err != nil {
				return err
			}
			defer bench.close()
			file, where := "", ""
			for ws, s := range bench.before.fleet.Workspaces {
				o, ok := s.Entities["node/"+name]
				if !ok {
					continue
				}
				where = o.String()
				own := path.Join(ws, "node-"+name+".cue")
				if _, err := fs.Stat(bench.tree, own); err == nil {
					file = own
				} else if !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			switch {
			case where == "":
				return exit.With(exit.Findings, fmt.Errorf("no workspace declares a node %q", name))
			case file == "":
				return exit.With(exit.Findings, fmt.Errorf("node %q is declared at %s, which 'selvedge node approve' did not write; remove it there", name, where))
			}
			ch := clone.Change{Remove: []string{file}, Subject: "node " + name + ": remove"}
			after, err := bench.check(c, ch)
			if err != nil {
				return err
			}
			if _, ok := after.result.Nodes[name]; ok {
				return exit.With(exit.Findings, fmt.Errorf("node %q would still have a key, from elsewhere than %s; see where with 'git grep', and remove it there", name, file))
			}
			done, err := bench.finish(c, ch, "Remove node "+show.Text(name)+"?")
			if done {
				fmt.Fprintln(c.OutOrStdout(), file)
			}
			return err
		},
	}
	w.register(c)
	c.Flags().BoolVar(&w.yes, "yes", false, "do not ask")
	return c
}
