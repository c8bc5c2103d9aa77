package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"selvedge/internal/control"
	"selvedge/internal/exit"
	"selvedge/reconciler"
	"selvedge/reconciler/validate"
)

func statusCommand() *cobra.Command {
	var data, output string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what is published and what is refused",
		Long:  "status asks the reconciler that runs on this machine. It exits 1 if the newest commit is not wholly in force.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return exit.Usagef("unknown output %q; there are text and json", output)
			}
			var s reconciler.Status
			err := control.Ask(c.Context(), data, http.MethodGet, "/status", &s)
			if errors.Is(err, control.ErrNotRunning) {
				return fmt.Errorf("%w; start one with 'selvedge-reconciler run', or name its directory with --data", err)
			}
			if err != nil {
				return err
			}
			if output == "json" {
				writeStatus(c.OutOrStdout(), s)
			} else if err := printStatus(c.OutOrStdout(), s); err != nil {
				return err
			}
			if s.Error != "" || s.Seen.Hash != s.InForce.Hash || len(s.Held) > 0 {
				return exit.ErrFindings
			}
			return nil
		},
	}
	c.Flags().StringVar(&data, "data", "/var/lib/selvedge-reconciler", "the reconciler's data directory")
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return c
}

func writeStatus(w io.Writer, s reconciler.Status) {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.Encode(s) // a reader that went away needs no answer
}

func printStatus(w io.Writer, s reconciler.Status) error {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-11s %s\n", name, fmt.Sprintf(format, args...))
	}
	switch {
	case s.InForce.Hash == "" && s.Before > 0:
		line("in force", "nothing since the start; %d nodes keep the states that were published before", s.Before)
	case s.InForce.Hash == "":
		line("in force", "nothing yet")
	default:
		line("in force", "%.12s %s (%s)", s.InForce.Hash, s.InForce.Subject, s.InForce.Author)
	}
	if s.Seen.Hash != s.InForce.Hash {
		line("seen", "%.12s %s (%s), not in force", s.Seen.Hash, s.Seen.Subject, s.Seen.Author)
	}
	if s.Error != "" {
		line("error", "since %s: %s", s.Since.Format(time.RFC3339), s.Error)
	}
	line("nodes", "%d in %d workspaces, %d held, %d awaiting", s.Nodes, s.Workspaces, len(s.Held), len(s.Awaiting))
	if !s.Finished.IsZero() {
		line("last pass", "%s, signed %d, withdrew %d, took %s", s.Finished.Format(time.RFC3339), s.Signed, s.Removed, s.Took)
	}
	for _, name := range s.Awaiting {
		line("awaiting", "%s: no identity in Git; add the key that 'selvedge-edge init' prints", name)
	}
	if len(s.Problems) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return validate.WriteText(w, s.Problems)
}
