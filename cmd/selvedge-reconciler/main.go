// Command selvedge-reconciler turns a config repo into signed states that nodes pull.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"selvedge/internal/exit"
	"selvedge/internal/version"
	"selvedge/reconciler/validate"
)

func main() {
	validate.Worker() // an evaluator child runs here and never returns
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return exit.Execute(ctx, command(), os.Stderr)
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "selvedge-reconciler",
		Short: "Turn a config repo into signed states that nodes pull",
		Long: `selvedge-reconciler watches a config repo, validates it, resolves each node's desired state,
signs it and publishes it: into its own store, which serves the OCI pull API, or into an OCI registry.

Exit codes: 0 done, 1 findings, 2 wrong usage, 3 the environment.`,
	}
	root.AddCommand(runCommand(), statusCommand(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) {
			fmt.Fprintln(c.OutOrStdout(), version.String("selvedge-reconciler"))
		},
	})
	return root
}
