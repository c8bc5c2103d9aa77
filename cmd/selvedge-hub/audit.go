package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"selvedge/internal/exit"
	"selvedge/reconciler/hub"
)

func auditCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "audit-verify",
		Short: "Check that no line of the audit log was changed or taken out",
		Long: `audit-verify walks the chain of hashes through all files of the audit log and prints its head. Lines cut
off the end show only against a head that was kept elsewhere: 'selvedge-hub status' prints it.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			r, err := hub.VerifyAudit(data(c))
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%d entries in %d files, head %d %s\n", r.Lines, len(r.Files), r.Head.Seq, r.Head.Hash)
			if r.First > 1 {
				fmt.Fprintf(c.OutOrStdout(), "begins with entry %d: older files were taken away\n", r.First)
			}
			if r.Broken != nil {
				fmt.Fprintln(c.ErrOrStderr(), r.Broken)
				return exit.ErrFindings
			}
			return nil
		},
	}
}
