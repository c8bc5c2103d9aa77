// Command selvedge-edge is the agent that runs on every node.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"selvedge/edge/apply/containerd"
	"selvedge/internal/exit"
	"selvedge/internal/version"
)

func main() {
	// a container's logger or network hook is this program, started by containerd
	if handled, err := containerd.Reexec(); handled {
		if err != nil {
			fmt.Fprintln(os.Stderr, "selvedge-edge:", err)
			os.Exit(exit.Findings)
		}
		return
	}
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return exit.Execute(ctx, command(), os.Stderr)
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "selvedge-edge",
		Short: "Run what this node's signed state says",
		Long: `selvedge-edge pulls this node's desired state, verifies its signature and makes the machine run
it on containerd. Without a network it keeps running, and starts after a reboot, what it had.

Exit codes: 0 done, 1 the node is not well, 2 wrong usage, 3 the environment.`,
	}
	root.PersistentFlags().String("dir", "/var/lib/selvedge-edge", "directory of the agent: key, trust, states, files")
	root.AddCommand(joinCommand(), introduceCommand(), initCommand(), runCommand(), statusCommand(), holdCommand(), releaseCommand(), &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(c *cobra.Command, _ []string) { fmt.Fprintln(c.OutOrStdout(), version.String("selvedge-edge")) },
	})
	return root
}

func dir(c *cobra.Command) string {
	d, err := c.Flags().GetString("dir")
	if err != nil {
		panic(err) // declared above for every command
	}
	return d
}
