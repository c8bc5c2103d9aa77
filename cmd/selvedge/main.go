// Command selvedge is the tool of those who write a config repo.
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
		Use:   "selvedge",
		Short: "Write, check and review what a fleet of edge nodes should run",
		Long: `selvedge works on a config repo: a Git repository of CUE files that says what every
node of a fleet should run. It needs neither the cloud nor a node.

Exit codes: 0 done, 1 findings in the repo, 2 wrong usage, 3 the environment.`,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	root.AddCommand(initCommand(), validateCommand(), buildCommand(), diffCommand(), keysCommand(), versionCommand())
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(c *cobra.Command, _ []string) { fmt.Fprintln(c.OutOrStdout(), version.String("selvedge")) },
	}
}
