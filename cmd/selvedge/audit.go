package main

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/show"
	"selvedge/internal/exit"
	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
)

func auditCommand() *cobra.Command {
	var f hubFlags
	var o output
	var q client.AuditQuery
	c := &cobra.Command{
		Use:     "audit",
		Short:   "Show who did what, by the hub's audit log",
		Example: "  selvedge audit --operation exec --node gw-7\n  selvedge audit --subject user:ana -o wide",
		Long:    `audit prints the latest entries of the hub's audit log, oldest first. It takes the role admin.`,
		Args:    none,
		RunE: f.run(func(c *cobra.Command, hub *client.Client, _ []string) error {
			if q.Limit < 1 {
				return exit.Usagef("--limit %d: want at least 1", q.Limit)
			}
			l, err := hub.Audit(c.Context(), q)
			if err != nil {
				return err
			}
			slices.SortFunc(l.Items, func(a, b hubapi.AuditEntry) int { return cmp.Compare(a.Seq, b.Seq) })
			numbers := names(l.Items, func(e hubapi.AuditEntry) string { return strconv.FormatUint(e.Seq, 10) })
			return o.write(c, "entries", l, numbers, func() *show.Table { return auditTable(l.Items, o.wide()) })
		}),
	}
	f.register(c)
	o.register(c)
	c.Flags().StringVar(&q.Subject, "subject", "", "of this one only, e.g. user:ana")
	c.Flags().StringVar(&q.Operation, "operation", "", "of this operation only, e.g. exec")
	c.Flags().StringVar(&q.Node, "node", "", "on this node only")
	c.Flags().IntVar(&q.Limit, "limit", 50, "at most so many")
	complete(c, "node", completeWith(&f, nodeNames))
	return c
}

func auditTable(entries []hubapi.AuditEntry, wide bool) *show.Table {
	t := &show.Table{Heading: []string{"TIME", "WHO", "TOKEN", "OPERATION", "OUTCOME", "WHERE", "DETAIL"}}
	if wide {
		t.Heading = append(t.Heading, "NUMBER", "FROM", "REQUEST")
	}
	for _, e := range entries {
		outcome := show.Cell{Text: e.Outcome}
		if e.Outcome == hubapi.OutcomeRefused || e.Outcome == hubapi.OutcomeFailed {
			outcome.Colour = show.Red
		}
		where := strings.Join(filled(e.Node, e.App, e.Container), "/")
		if where == "" {
			where = e.Scope
		}
		row := []any{e.Time.Local().Format(time.RFC3339), e.Subject, e.Token, e.Operation, outcome, where,
			strings.Join(filled(strings.Join(e.Command, " "), e.Detail), "; ")}
		if wide {
			row = append(row, strconv.FormatUint(e.Seq, 10), e.Remote, e.Request)
		}
		t.Add(row...)
	}
	return t
}
