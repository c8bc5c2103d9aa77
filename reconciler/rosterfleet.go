package reconciler

import (
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"selvedge/reconciler/resolve"
	"selvedge/schema/fleet"
	"selvedge/schema/roster"
)

// maxProblems bounds what hubs are told of what is wrong; errors come first.
const maxProblems = 1000

// fleetOf returns what hubs are told of a pass's fleet besides nodes. Which commits are seen and in
// force stays as it was told.
func (r *Reconciler) fleetOf(p *pass) roster.Fleet {
	f := roster.Fleet{
		Prefix: r.cfg.Prefix, Fingerprint: r.fingerprint,
		Seen: r.told.fleet.Seen, InForce: r.told.fleet.InForce,
		Scopes: map[string]roster.Scope{}, Identities: map[string]roster.Identity{}, Guides: map[string]roster.Guide{},
		Problems: rosterProblems(p.problems), Apps: map[string][]roster.App{},
	}
	all := p.result.Accepted.Access
	for _, at := range slices.Sorted(maps.Keys(all)) {
		a := all[at]
		if at == "" {
			f.Platform = a.Title
		}
		f.Scopes[at] = roster.Scope{Kind: a.Kind, Title: a.Title}
		for name, id := range a.Identity {
			f.Identities[name] = identity(at, id)
		}
		for _, name := range slices.Sorted(maps.Keys(a.Binding)) {
			b := a.Binding[name]
			f.Bindings = append(f.Bindings, roster.Binding{Name: name, Scope: at, Role: b.Role, Subjects: b.Subjects})
		}
		for name, g := range a.Guide {
			f.Guides[path.Join(at, name)] = roster.Guide{Name: name, Scope: at, Prefix: g.Prefix, Labels: g.Labels, MaxNodes: g.MaxNodes}
		}
	}
	for at := range all { // directories that declare nothing are parts of the tree, too
		for d := path.Dir(at); d != "." && strings.Contains(d, "/"); d = path.Dir(d) {
			if _, ok := f.Scopes[d]; !ok {
				f.Scopes[d] = roster.Scope{Kind: "folder"}
			}
		}
	}
	for at, src := range p.fleet.Workspaces {
		if src.Unit == nil || slices.Contains(p.result.Refused, at) {
			if was, ok := r.told.fleet.Apps[at]; ok {
				f.Apps[at] = was // its nodes run what they ran
			}
			continue
		}
		if apps := r.apps(src); len(apps) > 0 {
			f.Apps[at] = apps
		}
	}
	return f
}

// apps returns the apps of a workspace, which are remembered as long as it is the same.
func (r *Reconciler) apps(src *fleet.Source) []roster.App {
	if was, ok := r.appsOf[src.Path]; ok && was.src == src {
		return was.apps
	}
	var out []roster.App
	for _, name := range slices.Sorted(maps.Keys(src.Unit.App)) {
		scope := src.Path
		if o, ok := src.Entities["app/"+name]; ok {
			scope = o.Scope
		}
		out = append(out, roster.App{Name: name, Scope: scope})
	}
	r.appsOf[src.Path] = appsOf{src, out}
	return out
}

type appsOf struct {
	src  *fleet.Source
	apps []roster.App
}

// identity returns what hubs are told of a person or service. Wherever somebody is declared, there
// and below is what their tokens open: a team that may write one directory must not give
// itself the groups of another.
func identity(at string, id fleet.Identity) roster.Identity {
	out := roster.Identity{Kind: id.Kind, Scope: at, Groups: id.Groups}
	for name, t := range id.Token {
		expires, err := time.Parse(time.RFC3339, t.Expires)
		if err != nil {
			continue // refused by resolve
		}
		scope, ok := narrower(at, t.Scope)
		if !ok {
			continue // warned of: it opens nothing
		}
		if out.Tokens == nil {
			out.Tokens = map[string]roster.Token{}
		}
		out.Tokens[name] = roster.Token{Hash: t.Hash, Expires: expires.UTC(), Role: t.Role, Scope: scope}
	}
	return out
}

// narrower returns that of two scopes which is below the other; false if neither is.
func narrower(a, b string) (string, bool) {
	switch {
	case resolve.Within(a, b):
		return a, true
	case resolve.Within(b, a):
		return b, true
	}
	return "", false
}

func rosterProblems(ps []fleet.Problem) []roster.Problem {
	var out []roster.Problem
	for _, severity := range []fleet.Severity{fleet.Error, fleet.Warning} {
		for _, p := range ps {
			if p.Severity == severity && len(out) < maxProblems {
				out = append(out, roster.Problem{Severity: string(p.Severity), Workspace: p.Workspace, Text: p.String()})
			}
		}
	}
	return out
}
