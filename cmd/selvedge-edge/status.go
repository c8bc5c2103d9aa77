package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"selvedge/edge"
	"selvedge/internal/control"
	"selvedge/internal/exit"
)

func statusCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what this node runs, what it should run, and why not",
		Long:  "status exits 1 if the node does not run the newest state in health, or if its agent does not run.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return exit.Usagef("unknown output %q; there are text and json", output)
			}
			s, err := status(c.Context(), dir(c))
			if err != nil {
				return err
			}
			if output == "json" {
				e := json.NewEncoder(c.OutOrStdout())
				e.SetIndent("", "  ")
				err = e.Encode(s)
			} else {
				err = printStatus(c.OutOrStdout(), s)
			}
			if err == nil && !s.Well() {
				err = exit.ErrFindings
			}
			return err
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return c
}

func status(ctx context.Context, dir string) (edge.Status, error) {
	var s edge.Status
	err := control.Ask(ctx, dir, http.MethodGet, "/status", &s)
	if errors.Is(err, control.ErrNotRunning) {
		return edge.ReadStatus(dir)
	}
	return s, err
}

func printStatus(out io.Writer, s edge.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		// on one line, whatever a container printed
		fmt.Fprintf(w, "%s\t%s\n", name, strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " "))
	}
	if s.Node == "" {
		line("node", "no name yet; public key %s", s.PublicKey)
	} else {
		line("node", "%s", s.Node)
	}
	if !s.Running {
		line("agent", "does not run; what follows is from its files")
	}
	if s.Hub != nil {
		hubLines(line, s.Hub)
		if s.Hub.Joining {
			return w.Flush()
		}
	}
	switch cur := s.Store.Current; {
	case cur == nil:
		line("state", "none yet")
	case s.Store.LastGood != nil && s.Store.LastGood.Digest == cur.Digest:
		line("state", "generation %d, commit %.12s, good", cur.Generation, cur.Commit)
	default:
		line("state", "generation %d, commit %.12s, not proven yet", cur.Generation, cur.Commit)
	}
	if cur := s.Store.Current; cur != nil && s.Store.Floor.Generation > cur.Generation {
		line("wanted", "generation %d", s.Store.Floor.Generation)
	}
	if s.Running {
		line("update", "%s", s.Update.Phase)
	}
	if s.Update.Error != "" {
		line("", "%s", s.Update.Error)
	}
	if h := s.Store.Hold; h != nil {
		line("held", "since %s: %s; go on with 'selvedge-edge release'", h.Since.Format(time.RFC3339), h.Reason)
	}
	for _, r := range s.Store.Rejected {
		line("rejected", "generation %d at %s: %s", r.Generation, r.At.Format(time.RFC3339), r.Reason)
	}
	if s.Refused != nil {
		line("refused", "%s (%d times since %s)", s.Refused.Message, s.Refused.Count, s.Refused.Since.Format(time.RFC3339))
	}
	link := "never met"
	if t := s.Link.Contact; !t.IsZero() {
		link = "answered at " + t.Format(time.RFC3339)
	} else if t := s.Store.LastContact; !t.IsZero() {
		link = "answered at " + t.Format(time.RFC3339)
	}
	line("registry", "%s, %s", s.Registry, link)
	if s.Link.Error != "" {
		line("", "since %s: %s", s.Link.Since.Format(time.RFC3339), s.Link.Error)
	}
	if s.Apply.RuntimeError != "" {
		line("containerd", "%s", s.Apply.RuntimeError)
	}
	for _, p := range s.Store.Problems {
		line("store", "%s", p)
	}
	if len(s.Apply.Apps) > 0 {
		fmt.Fprintf(w, "\nAPP\tCONTAINER\tSTATE\tHEALTH\tRESTARTS\tPROBLEM\n")
	}
	for _, app := range s.Apply.Apps {
		for _, c := range app.Containers {
			health := "healthy"
			if !c.Healthy {
				health = "unhealthy"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", app.Name, c.Name, c.State, health, c.Restarts, strings.Join(strings.Fields(c.Problem), " "))
		}
	}
	return w.Flush()
}

// hubLines tell how the node stands with its hub.
func hubLines(line func(name, format string, args ...any), h *edge.Hub) {
	urls := strings.Join(h.URLs, ", ")
	switch {
	case h.Joining && h.Code != "":
		line("hub", "%s, waits for approval: selvedge node approve %s", urls, h.Code)
	case h.Joining:
		line("hub", "%s, waits for approval: selvedge node pending", urls)
	case h.Connected:
		line("hub", "%s, connected since %s", urls, h.Since.Format(time.RFC3339))
	default:
		line("hub", "%s, not connected", urls)
	}
	if h.Error != "" {
		line("", "since %s: %s", h.Since.Format(time.RFC3339), h.Error)
	}
	if h.Streams > 0 {
		line("", "%d streams of logs or commands are open", h.Streams)
	}
}
