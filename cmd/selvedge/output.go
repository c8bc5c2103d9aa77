package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/show"
	"selvedge/internal/exit"
)

// output says how what a command shows is printed.
type output struct{ format string }

// The formats, beside the one for people.
var formats = []string{"wide", "json", "yaml", "name"}

// register gives a command all formats, so that scripts need not know which has which.
func (o *output) register(c *cobra.Command) {
	c.Flags().StringVarP(&o.format, "output", "o", "", strings.Join(formats, ", ")+"; default: a table for people")
	complete(c, "output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	check := c.PreRunE
	c.PreRunE = func(c *cobra.Command, args []string) error {
		if o.format != "" && !slices.Contains(formats, o.format) {
			return exit.Usagef("unknown output %q; there are %s", o.format, strings.Join(formats, ", "))
		}
		if check != nil {
			return check(c, args)
		}
		return nil
	}
}

func (o *output) wide() bool { return o.format == "wide" }

// people reports whether it is people who read it.
func (o *output) people() bool { return o.format == "" || o.wide() }

// write prints a value in the format asked for; names and table are those of people, who read
// on stderr that a list has nothing of what it is of.
func (o *output) write(c *cobra.Command, what string, v any, names []string, table func() *show.Table) error {
	w := c.OutOrStdout()
	switch o.format {
	case "json":
		return show.JSON(w, v)
	case "yaml":
		return show.YAML(w, v)
	case "name":
		for _, n := range names {
			fmt.Fprintln(w, show.Text(n))
		}
		return nil
	}
	t := table()
	if len(t.Rows) == 0 {
		fmt.Fprintf(c.ErrOrStderr(), "no %s\n", what)
		return nil
	}
	return t.Write(w, show.Colours(w))
}

// names are what a list is printed as for scripts.
func names[T any](items []T, name func(T) string) []string {
	out := make([]string, 0, len(items))
	for _, i := range items {
		out = append(out, name(i))
	}
	return out
}
