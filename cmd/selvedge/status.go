package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/show"
	"selvedge/internal/exit"
	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
)

func statusCommand() *cobra.Command {
	var f hubFlags
	var o output
	var watch bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Tell whether the whole fleet runs what Git says",
		Long: `status counts the nodes that the caller may see, by state and by workspace, and says which commit
is in force. It exits 1 unless every node runs the newest state. With --watch it goes on, and
prints again when something changed: on a terminal in place of what it printed before, with -o json
a line each, with -o yaml a document each.`,
		Args: none,
		RunE: f.run(func(c *cobra.Command, hub *client.Client, _ []string) error {
			if watch {
				return watchStatus(c, hub, &o)
			}
			s, err := hub.Summary(c.Context())
			if err != nil {
				return err
			}
			w := c.OutOrStdout()
			if !o.people() {
				err = o.write(c, "", s, []string{s.Platform}, nil)
			} else {
				_, err = io.WriteString(w, summary(s, show.Colours(w)))
			}
			if err == nil && !converged(s) {
				err = exit.ErrFindings
			}
			return err
		}),
	}
	f.register(c)
	o.register(c)
	c.Flags().BoolVar(&watch, "watch", false, "go on, live, until interrupted")
	return c
}

// converged reports whether everything is as Git says: nodes without an identity are not
// expected to run anything.
func converged(s hubapi.Summary) bool {
	return s.Error == "" && s.Converged >= s.Nodes-s.Status[hubapi.Waiting] && s.Status[hubapi.NotReady]+s.Status[hubapi.Unknown] == 0
}

// maxProblems is how many problems of the repo a status shows.
const maxProblems = 10

func summary(s hubapi.Summary, colours bool) string {
	var b strings.Builder
	t := &show.Table{}
	t.Add("Platform", s.Platform)
	t.Add("In force", commit(s.InForce))
	if s.Seen.Hash != s.InForce.Hash || s.Error != "" {
		t.Add("Seen", commit(s.Seen)+prefixed(": not in force: ", s.Error))
	}
	state := show.Cell{Text: fmt.Sprintf("%d of %s run the newest state", s.Converged, count(s.Nodes, "node")), Colour: show.Green}
	if !converged(s) {
		state.Colour = show.Yellow
	}
	t.Add("Nodes", state)
	for _, r := range []hubapi.Readiness{hubapi.Ready, hubapi.NotReady, hubapi.Unknown, hubapi.Waiting} {
		if n := s.Status[r]; n > 0 {
			cell := readiness(r)
			cell.Text = fmt.Sprintf("%d %s", n, r)
			t.Add("", cell)
			t.Rows[len(t.Rows)-1][0].Text = " "
		}
	}
	if len(s.Conditions) > 0 {
		var cs []string
		for _, k := range slices.Sorted(maps.Keys(s.Conditions)) {
			cs = append(cs, fmt.Sprintf("%d %s", s.Conditions[k], k))
		}
		t.Add("Conditions", strings.Join(cs, ", "))
	}
	if s.Pending > 0 {
		t.Add("Pending", show.Cell{Text: fmt.Sprintf("%s for approval; see 'selvedge node pending'", waits(s.Pending)), Colour: show.Yellow})
	}
	_ = t.Write(&b, colours) // into memory
	ws := &show.Table{Heading: []string{"WORKSPACE", "NODES", "CONVERGED", "READY", "NOTREADY", "UNKNOWN"}}
	for _, w := range s.Workspaces {
		n := func(r hubapi.Readiness) string { return strconv.Itoa(w.Status[r]) }
		ws.Add(w.Path, strconv.Itoa(w.Nodes), strconv.Itoa(w.Converged), n(hubapi.Ready), n(hubapi.NotReady), n(hubapi.Unknown))
	}
	if len(ws.Rows) > 0 {
		b.WriteByte('\n')
		_ = ws.Write(&b, colours)
	}
	problems := slices.SortedStableFunc(slices.Values(s.Problems), func(a, b roster.Problem) int { return cmp.Compare(a.Severity, b.Severity) }) // errors first
	for i, p := range problems[:min(len(problems), maxProblems)] {
		if i == 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintln(&b, show.Text(p.Text))
	}
	if more := len(problems) - maxProblems; more > 0 {
		fmt.Fprintf(&b, "and %d more; see 'selvedge validate'\n", more)
	}
	return b.String()
}

func waits(n int) string {
	if n == 1 {
		return "1 node waits"
	}
	return fmt.Sprintf("%d nodes wait", n)
}

// commit is a commit in a line.
func commit(c roster.Commit) string {
	if c.Hash == "" {
		return "none"
	}
	return strings.TrimSpace(fmt.Sprintf("%.12s %s", c.Hash, c.Subject))
}

func watchStatus(c *cobra.Command, hub *client.Client, o *output) error {
	w := c.OutOrStdout()
	redraw := show.Movable(w) && o.people()
	before := ""
	draw := func(s hubapi.Summary) error {
		switch {
		case o.format == "json":
			return show.Line(w, s)
		case o.format == "yaml":
			fmt.Fprintln(w, "---") // the start of each document
			fallthrough
		case !o.people():
			return o.write(c, "", s, []string{s.Platform}, nil)
		}
		text := summary(s, show.Colours(w))
		if redraw { // also of the same: something else may stand there by now
			_, err := io.WriteString(w, show.Screen(text, show.Rows(w)))
			return err
		}
		if text == before {
			return nil
		}
		before = text
		_, err := io.WriteString(w, time.Now().Format(time.RFC3339)+"\n"+text+"\n")
		return err
	}
	s, err := hub.Summary(c.Context())
	if err != nil {
		return err
	}
	if err := draw(s); err != nil {
		return err
	}
	return watch(c, hub, client.WatchOptions{}, func(u hubapi.Update) error {
		if u.Summary != nil {
			return draw(*u.Summary)
		}
		return nil
	})
}
