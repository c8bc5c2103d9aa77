// Command selvedge is the tool of those who write a config repo.
package main

import (
	"context"
	"errors"
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
		Short: "Write, check and review what a fleet of edge nodes should run; see and operate it",
		Long: `selvedge works on a config repo: a Git repository of CUE files that says what every
node of a fleet should run. For that it needs neither the cloud nor a node. It also asks a hub how
the fleet does, and operates nodes as far as they grant it.

Exit codes: 0 done; 1 the answer is no: findings in the repo, nodes that are behind, a name that
nobody has; 2 wrong usage; 3 the environment: a hub that is away, a right that is missing; 130
interrupted before it was done. exec ends with the code of the command that it ran.`,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	root.AddGroup(&cobra.Group{ID: "repo", Title: "The config repo:"}, &cobra.Group{ID: "hub", Title: "The fleet, by a hub:"})
	group := func(id string, cs ...*cobra.Command) {
		for _, c := range cs {
			c.GroupID = id
		}
		root.AddCommand(cs...)
	}
	group("repo", initCommand(), validateCommand(), buildCommand(), diffCommand(), keysCommand(), tokenCommand())
	group("hub", loginCommand(), logoutCommand(), contextCommand(), whoamiCommand(), statusCommand(), nodesCommand(), nodeCommand(),
		describeCommand(), appsCommand(), changesCommand(), eventsCommand(), logsCommand(), execCommand(), topCommand(), restartCommand(), auditCommand())
	root.AddCommand(versionCommand())
	root.Version = version.Version
	root.SetVersionTemplate(version.String("selvedge") + "\n")
	interruptible(root)
	return root
}

// interrupted is what shells call the end by Ctrl-C.
const interrupted = 128 + int(syscall.SIGINT)

// interruptible has commands that were interrupted end as what they are: not done. Only one
// that would go on for ever is done when it is told so.
func interruptible(c *cobra.Command) {
	for _, sub := range c.Commands() {
		interruptible(sub)
	}
	run := c.RunE
	if run == nil {
		return
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		err := run(c, args)
		if err == nil || !errors.Is(err, context.Canceled) || c.Context().Err() == nil {
			return err
		}
		for _, name := range []string{"follow", "watch"} {
			if f := c.Flags().Lookup(name); f != nil && f.Value.String() == "true" {
				return nil
			}
		}
		return exit.Quiet(interrupted)
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  none,
		Run:   func(c *cobra.Command, _ []string) { fmt.Fprintln(c.OutOrStdout(), version.String("selvedge")) },
	}
}
