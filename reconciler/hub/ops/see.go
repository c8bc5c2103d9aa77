package ops

import (
	"context"
	"net/http"
	"slices"
	"sort"
	"time"

	"selvedge/reconciler/access"
	"selvedge/reconciler/hub/status"
	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
)

// Query chooses nodes, and what is on them. Visible is for Ops to set.
type Query = status.Query

// EventQuery chooses events. Visible is for Ops to set.
type EventQuery = status.EventQuery

// Whoami tells the caller who they are. It needs no role.
func (o *Ops) Whoami(_ context.Context, c Caller) (hubapi.Whoami, error) {
	c, err := o.fresh(c)
	if err != nil {
		return hubapi.Whoami{}, err
	}
	roles := access.Roles(o.c.Follow.View().Fleet.Bindings, c.Subject)
	if roles == nil {
		roles = []roster.Binding{}
	}
	return hubapi.Whoami{Subject: c.Subject.String(), Groups: c.Groups, Token: c.Token, Expires: c.Expires, Roles: roles}, nil
}

// Summary counts what the caller may see.
func (o *Ops) Summary(ctx context.Context, c Caller) (hubapi.Summary, error) {
	e, err := o.enter(c)
	if err != nil {
		return hubapi.Summary{}, err
	}
	s := o.summarize(e, o.c.Status.Summary(e.visible))
	s.Pending = len(o.pendingOf(ctx, e))
	return s, nil
}

// summarize takes out of a summary what is about parts that the caller does not see.
func (o *Ops) summarize(e *entry, s hubapi.Summary) hubapi.Summary {
	whole := e.visible("")
	s.Problems = slices.DeleteFunc(slices.Clone(s.Problems), func(p roster.Problem) bool { return !e.visible(p.Workspace) })
	if s.Error != "" && !whole {
		s.Error = "the newest commit is not in force; who sees the platform sees why"
	}
	if !whole {
		// a commit that touches nothing of theirs is not theirs to read
		s.Seen, s.InForce = roster.Commit{Hash: s.Seen.Hash, Time: s.Seen.Time}, roster.Commit{Hash: s.InForce.Hash, Time: s.InForce.Time}
	}
	return s
}

// Nodes lists nodes.
func (o *Ops) Nodes(_ context.Context, c Caller, q Query) (hubapi.List[hubapi.Node], error) {
	return list(o, c, q, o.c.Status.Nodes)
}

// Instances lists containers of apps.
func (o *Ops) Instances(_ context.Context, c Caller, q Query) (hubapi.List[hubapi.Instance], error) {
	return list(o, c, q, o.c.Status.Instances)
}

// Apps lists apps.
func (o *Ops) Apps(_ context.Context, c Caller, q Query) (hubapi.List[hubapi.App], error) {
	return list(o, c, q, o.c.Status.Apps)
}

// list asks the status store with the caller's eyes.
func list[T any](o *Ops, c Caller, q Query, ask func(Query) (hubapi.List[T], error)) (l hubapi.List[T], err error) {
	e, err := o.enter(c)
	if err != nil {
		return l, err
	}
	q.Visible = e.visible
	if l, err = ask(q); err != nil {
		return hubapi.List[T]{}, queryProblem(err)
	}
	if l.Items == nil {
		l.Items = []T{}
	}
	return l, nil
}

// Node tells all that is known of a node.
func (o *Ops) Node(_ context.Context, c Caller, name string) (hubapi.NodeDetail, error) {
	e, err := o.enter(c)
	if err != nil {
		return hubapi.NodeDetail{}, err
	}
	n, err := e.node(name)
	if err != nil {
		return hubapi.NodeDetail{}, err
	}
	d, ok := o.c.Status.Node(name)
	if !ok { // Git has it, and the store learns of it a moment later
		d = hubapi.NodeDetail{Node: hubapi.Node{Name: name, Workspace: n.Workspace, Labels: n.Labels, Status: hubapi.Unknown}}
	}
	return d, nil
}

// NodeEvents lists events of a node.
func (o *Ops) NodeEvents(ctx context.Context, c Caller, name string, q EventQuery) (hubapi.List[hubapi.Event], error) {
	e, err := o.enter(c)
	if err != nil {
		return hubapi.List[hubapi.Event]{}, err
	}
	if _, err := e.node(name); err != nil {
		return hubapi.List[hubapi.Event]{}, err
	}
	q.Node = name
	return o.Events(ctx, c, q)
}

// Events lists events.
func (o *Ops) Events(_ context.Context, c Caller, q EventQuery) (hubapi.List[hubapi.Event], error) {
	e, err := o.enter(c)
	if err != nil {
		return hubapi.List[hubapi.Event]{}, err
	}
	q.Visible = e.visible
	l, err := o.c.Status.EventList(q)
	if err != nil {
		return hubapi.List[hubapi.Event]{}, queryProblem(err)
	}
	if l.Items == nil {
		l.Items = []hubapi.Event{}
	}
	return l, nil
}

// Metrics returns the history of a node's usage.
func (o *Ops) Metrics(_ context.Context, c Caller, name string, since time.Time) (hubapi.Metrics, error) {
	e, err := o.enter(c)
	if err != nil {
		return hubapi.Metrics{}, err
	}
	if _, err := e.node(name); err != nil {
		return hubapi.Metrics{}, err
	}
	m, _ := o.c.Status.Metrics(name, since) // nothing known is an empty history
	if m.Node == nil {
		m.Node = []hubapi.Sample{}
	}
	return m, nil
}

// Changes lists commits that took effect and touch something that the caller sees.
func (o *Ops) Changes(_ context.Context, c Caller, limit int, cont string) (hubapi.List[hubapi.Change], error) {
	e, err := o.enter(c)
	if err != nil {
		return hubapi.List[hubapi.Change]{}, err
	}
	l, err := o.c.Status.ChangeList(e.visible, limit, cont)
	if err != nil {
		return hubapi.List[hubapi.Change]{}, queryProblem(err)
	}
	if l.Items == nil {
		l.Items = []hubapi.Change{}
	}
	return l, nil
}

// Change tells how far a commit got; the start of its hash will do.
func (o *Ops) Change(_ context.Context, c Caller, hash string) (hubapi.Change, error) {
	e, err := o.enter(c)
	if err != nil {
		return hubapi.Change{}, err
	}
	ch, ok := o.c.Status.Change(hash, e.visible)
	if !ok {
		return hubapi.Change{}, notFound("there is no commit %q that took effect lately and touches what %s may see; selvedge-hub keeps the latest few hundred", clip(hash), e.Subject)
	}
	return ch, nil
}

// Watch sends updates of what a query chooses. The channel is closed when ctx ends, when the
// caller's rights change (who asks again gets what they may see then) or their token
// expires; ended tells which. It counts as a stream.
func (o *Ops) Watch(ctx context.Context, c Caller, q Query) (updates <-chan hubapi.Update, ended func() error, err error) {
	e, err := o.enter(c)
	if err != nil {
		return nil, nil, err
	}
	was := access.Roles(e.view.Fleet.Bindings, e.Subject)
	ctx, release, err := o.guarded(ctx, e, "", func(now *entry) error {
		if !slices.EqualFunc(was, access.Roles(now.view.Fleet.Bindings, now.Subject), func(a, b roster.Binding) bool {
			return a.Scope == b.Scope && a.Role == b.Role
		}) {
			return problem(http.StatusForbidden, hubapi.ReasonForbidden, "rights changed", "what %s may see changed in Git; ask again", now.Subject)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if _, err := o.c.Status.Nodes(Query{Labels: q.Labels, Limit: 1, Visible: e.visible}); err != nil {
		release()
		return nil, nil, queryProblem(err)
	}
	q.Visible = e.visible
	caller := e.Caller // and not e: a stream that lasts for weeks must not keep an old roster
	out := make(chan hubapi.Update, 16)
	go func() { // ends with ctx, as the store's channel does
		defer release()
		defer close(out)
		for u := range o.c.Status.Watch(ctx, q) {
			if u.Summary != nil {
				now, err := o.enter(caller)
				if err != nil {
					continue // the guard is about to end it
				}
				sum := o.summarize(now, *u.Summary)
				sum.Pending = len(o.pendingOf(ctx, now))
				u.Summary = &sum
			}
			select {
			case out <- u:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, func() error { return endedBy(ctx) }, nil
}

// Guides lists guides by which nodes may join scopes that the caller sees.
func (o *Ops) Guides(ctx context.Context, c Caller) (hubapi.List[hubapi.Guide], error) {
	e, err := o.enter(c)
	if err != nil {
		return hubapi.List[hubapi.Guide]{}, err
	}
	waiting := map[string]int{}
	for _, p := range o.pendingOf(ctx, e) {
		waiting[p.Guide]++
	}
	l := hubapi.List[hubapi.Guide]{Items: []hubapi.Guide{}}
	for _, key := range guideKeys(e.view.Fleet.Guides) {
		if g := e.view.Fleet.Guides[key]; e.visible(g.Scope) {
			l.Items = append(l.Items, hubapi.Guide{Guide: g, Nodes: e.view.Guided(g), Pending: waiting[key]})
		}
	}
	l.Total = len(l.Items)
	return l, nil
}

func guideKeys(guides map[string]roster.Guide) []string {
	keys := make([]string, 0, len(guides))
	for key := range guides {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
