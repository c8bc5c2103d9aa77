package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/parser"
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
		Long: `remove deletes the file that 'selvedge node approve' wrote for a node, checks the commit that it
makes, and makes it. A file that says anything else is left to people. The merge of that commit
revokes the node at once: its connection is closed, its pulls are refused. What runs on it goes on
until somebody stops it there; to empty a node first, merge drain: true. It asks no hub.`,
		Args: one("NODE"),
		RunE: func(c *cobra.Command, args []string) error {
			name := args[0]
			bench, err := w.open(c.Context())
			if err != nil {
				return err
			}
			defer bench.close()
			file, err := approval(bench, name)
			if err != nil {
				return err
			}
			ch := clone.Change{Remove: []string{file}, Subject: "node " + name + ": remove"}
			after, err := bench.check(c, ch)
			if err != nil {
				return err
			}
			if _, ok := after.result.Nodes[name]; ok {
				return exit.With(exit.Findings, fmt.Errorf("node %q would still have a key, from elsewhere than %s; see where with 'git grep', and remove it there", name, file))
			}
			for other := range bench.before.result.Nodes {
				if _, ok := after.result.Nodes[other]; !ok && other != name {
					return exit.With(exit.Findings, fmt.Errorf("node %q would go with it: %s; nothing was written", other, whyNot(after, other)))
				}
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

// approval finds the file that 'selvedge node approve' wrote for a node: by its name, and by
// what stands in it, for a person may have written more there.
func approval(w *workbench, name string) (string, error) {
	origin, refused := "", ""
	for ws, s := range w.before.fleet.Workspaces {
		o, ok := s.Entities["node/"+name]
		if !ok {
			continue
		}
		origin = o.String()
		for _, file := range nodeFiles(ws, name) {
			text, err := w.tree.ReadFile(file)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return "", err
			}
			if ofNode(text, name) {
				return file, nil
			}
			refused = file
		}
	}
	switch {
	case origin == "":
		return "", exit.With(exit.Findings, fmt.Errorf("no workspace declares a node %q", name))
	case refused != "":
		return "", exit.With(exit.Findings, fmt.Errorf("%s says more than of node %q, or has no identity of it; take that node out of it by hand, and commit", refused, name))
	}
	return "", exit.With(exit.Findings, fmt.Errorf("node %q is declared at %s, which 'selvedge node approve' did not write; remove it there", name, origin))
}

// ofNode tells whether a file is of one node and its identity, and of nothing else.
func ofNode(text []byte, name string) bool {
	f, err := parser.ParseFile("", text)
	if err != nil {
		return false
	}
	decls := slices.DeleteFunc(f.Decls, func(d ast.Decl) bool {
		switch d.(type) {
		case *ast.Package, *ast.CommentGroup:
			return true
		}
		return false
	})
	for _, want := range []string{"node", name} {
		if len(decls) != 1 {
			return false
		}
		field, ok := decls[0].(*ast.Field)
		if !ok {
			return false
		}
		if label, _, err := ast.LabelName(field.Label); err != nil || label != want {
			return false
		}
		of, ok := field.Value.(*ast.StructLit)
		if !ok {
			return false
		}
		decls = of.Elts
	}
	return slices.ContainsFunc(decls, func(d ast.Decl) bool {
		field, ok := d.(*ast.Field)
		if !ok {
			return false
		}
		label, _, err := ast.LabelName(field.Label)
		return err == nil && label == "identity"
	})
}
