package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"selvedge/internal/control"
	"selvedge/internal/exit"
	"selvedge/reconciler/hub"
)

func statusCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show how the hub on this machine does",
		Long:  "status exits 1 if the hub is not ready for nodes, and 3 if it does not run.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return exit.Usagef("unknown output %q; there are text and json", output)
			}
			var s hub.Status
			if err := control.Ask(c.Context(), data(c), http.MethodGet, "/status", &s); err != nil {
				if errors.Is(err, control.ErrNotRunning) {
					return fmt.Errorf("%w; start one with 'selvedge-hub run', or name its directory with --data", err)
				}
				return fmt.Errorf("hub in %s: %w", data(c), err)
			}
			if output == "json" {
				e := json.NewEncoder(c.OutOrStdout())
				e.SetIndent("", "  ")
				if err := e.Encode(s); err != nil {
					return err
				}
			} else if err := printStatus(c, s); err != nil {
				return err
			}
			if !s.Ready {
				return exit.ErrFindings
			}
			return nil
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return c
}

func printStatus(c *cobra.Command, s hub.Status) error {
	w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "hub\t%s, since %s\n", s.Version, s.Began.Format(time.RFC3339))
	fmt.Fprintf(w, "listens\t%s as %s\n", s.Address, strings.Join(s.URLs, ", "))
	ca := s.CA
	if ca == "" {
		ca = "a public one"
	}
	fmt.Fprintf(w, "CA\t%s\n", ca)
	if !s.Ready {
		fmt.Fprintf(w, "not ready\t%s\n", s.Why)
	}
	reconciler := "followed"
	if s.Behind {
		reconciler = "not heard: what is known may be old; the hub's log says why"
	}
	fmt.Fprintf(w, "reconciler\t%s\n", reconciler)
	if s.Roster.IsZero() {
		fmt.Fprintf(w, "fleet\tnot known: the reconciler has never answered\n")
	} else {
		fmt.Fprintf(w, "fleet\t%s, commit %.12s, told at %s\n", nodes(s.Nodes), s.Commit, s.Roster.Format(time.RFC3339))
	}
	fmt.Fprintf(w, "audit log\t%s\n", s.Audit)
	return w.Flush()
}

func caCommand() *cobra.Command {
	var digest bool
	c := &cobra.Command{
		Use:   "ca",
		Short: "Print the certificate of the hub's CA",
		Long:  "ca prints the certificate (PEM) that browsers and 'selvedge login --ca' can be given, or with --digest what join lines pin.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			pem, fingerprint, err := hub.CA(data(c))
			if err != nil {
				return err
			}
			if digest {
				fmt.Fprintln(c.OutOrStdout(), fingerprint)
				return nil
			}
			_, err = c.OutOrStdout().Write(pem)
			return err
		},
	}
	c.Flags().BoolVar(&digest, "digest", false, "print sha256: and the digest only")
	return c
}

func openapiCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "openapi",
		Short: "Print the OpenAPI 3.1 document of the API",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := hub.OpenAPI()
			if err != nil {
				return err
			}
			_, err = c.OutOrStdout().Write(b)
			return err
		},
	}
}

func nodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}
