package ops

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"selvedge/reconciler/access"
	"selvedge/reconciler/hub/audit"
	"selvedge/reconciler/hub/bus"
	"selvedge/reconciler/hub/enrol"
	"selvedge/reconciler/hub/follow"
	"selvedge/reconciler/hub/status"
	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
)

// Config says what Ops is made of.
type Config struct {
	Follow *follow.Follower // New adds itself to its OnDelta
	Bus    *bus.Bus
	Enrol  *enrol.Enrol
	Status *status.Store
	Audit  *audit.Log

	Hub string // URL for the join line
	CA  string // sha256: of the CA for the join line; empty: a public one

	CallerStreams int // open at once for one subject; 0 means 20
	Streams       int // in all; 0 means 2,000

	RestartTime time.Duration // how long a restart is waited for; 0 means 90 s: containers get their time to stop

	Log *slog.Logger     // nil: slog.Default()
	Now func() time.Time // nil: time.Now
}

// Ops does what people ask for. It is safe for concurrent use.
type Ops struct {
	c        Config
	tokens   atomic.Pointer[access.Tokens] // of the newest roster; nil until there is one
	failures quota                         // wrong tokens, by source
	refusals quota                         // lines of the audit log about missing rights, by subject
	count    counters

	mu     sync.Mutex
	guards map[*guard]struct{}
	open   map[string]int // streams by subject
	total  int
}

// New returns an Ops. Call it before Follower.Run.
func New(c Config) *Ops {
	if c.CallerStreams <= 0 {
		c.CallerStreams = 20
	}
	if c.Streams <= 0 {
		c.Streams = 2000
	}
	if c.RestartTime <= 0 {
		c.RestartTime = 90 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	o := &Ops{c: c, guards: map[*guard]struct{}{}, open: map[string]int{}, count: newCounters()}
	c.Follow.OnDelta(o.delta)
	return o
}

// Caller is somebody whose token was shown. Only Authenticate makes one that is of use.
type Caller struct {
	access.Subject           // as it was then; operations look it up anew
	Token          string    // its name
	Expires        time.Time // of the token
	Remote         string    // address, for the audit log
	Request        string    // ID, for the audit log
	hash           string    // of the token: what makes it a caller
}

// Authenticate tells whose token it is. remote is the caller's address: host or host:port.
// After many failures from one source it answers those with "too many" and keeps them out
// of the log; tokens that are valid pass all the same.
func (o *Ops) Authenticate(token, remote string) (Caller, error) {
	tokens := o.tokens.Load()
	if tokens == nil {
		return Caller{}, unavailable("the hub does not know the fleet yet: the reconciler has not answered since it was started")
	}
	h, err := tokens.Authenticate(token, o.c.Now())
	if err != nil {
		o.count.tokens.Inc()
		if !o.failures.allow(source(remote), o.c.Now()) {
			return Caller{}, busy("too many wrong tokens from your address; wait a minute")
		}
		o.c.Log.Warn("a token was refused", "remote", remote, "error", err)
		return Caller{}, unauthorized("%v", err)
	}
	return Caller{Subject: h.Subject, Token: h.Token, Expires: h.Expires, Remote: remote, hash: access.Hash(token)}, nil
}

// fresh returns the caller as the newest roster has them.
func (o *Ops) fresh(c Caller) (Caller, error) {
	tokens := o.tokens.Load()
	if tokens == nil || c.hash == "" {
		return Caller{}, unauthorized("%v", access.ErrToken)
	}
	h, err := tokens.ByHash(c.hash, o.c.Now())
	if err != nil {
		return Caller{}, unauthorized("%v", err)
	}
	c.Subject, c.Token, c.Expires = h.Subject, h.Token, h.Expires
	return c, nil
}

// entry is a caller at the door: what they may do by one roster.
type entry struct {
	Caller
	view    *follow.View
	visible func(workspace string) bool
}

// enter looks the caller up and asks that they have a role somewhere.
func (o *Ops) enter(c Caller) (*entry, error) {
	c, err := o.fresh(c)
	if err != nil {
		return nil, err
	}
	view := o.c.Follow.View()
	if len(access.Roles(view.Fleet.Bindings, c.Subject)) == 0 {
		d := access.Decide(view.Fleet.Bindings, c.Subject, c.Scope, access.View)
		return nil, forbidden(d, c.Scope)
	}
	return &entry{c, view, access.Visible(view.Fleet.Bindings, c.Subject)}, nil
}

// may asks for a right at a scope that the caller sees.
func (e *entry) may(scope string, a access.Action) error {
	d := access.Decide(e.view.Fleet.Bindings, e.Subject, scope, a)
	if d.Allowed {
		return nil
	}
	return forbidden(d, scope)
}

// node finds a node that the caller may see.
func (e *entry) node(name string) (roster.Node, error) {
	n, ok := e.view.Node(name)
	if !ok || !e.visible(n.Workspace) {
		return roster.Node{}, notFound("there is no node %q that %s may see", clip(name), e.Subject)
	}
	return n, nil
}

// clip keeps what a stranger wrote short.
func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

// reason names an error for the audit log.
func reason(err error) (outcome, detail string) {
	if p, ok := errors.AsType[*hubapi.Problem](err); ok {
		switch p.Reason {
		case hubapi.ReasonForbidden, hubapi.ReasonDenied:
			return hubapi.OutcomeRefused, p.Detail
		}
	}
	return hubapi.OutcomeFailed, err.Error()
}
