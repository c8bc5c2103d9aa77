package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"selvedge/edge"
	"selvedge/internal/control"
)

func holdCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "hold",
		Short: "Keep this node where it is: begin no newer state",
		Long: `hold stops updates, across restarts, until 'selvedge-edge release'. What runs goes on, and is
restarted if it dies.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := edge.Hold(dir(c), reason); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), "held; go on with 'selvedge-edge release'")
			return wake(c.Context(), dir(c))
		},
	}
	c.Flags().StringVar(&reason, "reason", "by hand", "why, for those who look at the node's status")
	return c
}

func releaseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "release",
		Short: "End a hold, and try again what failed here",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := edge.Release(dir(c)); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), "released")
			return wake(c.Context(), dir(c))
		},
	}
}

// wake has a running agent look at once; one that does not run looks when it starts.
func wake(ctx context.Context, dir string) error {
	var none struct{}
	if err := control.Ask(ctx, dir, http.MethodPost, "/wake", &none); !errors.Is(err, control.ErrNotRunning) {
		return err
	}
	return nil
}
