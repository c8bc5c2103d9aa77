package reconciler

import (
	"cmp"
	"context"
	"maps"
	"reflect"
	"slices"
	"time"

	"selvedge/reconciler/resolve"
	"selvedge/schema/fleet"
	"selvedge/schema/nodestate"
	"selvedge/schema/roster"
)

// told is the roster as hubs know it.
type told struct {
	begun bool // anything was told ever, or is known to be
	fleet roster.Fleet
	trust string
	nodes map[string]roster.Node
}

// Recall reads back what earlier passes left, and has the feed tell what is in force. Call it
// before hubs are served; Run and Once do it otherwise.
func (r *Reconciler) Recall() error { return r.load() }

// recall takes up the roster that was told before the start. What became of it since, if a
// pass was killed, is told by what is published and by who was accepted last.
func (r *Reconciler) recall() error {
	r.told.nodes = map[string]roster.Node{}
	if r.cfg.Feed == nil {
		return nil
	}
	last, ok, err := r.cfg.Feed.Last()
	if err != nil || !ok {
		return err
	}
	heads, err := r.cfg.Publisher.Heads()
	if err != nil {
		return err
	}
	if last.Fleet != nil {
		r.told.fleet = *last.Fleet
	}
	r.told.begun, r.told.trust = true, last.Trust
	for name, n := range last.Nodes {
		r.told.nodes[name] = n
	}
	keys := keysOf(r.accepted)
	remembered := len(r.accepted.Nodes) > 0 // else somebody took the file away, to have it made anew
	e := roster.Event{Nodes: map[string]roster.Node{}, Trust: last.Trust}
	for name, n := range last.Nodes {
		head, now := heads[name], n
		_, known := r.accepted.Nodes[name]
		if !known && remembered || n.Generation > 0 && head.ContentDigest == "" {
			e.Removed = append(e.Removed, name)
			continue
		}
		if remembered {
			now.PublicKey = keys[name]
		}
		if head.ContentDigest != "" && head.Generation != n.Generation {
			now.Generation, now.Digest, now.Commit = head.Generation, head.ContentDigest, ""
		}
		if !reflect.DeepEqual(now, n) {
			e.Nodes[name] = now
		}
	}
	return r.tell(e, true)
}

// keysOf returns the public keys by node.
func keysOf(a resolve.Accepted) map[string]string {
	out := make(map[string]string, len(a.Keys))
	for key, name := range a.Keys {
		out[name] = key
	}
	return out
}

// keysNow returns the public keys by node that a pass resolved; those in force are remembered.
func (r *Reconciler) keysNow(p *pass) map[string]string {
	if !p.result.SameHolders {
		return keysOf(p.result.Accepted)
	}
	if r.keys == nil {
		r.keys = keysOf(r.accepted)
	}
	return r.keys
}

// tell has the feed tell an event, and notes what is told then. With first, somebody may lose
// something by it.
func (r *Reconciler) tell(e roster.Event, first bool) error {
	if r.cfg.Feed == nil {
		return nil
	}
	tell := r.cfg.Feed.Add
	if e.Reset || len(e.Removed) > 0 || first {
		tell = r.cfg.Feed.Tell
	}
	if err := tell(e); err != nil {
		return err
	}
	if e.Reset {
		r.told.nodes = make(map[string]roster.Node, len(e.Nodes))
	}
	r.told.begun = true
	if e.Fleet != nil {
		r.told.fleet = *e.Fleet
	}
	r.told.trust = e.Trust
	for name, n := range e.Nodes {
		r.told.nodes[name] = n
	}
	for _, name := range e.Removed {
		delete(r.told.nodes, name)
	}
	return nil
}

// revoke tells at once, before anything is signed, who is no longer let in: nodes that
// are gone or have another key, and what people may do.
func (r *Reconciler) revoke(_ context.Context, p *pass) error {
	if !r.told.begun || r.cfg.Feed == nil {
		return nil
	}
	p.keys = r.keysNow(p)
	keys := p.keys
	e := roster.Event{Nodes: map[string]roster.Node{}, Trust: r.told.trust}
	for name, t := range r.told.nodes {
		if _, ok := p.result.Accepted.Nodes[name]; !ok {
			e.Removed = append(e.Removed, name)
			continue
		}
		if t.PublicKey != keys[name] {
			n := t
			n.PublicKey = keys[name]
			e.Nodes[name] = n
		}
	}
	was, now := r.told.fleet, r.fleetOf(p)
	if !reflect.DeepEqual(access{was.Identities, was.Bindings, was.Guides}, access{now.Identities, now.Bindings, now.Guides}) {
		was.Identities, was.Bindings, was.Guides = now.Identities, now.Bindings, now.Guides
		e.Fleet = &was
	}
	return r.tell(e, true)
}

type access struct {
	identities map[string]roster.Identity
	bindings   []roster.Binding
	guides     map[string]roster.Guide
}

// allow tells, before any state is published, which images the new ones need: nodes may have
// them at once, and keep what they run until it is announced.
func (r *Reconciler) allow(_ context.Context, p *pass) error {
	if r.cfg.Feed == nil {
		return nil
	}
	e := roster.Event{Nodes: map[string]roster.Node{}, Trust: r.told.trust}
	for name, t := range r.told.nodes {
		images := t.Images
		for _, image := range p.result.Nodes[name].Images {
			if !slices.Contains(images, image) {
				images = append(slices.Clip(images), image)
			}
		}
		if len(images) > len(t.Images) {
			t.Images = images
			e.Nodes[name] = t
		}
	}
	if len(e.Nodes) == 0 {
		return nil
	}
	return r.tell(e, false)
}

// announce tells what a pass has put in force.
func (r *Reconciler) announce(_ context.Context, p *pass) error {
	if r.cfg.Feed == nil {
		return nil
	}
	now := r.fleetOf(p)
	now.Seen = rosterCommit(p.seen())
	now.InForce = now.Seen
	e := roster.Event{Reset: !r.told.begun, Nodes: map[string]roster.Node{}, Trust: r.trust}
	if e.Reset || !reflect.DeepEqual(now, r.told.fleet) {
		e.Fleet = &now
	}
	keys := p.keys
	if keys == nil {
		keys = r.keysNow(p)
	}
	for name := range r.news(p, e.Reset) {
		at, ok := p.result.Accepted.Nodes[name]
		if !ok {
			continue
		}
		was, had := r.told.nodes[name]
		n := r.node(p, name, at, keys[name], was)
		if !had || !reflect.DeepEqual(n, was) {
			e.Nodes[name] = n
		}
	}
	for name := range r.told.nodes {
		if _, ok := p.result.Accepted.Nodes[name]; !ok {
			e.Removed = append(e.Removed, name)
		}
	}
	if len(r.touched) > 0 || len(r.gone) > 0 || r.told.fleet.InForce.Hash != now.InForce.Hash {
		c := roster.Change{Commit: now.InForce, At: time.Now().UTC(), Nodes: maps.Clone(r.touched), Removed: slices.Sorted(maps.Keys(r.gone))}
		c.Count = len(c.Nodes) + len(c.Removed)
		e.Changes = []roster.Change{c}
	}
	if err := r.tell(e, false); err != nil {
		return err
	}
	clear(r.touched)
	clear(r.gone)
	r.sources = maps.Clone(p.fleet.Workspaces)
	maps.DeleteFunc(r.appsOf, func(at string, _ appsOf) bool { return p.fleet.Workspaces[at] == nil })
	return nil
}

// news returns the nodes that may be others than hubs were told: of workspaces that are others,
// signed, held or let go.
func (r *Reconciler) news(p *pass, all bool) map[string]struct{} {
	out := map[string]struct{}{}
	if all || r.sources == nil {
		for name := range p.result.Accepted.Nodes {
			out[name] = struct{}{}
		}
		return out
	}
	for at, src := range p.fleet.Workspaces {
		if r.sources[at] == src || src.Unit == nil {
			continue
		}
		for name := range src.Unit.Node {
			out[name] = struct{}{}
		}
	}
	for name := range r.touched {
		out[name] = struct{}{}
	}
	for name := range p.result.Held {
		out[name] = struct{}{}
	}
	for _, name := range p.result.Awaiting {
		out[name] = struct{}{}
	}
	for name, t := range r.told.nodes {
		if _, has := p.keys[name]; t.Held != "" || !has {
			out[name] = struct{}{}
		}
	}
	return out
}

// node returns what hubs are told of an accepted node.
func (r *Reconciler) node(p *pass, name, at, key string, was roster.Node) roster.Node {
	head := p.heads[name]
	n := roster.Node{Workspace: at, PublicKey: key}
	if head.ContentDigest != "" {
		n.Generation, n.Digest = head.Generation, head.ContentDigest
		switch _, signed := r.touched[name]; {
		case signed:
			n.Commit = p.commit.Hash
		case was.Generation == head.Generation:
			n.Commit = was.Commit
		}
	}
	held, isHeld := p.result.Held[name]
	src := p.fleet.Workspaces[at]
	_, on := p.result.Nodes[name]
	declared, ok := fleet.Node{}, false
	if src != nil && src.Unit != nil && !isHeld {
		declared, ok = src.Unit.Node[name]
	}
	switch {
	case ok:
		n.Labels, n.Drain, n.Remote = declared.Labels, declared.Drain, nodestate.Remote(declared.Remote)
	default: // it is as it was
		n.Labels, n.Drain, n.Remote, n.Apps, n.Images = was.Labels, was.Drain, was.Remote, was.Apps, was.Images
	}
	if on {
		n.Apps, n.Images = p.result.Nodes[name].Apps, p.result.Nodes[name].Images
	}
	if isHeld {
		n.Held = cmp.Or(held.Why, "its workspace is refused")
	}
	return n
}

// trouble tells why the commit seen is not in force; everything else stays as it was.
func (r *Reconciler) trouble(p *pass, s Status) {
	if !r.told.begun || r.cfg.Feed == nil {
		return
	}
	e := roster.Event{Trust: cmp.Or(r.trust, r.told.trust)}
	now := r.told.fleet
	now.Error = s.Error
	if p.commit != nil {
		now.Seen = rosterCommit(p.seen())
	}
	if p.problems != nil {
		now.Problems = rosterProblems(p.problems)
	}
	if !reflect.DeepEqual(now, r.told.fleet) {
		e.Fleet = &now
	}
	if err := r.tell(e, false); err != nil {
		r.cfg.Log.Error("hubs are not told", "error", err)
	}
}

func rosterCommit(c Commit) roster.Commit { return roster.Commit(c) }
