package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"selvedge/internal/exit"
	"selvedge/reconciler/resolve"
	"selvedge/reconciler/validate"
)

func diffCommand() *cobra.Command {
	var repo repoFlags
	var base, output string
	c := &cobra.Command{
		Use:   "diff [DIR]",
		Short: "Show which nodes a change touches, and how",
		Long: `diff renders every node at a base revision and in the files of the working directory (or at
--rev), and lists the nodes whose state differs. Problems of the newer side are printed first;
it exits 1 if there are errors.`,
		Example: "  selvedge diff                          # what my uncommitted changes would do\n  selvedge diff --base main --rev HEAD   # what this branch would do",
		Args:    atMostOne("directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				repo.dir = args[0]
			}
			if output != "text" && output != "json" {
				return exit.Usagef("unknown output %q; there are text and json", output)
			}
			ctx := c.Context()
			v := validator()
			defer v.Close()
			old, hash, err := revision(ctx, repo.dir, base)
			if err != nil {
				return fmt.Errorf("base: %w", err)
			}
			before, err := render(ctx, v, old, hash)
			if err != nil {
				return err
			}
			tree, commit, done, err := repo.tree(ctx)
			if err != nil {
				return err
			}
			defer done()
			after, err := render(ctx, v, tree, commit)
			if err != nil {
				return err
			}
			if err := validate.WriteText(c.ErrOrStderr(), onlyErrors(after.problems)); err != nil {
				return err
			}
			changes := resolve.Diff(before.result, after.result)
			if output == "json" {
				e := json.NewEncoder(c.OutOrStdout())
				e.SetIndent("", "  ")
				if err := e.Encode(changes); err != nil {
					return err
				}
			} else {
				for _, ch := range changes {
					fmt.Fprintln(c.OutOrStdout(), ch)
				}
				fmt.Fprintf(c.ErrOrStderr(), "%s changed\n", count(len(changes), "node"))
			}
			if after.errors() > 0 {
				return exit.ErrFindings
			}
			return nil
		},
	}
	repo.register(c)
	c.Flags().StringVar(&base, "base", "HEAD", "revision to compare with")
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return c
}
