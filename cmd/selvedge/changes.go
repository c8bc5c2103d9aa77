package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/show"
	"selvedge/internal/exit"
	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
)

func changesCommand() *cobra.Command {
	var f hubFlags
	var o output
	var limit int
	c := &cobra.Command{
		Use:   "changes",
		Short: "List commits that took effect, and how far each got",
		Long: `changes lists the latest commits in force, newest first: how many nodes each touched, how many
run it, or something newer, and on how many it failed. 'selvedge describe change COMMIT' shows
the nodes of one.`,
		Args: none,
		RunE: f.run(func(c *cobra.Command, hub *client.Client, _ []string) error {
			if limit < 1 {
				return exit.Usagef("--limit %d: want at least 1", limit)
			}
			l, err := hub.Changes(c.Context(), limit)
			if err != nil {
				return err
			}
			hashes := names(l.Items, func(ch hubapi.Change) string { return ch.Hash })
			return o.write(c, "changes", l, hashes, func() *show.Table { return changeTable(l.Items, o.wide(), time.Now()) })
		}),
	}
	f.register(c)
	o.register(c)
	c.Flags().IntVar(&limit, "limit", 20, "at most so many")
	return c
}

func changeTable(changes []hubapi.Change, wide bool, now time.Time) *show.Table {
	t := &show.Table{Heading: []string{"COMMIT", "AGE", "NODES", "DONE", "FAILED", "REMOVED", "AUTHOR", "SUBJECT"}}
	for _, ch := range changes {
		hash, age, author, subject := fmt.Sprintf("%.12s", ch.Hash), show.Ago(now, ch.At), authorName(ch.Author), show.Short(ch.Subject, 72)
		if wide { // nothing is cut
			hash, age, author, subject = ch.Hash, ch.At.Local().Format(time.RFC3339), ch.Author, ch.Subject
			t.Heading[1] = "IN FORCE"
		}
		t.Add(hash, age, strconv.Itoa(ch.Touched), progress(ch), failed(ch.Failed), strconv.Itoa(ch.Removed), author, subject)
	}
	return t
}

// authorName is an author without the address.
func authorName(author string) string {
	n, _, _ := strings.Cut(author, " <")
	return show.Short(n, 24)
}

func progress(ch hubapi.Change) show.Cell {
	c := show.Cell{Text: strconv.Itoa(ch.Done), Colour: show.Green}
	if ch.Done < ch.Touched {
		c.Colour = show.Yellow
	}
	return c
}

func failed(n int) show.Cell {
	c := show.Cell{Text: strconv.Itoa(n)}
	if n > 0 {
		c.Colour = show.Red
	}
	return c
}

func changeShowCommand(use, short string) *cobra.Command {
	var f hubFlags
	var o output
	c := &cobra.Command{
		Use: use, Short: short, Args: one("COMMIT"),
		ValidArgsFunction: first(completeWith(&f, commits)),
		RunE: f.run(func(c *cobra.Command, hub *client.Client, args []string) error {
			return showChange(c, hub, args[0], &o)
		}),
	}
	f.register(c)
	o.register(c)
	return c
}

func showChange(c *cobra.Command, hub *client.Client, commit string, o *output) error {
	ch, err := hub.Change(c.Context(), commit)
	if err != nil {
		return err
	}
	if !o.people() {
		return o.write(c, "", ch, []string{ch.Hash}, nil)
	}
	w, t := c.OutOrStdout(), &show.Table{}
	t.Add("Commit", ch.Hash)
	t.Add("Subject", ch.Subject)
	t.Add("Author", ch.Author)
	t.Add("In force", ch.At.Local().Format(time.RFC3339))
	t.Add("Progress", fmt.Sprintf("%d of %s done, %d failed, %d removed", ch.Done, count(ch.Touched, "node"), ch.Failed, ch.Removed))
	if err := t.Write(w, show.Colours(w)); err != nil {
		return err
	}
	nodes := &show.Table{Heading: []string{"NODE", "WORKSPACE", "GENERATION", "STATE"}}
	for _, n := range ch.Nodes {
		nodes.Add(n.Node, n.Workspace, strconv.FormatInt(n.Generation, 10), n.State)
	}
	return section(w, "Nodes", nodes, show.Colours(w))
}
