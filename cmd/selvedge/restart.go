package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/show"
	"selvedge/internal/exit"
	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
)

func restartCommand() *cobra.Command {
	var f hubFlags
	var name string
	c := &cobra.Command{
		Use:   "restart NODE/APP[/CONTAINER]",
		Short: "Restart an app on a node, or one container of it",
		Long: `restart asks the node to stop and start the containers of an app. The node does so only if
remote: restart in its signed state grants it.`,
		Args:              one("NODE/APP[/CONTAINER]"),
		ValidArgsFunction: first(completeWith(&f, targets)),
		RunE: f.run(func(c *cobra.Command, hub *client.Client, args []string) error {
			node, app, container, err := target(args[0], name)
			if err != nil {
				return err
			}
			if app == "" {
				return exit.Usagef("%q: want NODE/APP or NODE/APP/CONTAINER", args[0])
			}
			patience := time.AfterFunc(3*time.Second, func() {
				fmt.Fprintf(c.ErrOrStderr(), "waiting for %s: its containers get their time to stop …\n", show.Text(node))
			})
			defer patience.Stop()
			err = hub.Restart(c.Context(), node, hubapi.RestartRequest{App: app, Container: container})
			if err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "%s restarted\n", show.Text(strings.Join(filled(node, app, container), "/")))
			return nil
		}),
	}
	f.register(c)
	registerContainer(c, &f, &name)
	return c
}
