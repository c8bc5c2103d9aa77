package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/show"
	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

// recentEvents is how many are shown with a node.
const recentEvents = 10

func nodeShowCommand(use, short string) *cobra.Command {
	var f hubFlags
	var o output
	c := &cobra.Command{
		Use: use, Short: short,
		Long: `It prints the node's conditions, the generations that are wanted, pulled, applied and proven
and what keeps it from the newest, its apps with every container, what it uses, and its latest
events.`,
		Args:              one("NODE"),
		ValidArgsFunction: first(completeWith(&f, nodeNames)),
		RunE: f.run(func(c *cobra.Command, hub *client.Client, args []string) error {
			return showNode(c, hub, args[0], &o)
		}),
	}
	f.register(c)
	o.register(c)
	return c
}

func showNode(c *cobra.Command, hub *client.Client, name string, o *output) error {
	d, err := hub.Node(c.Context(), name)
	if err != nil {
		return err
	}
	if !o.people() {
		return o.write(c, "", d, []string{d.Name}, nil)
	}
	// the node is worth showing without its events
	events, err := hub.Events(c.Context(), client.EventQuery{Node: name, Limit: recentEvents})
	w := c.OutOrStdout()
	if e := describe(w, d, events.Items, o.wide(), time.Now(), show.Colours(w)); e != nil || err == nil {
		return e
	}
	fmt.Fprintf(c.ErrOrStderr(), "events: %v\n", hubError(err))
	return nil
}

// describe prints a node for people.
func describe(w io.Writer, d hubapi.NodeDetail, events []hubapi.Event, wide bool, now time.Time, colours bool) error {
	head := &show.Table{}
	line := func(name string, value any) {
		if s, ok := value.(string); !ok || s != "" {
			head.Add(name, value)
		}
	}
	line("Name", d.Name)
	line("Workspace", d.Workspace)
	line("Labels", strings.ReplaceAll(labels(d.Labels), ",", ", "))
	line("Status", readiness(d.Status))
	line("Why", d.Why)
	seen := "never"
	if !d.LastSeen.IsZero() {
		seen = show.Ago(now, d.LastSeen) + " ago, " + d.LastSeen.Local().Format(time.RFC3339)
		switch {
		case d.Connected && d.Status == hubapi.Unknown:
			seen += ", its connection is silent"
		case d.Connected:
			seen += ", connected"
		}
	}
	line("Seen", seen)
	line("Held", d.Held)
	line("Clock", prefixed("differs from the hub's by ", d.ClockSkew))
	line("Key", d.PublicKey)
	if r := d.Report; r != nil {
		line("Agent", strings.Join(filled(d.Version, r.Agent.Runtime, "up "+show.Ago(now, r.Agent.Started)), ", "))
		m := r.Machine
		line("Machine", strings.Join(filled(m.Hostname, m.OS, m.Kernel, m.Arch, count(m.CPUs, "CPU"), show.Bytes(m.Memory)), ", "))
		line("Remote", remote(r.Remote))
	}
	line("Usage", usage(d.Usage))
	if err := head.Write(w, colours); err != nil {
		return err
	}
	if err := section(w, "State", stateTable(d), colours); err != nil {
		return err
	}
	conditions := &show.Table{Heading: []string{"TYPE", "SINCE", "MESSAGE"}}
	for _, c := range d.Conditions {
		conditions.Add(show.Cell{Text: c.Type, Colour: show.Yellow}, show.Ago(now, c.Since), c.Message)
	}
	if err := section(w, "Conditions", conditions, colours); err != nil {
		return err
	}
	if r := d.Report; r != nil {
		if err := section(w, "Instances", instanceTable(r, wide, now), colours); err != nil {
			return err
		}
	}
	return section(w, "Events", eventTable(oldestFirst(events), false, wide, now), colours)
}

func section(w io.Writer, title string, t *show.Table, colours bool) error {
	if len(t.Rows) == 0 {
		return nil
	}
	if _, err := fmt.Fprintf(w, "\n%s\n", show.Paint(title, show.Bold, colours)); err != nil {
		return err
	}
	for i := range t.Rows {
		t.Rows[i][0].Text = "  " + show.Text(t.Rows[i][0].Text)
	}
	if len(t.Heading) > 0 {
		t.Heading = slices.Clone(t.Heading)
		t.Heading[0] = "  " + t.Heading[0]
	}
	return t.Write(w, colours)
}

func stateTable(d hubapi.NodeDetail) *show.Table {
	t := &show.Table{Heading: []string{"", "GENERATION", "DIGEST", "COMMIT"}}
	add := func(name string, r wire.Ref) {
		if r.Generation != 0 {
			t.Add(name, strconv.FormatInt(r.Generation, 10), fmt.Sprintf("%.19s", r.Digest), fmt.Sprintf("%.12s", r.Commit))
		}
	}
	add("wanted", d.Wanted)
	add("pulled", d.Pulled)
	add("applied", d.Applied)
	add("last good", d.LastGood)
	r := d.Report
	if r == nil {
		return t
	}
	t.Add("phase", r.State.Phase)
	if p := r.State.Problem; p != "" {
		t.Add("problem", p)
	}
	if h := r.State.Hold; h != nil {
		t.Add("hold", h.Reason)
	}
	if e := r.State.LinkError; e != "" {
		t.Add("registry", e)
	}
	if e := r.State.Refused; e != nil {
		t.Add("refused", show.Cell{Text: e.Reason + ": " + e.Message, Colour: show.Red})
	}
	for _, j := range r.State.Rejected {
		t.Add("rejected", strconv.FormatInt(j.Generation, 10), j.Reason)
	}
	return t
}

func instanceTable(r *wire.Status, wide bool, now time.Time) *show.Table {
	t := &show.Table{Heading: instanceHeading("APP/CONTAINER", wide)}
	for _, a := range r.Apps {
		for _, i := range a.Containers {
			t.Add(append([]any{a.Name + "/" + i.Name}, instanceCells(i, wide, now)...)...)
		}
	}
	if r.LeftOut > 0 {
		t.Add(fmt.Sprintf("and %d more, which the report had no room for", r.LeftOut))
	}
	return t
}

func instanceHeading(name string, wide bool) []string {
	h := []string{name, "STATE", "HEALTHY", "RESTARTS", "SINCE", "CPU", "MEMORY", "IMAGE", "PROBLEM"}
	if wide {
		h = append(h, "DISK", "NETWORK IN", "NETWORK OUT", "ID")
	}
	return h
}

func instanceCells(i wire.Instance, wide bool, now time.Time) []any {
	state := i.State
	if state == "exited" {
		state += fmt.Sprintf(" (%d)", i.ExitCode)
	}
	healthy := show.Cell{Text: "yes", Colour: show.Green}
	if !i.Healthy {
		healthy = show.Cell{Text: "no", Colour: show.Red}
	}
	cpu, memory, disk, in, out := "", "", "", "", ""
	if u := i.Usage; u != nil {
		cpu, memory, disk, in, out = show.CPU(u.CPU), show.Bytes(u.Memory), show.Bytes(u.Disk), show.Bytes(u.NetRx), show.Bytes(u.NetTx)
	}
	cells := []any{state, healthy, restarts(i, now), show.Ago(now, i.Since), cpu, memory}
	if wide {
		return append(cells, i.Image, i.Problem, disk, in, out, i.ID)
	}
	return append(cells, show.Short(i.Image, 72), i.Problem)
}

// restarts tells how the last run ended, too: what crashes again and again is mostly seen running.
func restarts(i wire.Instance, now time.Time) string {
	n, e := strconv.Itoa(i.Restarts), i.LastExit
	switch {
	case e.At.IsZero():
		return n
	case e.Reason != "":
		return fmt.Sprintf("%s (stopped %s ago)", n, show.Ago(now, e.At))
	}
	return fmt.Sprintf("%s (exit %d, %s ago)", n, e.Code, show.Ago(now, e.At))
}

func remote(r nodestate.Remote) string {
	var out []string
	for _, x := range []struct {
		ok   bool
		name string
	}{{r.Logs, "logs"}, {r.Restart, "restart"}, {r.Exec, "exec"}, {r.Write, "write"}} {
		if x.ok {
			out = append(out, x.name)
		}
	}
	return cmp.Or(strings.Join(out, ", "), "nothing is granted")
}

func usage(u *wire.Usage) string {
	if u == nil {
		return ""
	}
	of := func(n, limit int64) string {
		if limit == 0 {
			return show.Bytes(n)
		}
		return show.Bytes(n) + " of " + show.Bytes(limit)
	}
	s := fmt.Sprintf("CPU %s, load %.2f, memory %s, disk %s, network in %s, out %s",
		show.CPU(u.CPU), u.Load, of(u.Memory, u.MemoryLimit), of(u.Disk, u.DiskLimit), show.Bytes(u.NetRx), show.Bytes(u.NetTx))
	if u.Temperature != nil {
		s += fmt.Sprintf(", %.0f °C", *u.Temperature)
	}
	return s
}

func filled(ss ...string) []string {
	return slices.DeleteFunc(ss, func(s string) bool { return s == "" })
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}
