package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"selvedge/internal/exit"
	"selvedge/reconciler/validate"
	"selvedge/schema/fleet"
)

func validateCommand() *cobra.Command {
	var repo repoFlags
	var output string
	c := &cobra.Command{
		Use:   "validate [DIR]",
		Short: "Check a config repo the way the reconciler does",
		Long: `validate evaluates every workspace, resolves every node, and prints all that is wrong:
the place, the cause and the next step. It exits 1 if anything would be refused; warnings
alone exit 0.`,
		Args: atMostOne("directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				repo.dir = args[0]
			}
			write, err := problemWriter(output)
			if err != nil {
				return err
			}
			tree, commit, done, err := repo.tree(c.Context())
			if err != nil {
				return err
			}
			defer done()
			v := validator()
			defer v.Close()
			r, err := render(c.Context(), v, tree, commit)
			if err != nil {
				return err
			}
			if err := write(c.OutOrStdout(), r.problems); err != nil {
				return err
			}
			errs := r.errors()
			if output == "text" {
				awaiting := ""
				if n := len(r.result.Awaiting); n > 0 {
					awaiting = fmt.Sprintf(" and %d awaiting an identity", n)
				}
				fmt.Fprintf(c.ErrOrStderr(), "%s, %s%s: %s, %s\n",
					count(len(r.fleet.Workspaces), "workspace"), count(len(r.result.Nodes), "node"), awaiting,
					count(errs, "error"), count(len(r.problems)-errs, "warning"))
			}
			if errs > 0 {
				return exit.ErrFindings
			}
			return nil
		},
	}
	repo.register(c)
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return c
}

func problemWriter(output string) (func(io.Writer, []fleet.Problem) error, error) {
	switch output {
	case "text":
		return validate.WriteText, nil
	case "json":
		return validate.WriteJSON, nil
	}
	return nil, exit.Usagef("unknown output %q; there are text and json", output)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
