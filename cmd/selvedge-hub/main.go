// Command selvedge-hub is the one public port of a fleet: nodes and people meet there.
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
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return exit.Execute(ctx, command(), os.Stderr)
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "selvedge-hub",
		Short: "See and run the fleet: the one port that nodes and people dial",
		Long: `selvedge-hub serves everything that nodes and people need on one HTTPS port: the live connection
of nodes, their states and images, the API and the console. It holds nothing that can sign a state
or write to Git.

Exit codes: 0 done, 1 findings, 2 wrong usage, 3 the environment.`,
	}
	root.PersistentFlags().String("data", "/var/lib/selvedge-hub", "directory for keys, certificate, status and audit log")
	root.AddCommand(runCommand(), statusCommand(), caCommand(), busConfigCommand(), auditCommand(), openapiCommand(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(c *cobra.Command, _ []string) { fmt.Fprintln(c.OutOrStdout(), version.String("selvedge-hub")) },
	})
	return root
}

func data(c *cobra.Command) string {
	d, err := c.Flags().GetString("data")
	if err != nil {
		panic(err) // declared above for every command
	}
	return d
}
