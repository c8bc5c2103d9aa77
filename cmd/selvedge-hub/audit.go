package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"selvedge/internal/exit"
	"selvedge/reconciler/hub"
	"selvedge/reconciler/hub/audit"
)

func auditCommand() *cobra.Command {
	var heads []string
	var first uint64
	c := &cobra.Command{
		Use:   "audit-verify",
		Short: "Check that no line of the audit log was changed or taken out",
		Long: `audit-verify walks the chain of hashes through all files of the audit log and prints its head. The hub may
run meanwhile.

Lines cut off the end, and a log made anew, show only against a head that was kept elsewhere: 'selvedge-hub
status' prints it; give it back later with --head. Where old files were moved away on purpose, say with --first
which entry the log may begin with.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var kept []audit.Head
			for _, s := range heads {
				h, err := audit.ParseHead(s)
				if err != nil {
					return exit.Usagef("--head: %w", err)
				}
				kept = append(kept, h)
			}
			r, err := hub.VerifyAudit(data(c), kept...)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%d entries in %d files, head %s\n", r.Lines, len(r.Files), r.Head)
			bad := false
			if r.First > first {
				bad = true
				fmt.Fprintf(c.ErrOrStderr(), "begins with entry %d: what was before was taken away; if that was you, give --first %d\n", r.First, r.First)
			}
			if r.Broken != nil {
				bad = true
				fmt.Fprintln(c.ErrOrStderr(), r.Broken)
			}
			if bad {
				return exit.ErrFindings
			}
			return nil
		},
	}
	c.Flags().StringArrayVar(&heads, "head", nil, "SEQ:HASH that was the head once and must still be in the log; may be given again")
	c.Flags().Uint64Var(&first, "first", 1, "number of the entry that the log may begin with, as older ones were moved away")
	return c
}
