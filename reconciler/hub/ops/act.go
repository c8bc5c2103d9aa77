package ops

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"selvedge/reconciler/access"
	"selvedge/reconciler/hub/audit"
	"selvedge/reconciler/hub/bus"
	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// Bounds of join tokens.
const (
	joinTTL    = time.Hour
	maxJoinTTL = 24 * time.Hour
	maxJoin    = 1000
)

// record makes an entry of the audit log for what a caller does.
func record(c Caller, operation string) hubapi.AuditEntry {
	return hubapi.AuditEntry{Subject: c.Subject.String(), Token: c.Token, Remote: c.Remote, Request: c.Request, Operation: operation}
}

// begin writes down that something is about to be done. On an error it must not be.
func (o *Ops) begin(ctx context.Context, a hubapi.AuditEntry) error {
	a.Outcome = hubapi.OutcomeBegun
	if err := o.c.Audit.Append(ctx, a); err != nil {
		o.count.unlogged.Inc()
		o.c.Log.Error("refused, because it cannot be audited", "operation", a.Operation, "subject", a.Subject, "error", err)
		return unavailable("%s was not done, because it cannot be written into the audit log: %v", a.Operation, err)
	}
	return nil
}

// finish writes down how it ended. It is done, audited as begun; an error is only logged.
func (o *Ops) finish(a hubapi.AuditEntry, err error) {
	if a.Outcome = hubapi.OutcomeDone; err != nil {
		a.Outcome, a.Detail = reason(err)
	}
	o.count.done.WithLabelValues(a.Operation, a.Outcome).Inc()
	// the caller may be gone, which changes nothing of what happened
	if err := o.c.Audit.Append(context.Background(), a); err != nil {
		o.count.unlogged.Inc()
		o.c.Log.Error("how it ended is not in the audit log", "operation", a.Operation, "outcome", a.Outcome, "detail", a.Detail, "error", err)
	}
}

// refuse writes down that a right was missing, and returns why. What was merely invalid, or
// about something that the caller cannot see, is not worth a line.
func (o *Ops) refuse(a hubapi.AuditEntry, err error) error {
	outcome, detail := reason(err)
	if outcome != hubapi.OutcomeRefused {
		return err
	}
	o.count.done.WithLabelValues(a.Operation, outcome).Inc()
	if o.refusals.allow(a.Subject, o.c.Now()) {
		a.Outcome, a.Detail = outcome, detail
		if err := o.c.Audit.Append(context.Background(), a); err != nil {
			o.count.unlogged.Inc()
			o.c.Log.Error("a refusal is not in the audit log", "operation", a.Operation, "subject", a.Subject, "error", err)
		}
	}
	return err
}

// target finds the node to act on, and asks for the right, for a known app, and for what the
// node's state grants.
func (e *entry) target(name, app string, a access.Action) (roster.Node, error) {
	n, err := e.node(name)
	if err != nil {
		return n, err
	}
	if err := e.may(n.Workspace, a); err != nil {
		return n, err
	}
	word, granted := "", false
	switch a {
	case access.Logs:
		word, granted = "logs", n.Remote.Logs
	case access.Exec:
		word, granted = "exec", n.Remote.Exec
	case access.Operate:
		word, granted = "restart", n.Remote.Restart
	}
	if !granted {
		return n, denied("%s: its state in Git does not grant %s to the cloud; write `remote: %s: true` into node: %q in workspace %s and merge it", name, word, word, name, n.Workspace)
	}
	if n.PublicKey == "" {
		return n, offline("%s has no identity in Git yet, so nothing can connect as it; let it join, or put its public key there", name)
	}
	if app != "" && !slices.Contains(n.Apps, app) {
		return n, notFound("%s runs no app %q; it runs: %s", name, clip(app), orNone(n.Apps))
	}
	return n, nil
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	if len(names) > 20 {
		return strings.Join(names[:20], ", ") + fmt.Sprintf(" and %d more", len(names)-20)
	}
	return strings.Join(names, ", ")
}

// Restart restarts an app of a node, or one container of it.
func (o *Ops) Restart(ctx context.Context, c Caller, node string, r hubapi.RestartRequest) error {
	e, err := o.enter(c)
	if err != nil {
		return err
	}
	a := record(e.Caller, "restart")
	a.Node, a.App, a.Container = node, r.App, r.Container
	if r.App == "" {
		return invalid("name the app to restart")
	}
	if err := validName("container", r.Container); err != nil {
		return err
	}
	n, err := e.target(node, r.App, access.Operate)
	a.Scope = n.Workspace
	if err != nil {
		return o.refuse(a, err)
	}
	if err := o.begin(ctx, a); err != nil {
		return err
	}
	// it goes on if the caller leaves: half a restart is nothing that anybody wants
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.c.RestartTime)
	defer cancel()
	var answer wire.Answer
	err = o.c.Bus.Request(whole, node, wire.VerbRestart, wire.RestartRequest{By: e.Subject.String(), App: r.App, Container: r.Container}, &answer)
	if err == nil && answer.Error != nil {
		err = answer.Error
	}
	switch {
	case errors.Is(err, bus.ErrNotReady) && ctx.Err() != nil:
		err = unavailable("the hub is stopping, and %s has not said yet that it is done: see 'selvedge node show %s'", node, node)
	case errors.Is(err, bus.ErrTimeout), errors.Is(err, context.DeadlineExceeded): // a container may have longer to stop
		err = problem(http.StatusGatewayTimeout, hubapi.ReasonTimeout, "the node has not said that it is done",
			"%s has not said within %v that it is done; its connection may be cut, or a container takes its time to stop: see 'selvedge node show %s'", node, o.c.RestartTime, node)
	case err != nil:
		err = nodeProblem(node, err)
	}
	o.finish(a, err)
	return err
}

// guide finds a guide by its key or, if one only has it, its name.
func (e *entry) guide(name string) (string, roster.Guide, error) {
	if g, ok := e.view.Fleet.Guides[name]; ok && e.visible(g.Scope) {
		return name, g, nil
	}
	var found []string
	for _, key := range guideKeys(e.view.Fleet.Guides) {
		if g := e.view.Fleet.Guides[key]; g.Name == name && e.visible(g.Scope) {
			found = append(found, key)
		}
	}
	switch len(found) {
	case 0:
		return "", roster.Guide{}, notFound("there is no accessGuide %q that %s may see", clip(name), e.Subject)
	case 1:
		return found[0], e.view.Fleet.Guides[found[0]], nil
	}
	return "", roster.Guide{}, invalid("%d guides are named %q; give one of: %s", len(found), name, orNone(found))
}

// JoinTokens makes tokens that let nodes ask to join.
func (o *Ops) JoinTokens(ctx context.Context, c Caller, r hubapi.JoinTokenRequest) (hubapi.JoinTokens, error) {
	none := hubapi.JoinTokens{}
	e, err := o.enter(c)
	if err != nil {
		return none, err
	}
	ttl := joinTTL
	if r.TTL != "" {
		if ttl, err = time.ParseDuration(r.TTL); err != nil || ttl < time.Minute || ttl > maxJoinTTL {
			return none, invalid("ttl %q: want a duration from 1m to 24h, such as 30m", clip(r.TTL))
		}
	}
	if r.Count == 0 {
		r.Count = 1
	}
	if r.Count < 1 || r.Count > maxJoin {
		return none, invalid("count %d: want 1 to %d", r.Count, maxJoin)
	}
	key, g, err := e.guide(r.Guide)
	if err != nil {
		return none, err
	}
	a := record(e.Caller, "joinTokens")
	a.Scope, a.Detail = g.Scope, fmt.Sprintf("guide %s, %d tokens, for %v", key, r.Count, ttl)
	if err := e.may(g.Scope, access.Join); err != nil {
		return none, o.refuse(a, err)
	}
	if err := o.begin(ctx, a); err != nil {
		return none, err
	}
	tokens, expires, err := o.c.Enrol.JoinTokens(ctx, key, e.Subject.String(), ttl, r.Count)
	if err != nil {
		err = unavailable("join tokens for %s: %v", key, err)
	}
	o.finish(a, err)
	if err != nil {
		return none, err
	}
	return hubapi.JoinTokens{Tokens: tokens, Expires: expires, Hub: o.c.Hub, CA: o.c.CA, Fingerprint: e.view.Fleet.Fingerprint}, nil
}

// Pending lists nodes that wait for approval where the caller may let nodes join.
func (o *Ops) Pending(ctx context.Context, c Caller) (hubapi.List[hubapi.Pending], error) {
	none := hubapi.List[hubapi.Pending]{}
	e, err := o.enter(c)
	if err != nil {
		return none, err
	}
	if err := e.anywhere(access.Join); err != nil {
		return none, err
	}
	all, err := o.c.Enrol.Pending(ctx)
	if err != nil {
		return none, unavailable("nodes that wait: %v", err)
	}
	items := e.mine(all)
	return hubapi.List[hubapi.Pending]{Items: items, Total: len(items)}, nil
}

// anywhere asks for a right in any scope.
func (e *entry) anywhere(a access.Action) error {
	for _, b := range access.Roles(e.view.Fleet.Bindings, e.Subject) {
		if access.Decide(e.view.Fleet.Bindings, e.Subject, b.Scope, a).Allowed {
			return nil
		}
	}
	return e.may(e.Scope, a)
}

// mine keeps of what waits that where the caller may let nodes join.
func (e *entry) mine(all []hubapi.Pending) []hubapi.Pending {
	can := access.Can(e.view.Fleet.Bindings, e.Subject, access.Join)
	items := []hubapi.Pending{}
	for _, p := range all {
		if can(p.Scope) {
			items = append(items, p)
		}
	}
	return items
}

// pendingOf is what waits, as far as the caller may let it in; nothing if that is not known.
func (o *Ops) pendingOf(ctx context.Context, e *entry) []hubapi.Pending {
	if e.anywhere(access.Join) != nil {
		return nil
	}
	all, err := o.c.Enrol.Pending(ctx)
	if err != nil {
		o.c.Log.Debug("nodes that wait are not known", "error", err)
		return nil
	}
	return e.mine(all)
}

// DropPending forgets a node that waits.
func (o *Ops) DropPending(ctx context.Context, c Caller, code string) error {
	e, err := o.enter(c)
	if err != nil {
		return err
	}
	a := record(e.Caller, "dropPending")
	a.Detail = "code " + clip(code)
	if err := e.anywhere(access.Join); err != nil {
		return o.refuse(a, err)
	}
	all, err := o.c.Enrol.Pending(ctx)
	if err != nil {
		return unavailable("nodes that wait: %v", err)
	}
	i := slices.IndexFunc(all, func(p hubapi.Pending) bool { return strings.EqualFold(p.Code, code) })
	if i < 0 || !e.visible(all[i].Scope) {
		return notFound("no node waits with the code %q; see selvedge node pending", clip(code))
	}
	p := all[i]
	a.Scope, a.Node, a.Detail = p.Scope, p.Name, "code "+p.Code
	if err := e.may(p.Scope, access.Join); err != nil {
		return o.refuse(a, err)
	}
	if err := o.begin(ctx, a); err != nil {
		return err
	}
	if err = o.c.Enrol.Drop(ctx, p.Code); err != nil {
		err = unavailable("drop %s: %v", p.Code, err)
	}
	o.finish(a, err)
	return err
}

// AuditQuery chooses entries of the audit log.
type AuditQuery struct {
	Before                   uint64 // with a lower Seq; 0: from the newest
	Limit                    int    // 0 means 100; at most 1,000
	Subject, Operation, Node string // empty: any
}

// Audit lists what was done where the caller is admin, newest first, and the Before of the
// next page; 0 if there is none.
func (o *Ops) Audit(ctx context.Context, c Caller, q AuditQuery) ([]hubapi.AuditEntry, uint64, error) {
	e, err := o.enter(c)
	if err != nil {
		return nil, 0, err
	}
	a := record(e.Caller, "audit")
	if err := e.anywhere(access.Audit); err != nil {
		return nil, 0, o.refuse(a, err)
	}
	can := access.Can(e.view.Fleet.Bindings, e.Subject, access.Audit)
	return o.c.Audit.Page(ctx, audit.Query{Before: q.Before, Limit: q.Limit, Keep: func(a *hubapi.AuditEntry) bool {
		return can(a.Scope) &&
			(q.Subject == "" || a.Subject == q.Subject) &&
			(q.Operation == "" || a.Operation == q.Operation) &&
			(q.Node == "" || a.Node == q.Node)
	}})
}
