package resolve

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"selvedge/schema/fleet"
)

// settled returns what counts of every directory. What a directory kept from before gives way
// to one above that says it now.
func (a *access) settled() map[string]*Access {
	out := map[string]*Access{}
	names, hashes := a.holdings()
	above := func(all []holding, at string) bool {
		return slices.ContainsFunc(all, func(o holding) bool { return o.at != at && Within(at, o.at) })
	}
	for _, at := range a.paths() {
		now := a.now(at)
		if !a.isFresh(at) {
			kept := *now
			kept.Identity = maps.Clone(now.Identity)
			for name, id := range now.Identity {
				if above(names[name], at) {
					delete(kept.Identity, name)
					continue
				}
				id.Token = maps.Clone(id.Token)
				maps.DeleteFunc(id.Token, func(_ string, t fleet.Token) bool { return above(hashes[t.Hash], at) })
				kept.Identity[name] = id
			}
			now = &kept
		}
		out[at] = now
	}
	return out
}

// problems returns what is wrong, by directory; that of a folder is a problem of each workspace below it.
func (a *access) problems() map[string][]fleet.Problem {
	out := map[string][]fleet.Problem{}
	for at, faults := range a.faults {
		for _, f := range faults {
			p := a.problem(fleet.Error, at, f.kind, f.name, f.message)
			said := false
			for ws := range a.c.all {
				if Within(ws, at) {
					p.Workspace = ws
					out[ws] = append(out[ws], p)
					said = true
				}
			}
			if !said {
				out[at] = append(out[at], p)
			}
		}
	}
	return out
}

func (a *access) problem(s fleet.Severity, at, kind, name, message string) fleet.Problem {
	p := fleet.Problem{Severity: s, Workspace: at, Kind: kind, Name: name, Message: message, Position: fleet.Position{File: at}}
	if src := a.sources[at]; src != nil {
		if o, ok := src.Entities[kind+"/"+name]; ok {
			p.Position = o.Position
		}
	}
	return p
}

// warnings tell what has no effect, or perhaps another one than it seems.
func (a *access) warnings(all map[string]*Access) []fleet.Problem {
	var out []fleet.Problem
	warn := func(at, kind, name, format string, args ...any) {
		if a.isFresh(at) { // what is kept was said when it came
			out = append(out, a.problem(fleet.Warning, at, kind, name, fmt.Sprintf(format, args...)))
		}
	}
	subjects := map[string]bool{}
	type guide struct{ at, name string }
	guides := map[string][]guide{} // by prefix
	paths := slices.Sorted(maps.Keys(all))
	for _, at := range paths {
		for name, id := range all[at].Identity {
			subjects[id.Kind+":"+name] = true
			for _, g := range id.Groups {
				subjects["group:"+g] = true
			}
		}
		for name, g := range all[at].Guide {
			guides[g.Prefix] = append(guides[g.Prefix], guide{at, name})
		}
	}
	for _, at := range paths {
		x := all[at]
		for name, id := range x.Identity {
			for token, t := range id.Token {
				switch {
				case t.Scope != "" && !a.there[t.Scope]:
					warn(at, "identity", name, "token.%s.scope: there is no directory %s, so that the token opens nothing; name one that is there", token, t.Scope)
				case t.Scope != "" && !Within(t.Scope, at) && !Within(at, t.Scope):
					warn(at, "identity", name, "token.%s.scope: %s is not below %s, where the identity counts, so that the token opens nothing; declare the identity in a directory above both", token, t.Scope, at)
				}
			}
		}
		for name, b := range x.Binding {
			for _, s := range b.Subjects {
				if !subjects[s] {
					warn(at, "roleBinding", name, "nobody is %s; declare the identity, or put the group into one", s)
				}
			}
		}
		for name, g := range x.Guide {
			for n := 1; n <= len(g.Prefix); n++ {
				for _, o := range guides[g.Prefix[:n]] {
					near := Within(at, o.at) || Within(o.at, at)
					once := n < len(g.Prefix) || o.at < at || o.at == at && o.name < name
					if near && once {
						warn(at, "accessGuide", name, "names that begin with %q begin with %q of guide %q of %s too; choose prefixes of which none begins another", g.Prefix, g.Prefix[:n], o.name, strings.TrimSuffix(o.at, "/"))
					}
				}
			}
		}
	}
	return out
}
