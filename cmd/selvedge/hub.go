package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"selvedge/cmd/selvedge/account"
	"selvedge/cmd/selvedge/show"
	"selvedge/internal/exit"
	"selvedge/internal/version"
	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
)

// hubFlags say which hub a command asks.
type hubFlags struct{ context string }

func (f *hubFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.context, "context", "", "hub to ask, by the name given at login; default: the current one")
	complete(c, "context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		b, err := account.Load()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return b.Names(), cobra.ShellCompDirectiveNoFileComp
	})
}

func (f *hubFlags) client() (*client.Client, error) {
	a, err := account.Pick(f.context)
	if err != nil {
		return nil, err
	}
	return client.New(client.Config{URL: a.Hub, Token: a.Token, CA: a.CA, UserAgent: "selvedge/" + version.Version})
}

// run makes a command's RunE of what it does with a hub.
func (f *hubFlags) run(do func(c *cobra.Command, hub *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		hub, err := f.client()
		if err != nil {
			return err
		}
		defer hub.Close()
		return hubError(do(c, hub, args))
	}
}

// hubError gives what a hub says an exit code and a next step, and takes out of it what a
// terminal would act on.
func hubError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || exit.Said(err) || exit.Code(err) != exit.Environment {
		return err
	}
	p, ok := errors.AsType[*hubapi.Problem](err)
	if !ok {
		return errors.New(show.Text(err.Error()))
	}
	text, code := show.Text(err.Error()), exit.Environment
	switch p.Reason {
	case hubapi.ReasonNotFound, hubapi.ReasonConflict:
		code = exit.Findings
	case hubapi.ReasonInvalid:
		code = exit.Usage
	case hubapi.ReasonUnauthorized:
		if !strings.Contains(text, "token create") { // the hub did not say it
			text += "; 'selvedge token create' makes one that is valid"
		}
		text += "; then 'selvedge login' with it"
	case hubapi.ReasonForbidden:
		if p.Needs != "" && !strings.Contains(text, p.Needs) {
			text += "; it takes the role " + show.Text(p.Needs)
			if p.Scope != "" {
				text += " at " + show.Text(p.Scope)
			}
		}
	}
	return exit.With(code, errors.New(text))
}

// tell prints an error at once, where others go on, and returns its exit code.
func tell(c *cobra.Command, err error) int {
	err = hubError(err)
	fmt.Fprintf(c.ErrOrStderr(), "%s: %v\n", c.Root().Name(), err)
	return exit.Code(err)
}

// queryFlags select nodes.
type queryFlags struct {
	client.Query
	status []string
}

func (q *queryFlags) register(c *cobra.Command, f *hubFlags) {
	c.Flags().StringVarP(&q.Labels, "selector", "l", "", "labels, e.g. role=gateway,line!=2,'site in (a,b)'")
	c.Flags().StringVarP(&q.Workspace, "workspace", "w", "", "of this workspace, e.g. folders/plant-a/line-1")
	c.Flags().StringVar(&q.Folder, "folder", "", "of this folder and below")
	c.Flags().StringVar(&q.App, "app", "", "that should run this app")
	complete(c, "selector", completeWith(f, labelPairs))
	complete(c, "folder", completeWith(f, folders))
	complete(c, "app", completeWith(f, appNames))
	complete(c, "workspace", completeWith(f, workspaces))
}

// orders are those of lists of nodes.
var orders = []string{"name", "workspace", "status", "cpu", "memory", "restarts", "lastSeen"}

// registerNodes adds what only lists of nodes are asked for.
func (q *queryFlags) registerNodes(c *cobra.Command, f *hubFlags) {
	c.Flags().StringSliceVar(&q.status, "status", nil, "Ready, NotReady, Unknown or Waiting; may be given several times")
	c.Flags().StringVar(&q.Condition, "condition", "", "with this condition, e.g. DiskPressure")
	complete(c, "condition", completeWith(f, conditions))
	c.Flags().StringVarP(&q.Search, "query", "q", "", "with this text in the name")
	c.Flags().StringVar(&q.Sort, "sort-by", "", "name, workspace, status (worst first), cpu, memory, restarts (most first) or lastSeen (longest ago first); with - in front turned round")
	complete(c, "sort-by", cobra.FixedCompletions(orders, cobra.ShellCompDirectiveNoFileComp))
	c.Flags().IntVar(&q.Limit, "limit", 0, "at most so many; 0: all")
	complete(c, "status", cobra.FixedCompletions([]string{"Ready", "NotReady", "Unknown", "Waiting"}, cobra.ShellCompDirectiveNoFileComp))
}

func (q *queryFlags) query() (client.Query, error) {
	known := []hubapi.Readiness{hubapi.Ready, hubapi.NotReady, hubapi.Unknown, hubapi.Waiting}
	out := q.Query
	if order := strings.TrimPrefix(q.Sort, "-"); q.Sort != "" && !slices.Contains(orders, order) {
		return out, exit.Usagef("unknown order %q; there are %s", order, strings.Join(orders, ", "))
	}
	for _, s := range q.status {
		i := slices.IndexFunc(known, func(k hubapi.Readiness) bool { return strings.EqualFold(string(k), s) })
		if i < 0 {
			return out, exit.Usagef("unknown status %q; there are Ready, NotReady, Unknown and Waiting", s)
		}
		out.Status = append(out.Status, known[i])
	}
	return out, nil
}

// chosen reports whether flags choose nodes.
func (q *queryFlags) chosen() bool {
	return q.Labels != "" || q.Workspace != "" || q.Folder != "" || q.App != "" || q.Condition != "" || q.Search != "" || len(q.status) > 0
}

// nodes are those that are named, or that flags choose.
func (q *queryFlags) nodes(ctx context.Context, hub *client.Client, names []string) (hubapi.List[hubapi.Node], error) {
	if len(names) == 0 {
		query, err := q.query()
		if err != nil {
			return hubapi.List[hubapi.Node]{}, err
		}
		return hub.Nodes(ctx, query)
	}
	if q.chosen() || q.Limit != 0 || q.Sort != "" {
		return hubapi.List[hubapi.Node]{}, exit.Usagef("give nodes by name or by flags that choose them, not both")
	}
	l := hubapi.List[hubapi.Node]{Total: len(names)}
	for _, name := range names {
		if name == "" {
			return l, exit.Usagef("a node has a name, and one of those given is empty")
		}
		d, err := hub.Node(ctx, name)
		if err != nil {
			return l, err
		}
		l.Items = append(l.Items, d.Node)
	}
	return l, nil
}

// ofApp is the query with the app that an argument names, if there is one.
func (q *queryFlags) ofApp(args []string) (client.Query, error) {
	query, err := q.query()
	if len(args) == 0 || err != nil {
		return query, err
	}
	if query.App != "" && query.App != args[0] {
		return query, exit.Usagef("give one app, not %q and --app %q", args[0], query.App)
	}
	query.App = args[0]
	return query, nil
}

// noApp is the answer to who names an app and gets nothing of it.
func noApp(args []string, found int) error {
	if len(args) == 0 || found > 0 {
		return nil
	}
	return exit.With(exit.Findings, fmt.Errorf("there is no app %s here, or none that you may see", show.Text(args[0])))
}
