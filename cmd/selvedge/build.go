package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"selvedge/internal/atomicfile"
	"selvedge/internal/exit"
	"selvedge/reconciler/validate"
	"selvedge/schema/fleet"
)

func buildCommand() *cobra.Command {
	var repo repoFlags
	var node, out string
	c := &cobra.Command{
		Use:   "build [DIR]",
		Short: "Render what nodes should run",
		Long: `build writes the content of node states: canonical JSON, byte for byte what the reconciler
would sign for the same files. With --node it prints one; without, it writes one file a node.
A workspace with errors is left out, as the reconciler would, and the exit code is 1.`,
		Example: "  selvedge build --node gw-7\n  selvedge build --rev HEAD~1 --out before/",
		Args:    atMostOne("directory"),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				repo.dir = args[0]
			}
			if (node == "") == (out == "") {
				return exit.Usagef("give --node NAME for one node, or --out DIR for all of them")
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
			if err := validate.WriteText(c.ErrOrStderr(), onlyErrors(r.problems)); err != nil {
				return err
			}
			if node != "" {
				return buildOne(c, r, node)
			}
			for name, n := range r.result.Nodes {
				if err := os.MkdirAll(out, 0o755); err != nil {
					return err
				}
				if err := atomicfile.Write(filepath.Join(out, name+".json"), n.Bytes(), 0o644); err != nil {
					return err
				}
			}
			fmt.Fprintf(c.ErrOrStderr(), "%s written to %s\n", count(len(r.result.Nodes), "state"), out)
			if r.errors() > 0 {
				return exit.ErrFindings
			}
			return nil
		},
	}
	repo.register(c)
	c.Flags().StringVar(&node, "node", "", "print the state of this node")
	c.Flags().StringVar(&out, "out", "", "write NODE.json for every node into this directory")
	return c
}

func buildOne(c *cobra.Command, r *rendered, node string) error {
	if n, ok := r.result.Nodes[node]; ok {
		_, err := c.OutOrStdout().Write(n.Bytes())
		return err
	}
	return exit.With(exit.Findings, fmt.Errorf("node %q has no state: %s", node, whyNot(r, node)))
}

// whyNot says why a node has no state.
func whyNot(r *rendered, node string) string {
	for _, name := range r.result.Awaiting {
		if name == node {
			return "it has no identity yet; put the public key that 'selvedge-edge init' prints under identity: publicKey"
		}
	}
	if h, ok := r.result.Held[node]; ok {
		return fmt.Sprintf("workspace %s is refused: %s", h.Workspace, h.Why)
	}
	for path, s := range r.fleet.Workspaces {
		if _, ok := s.Entities["node/"+node]; ok {
			return fmt.Sprintf("workspace %s is refused; see 'selvedge validate'", path)
		}
	}
	return "no accepted workspace declares it; see 'selvedge validate'"
}

func onlyErrors(ps []fleet.Problem) []fleet.Problem {
	var errs []fleet.Problem
	for _, p := range ps {
		if p.Severity == fleet.Error {
			errs = append(errs, p)
		}
	}
	return errs
}
