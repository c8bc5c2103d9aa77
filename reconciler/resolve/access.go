package resolve

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"selvedge/schema/fleet"
)

// Access is what one directory declares of people and of joining, without what it inherits.
type Access struct {
	Kind     string                       `json:"kind"` // platform, folder or workspace
	Title    string                       `json:"title,omitempty"`
	Identity map[string]fleet.Identity    `json:"identity,omitempty"`
	Binding  map[string]fleet.RoleBinding `json:"binding,omitempty"`
	Guide    map[string]fleet.AccessGuide `json:"guide,omitempty"`
}

// declaration is the Access that a source declares.
type declaration struct {
	*Access
	id     string // of the source
	faults []fault
}

// fault is what is wrong with an entity by itself, or beside others.
type fault struct{ kind, name, message string }

// access is who may do what, while it is resolved. A directory that is refused keeps what it had: a
// broken commit locks nobody out, and lets nobody back in.
type access struct {
	c       *claims
	sources map[string]*fleet.Source
	fresh   map[string]*declaration // of directories that could be evaluated, by path
	there   map[string]bool         // directories of the commit, and those above them
	refused map[string]bool         // folders and the platform; workspaces are in claims
	keep    bool                    // of directories that are gone: another one may be one of them, renamed
	faults  map[string][]fault      // by path
}

func newAccess(c *claims, f *fleet.Fleet, memo map[string]*declaration) *access {
	a := &access{c: c, sources: map[string]*fleet.Source{}, fresh: map[string]*declaration{}, there: map[string]bool{"": true}, refused: map[string]bool{}, faults: map[string][]fault{}}
	for _, sources := range []map[string]*fleet.Source{f.Folders, f.Workspaces} {
		for at, src := range sources {
			for d := at; d != "." && d != "" && !a.there[d]; d = path.Dir(d) {
				a.there[d] = true
			}
			if src.Unit == nil {
				a.refused[at] = true
				a.keep = a.keep || c.before.Access[at] == nil
				continue
			}
			a.sources[at] = src
			if d := memo[at]; d != nil && src.ID != "" && d.id == src.ID {
				a.fresh[at] = d
			} else {
				a.fresh[at] = declared(at, src)
			}
		}
	}
	return a
}

// declared returns what a source says that it does not inherit.
func declared(at string, src *fleet.Source) *declaration {
	u := src.Unit
	a := &declaration{Access: &Access{Kind: "folder"}, id: src.ID}
	switch {
	case u.Workspace != nil:
		a.Kind, a.Title = "workspace", u.Workspace.Title
	case at == "":
		a.Kind, a.Title = "platform", u.Platform.Name
	case u.Folder != nil:
		a.Title = u.Folder.Title
	}
	a.Identity = own(src, "identity", u.Identity)
	a.Binding = own(src, "roleBinding", u.RoleBinding)
	a.Guide = own(src, "accessGuide", u.AccessGuide)
	hashes := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(a.Identity)) {
		id := a.Identity[name]
		for _, token := range slices.Sorted(maps.Keys(id.Token)) {
			t := id.Token[token]
			if _, err := time.Parse(time.RFC3339, t.Expires); err != nil {
				a.faults = append(a.faults, fault{"identity", name, fmt.Sprintf("token.%s.expires: %q is no time; write one such as 2027-01-31T00:00:00Z", token, clip(t.Expires))})
			}
			if first, twice := hashes[t.Hash]; twice {
				a.faults = append(a.faults, fault{"identity", name, fmt.Sprintf("token.%s: has the hash of %s; make another with 'selvedge token create'", token, first)})
			}
			hashes[t.Hash] = "token " + token + " of " + name
		}
	}
	return a
}

func own[V any](src *fleet.Source, kind string, all map[string]V) map[string]V {
	var out map[string]V
	for name, v := range all {
		if o, ok := src.Entities[kind+"/"+name]; ok && o.Scope != src.Path {
			continue
		}
		if out == nil {
			out = map[string]V{}
		}
		out[name] = v
	}
	return out
}

func (a *access) isRefused(at string) bool { return a.refused[at] || a.c.refused[at] }

// isFresh reports whether what this commit says of a directory counts.
func (a *access) isFresh(at string) bool { return a.fresh[at] != nil && !a.isRefused(at) }

// now returns what counts of a directory: what it says, or what it said last.
func (a *access) now(at string) *Access {
	if a.isFresh(at) {
		return a.fresh[at].Access
	}
	before := a.c.before.Access[at]
	if before == nil || !a.there[at] && !a.keep {
		return nil
	}
	return before
}

// paths returns all directories that count, those above first.
func (a *access) paths() []string {
	var out []string
	for at := range a.fresh {
		if a.now(at) != nil {
			out = append(out, at)
		}
	}
	for at := range a.c.before.Access {
		if a.fresh[at] == nil && a.now(at) != nil {
			out = append(out, at)
		}
	}
	slices.SortFunc(out, func(x, y string) int { return cmp.Or(cmp.Compare(depth(x), depth(y)), cmp.Compare(x, y)) })
	return out
}

func depth(at string) int {
	if at == "" {
		return 0
	}
	return 1 + strings.Count(at, "/")
}

// Within reports whether a directory is another one or below it.
func Within(at, dir string) bool { return dir == "" || at == dir || strings.HasPrefix(at, dir+"/") }

// holding is an identity's name, or the hash of a token, that a directory holds.
type holding struct{ at, name, token string }

// holdings collects who holds what must be unique.
func (a *access) holdings() (names, hashes map[string][]holding) {
	names, hashes = map[string][]holding{}, map[string][]holding{}
	for _, at := range a.paths() {
		for name, id := range a.now(at).Identity {
			names[name] = append(names[name], holding{at, name, ""})
			for token, t := range id.Token {
				hashes[t.Hash] = append(hashes[t.Hash], holding{at, name, token})
			}
		}
	}
	return names, hashes
}

// settle refuses directories whose claims cannot hold, and reports whether there were any.
// Like claims.settle it only ever refuses more.
func (a *access) settle() (more bool) {
	blame := func(at string, f fault) {
		a.faults[at] = append(a.faults[at], f)
		more = a.refuse(at) || more
	}
	for _, at := range slices.Sorted(maps.Keys(a.fresh)) {
		if f := a.fresh[at]; !a.isRefused(at) {
			for _, bad := range f.faults {
				blame(at, bad)
			}
		}
	}
	if more {
		return true
	}
	names, hashes := a.holdings()
	for _, name := range slices.Sorted(maps.Keys(names)) {
		all := names[name]
		for _, h := range a.losers(all, func(b *Access) bool { _, had := b.Identity[name]; return had }) {
			blame(h.at, fault{"identity", name, fmt.Sprintf("%s has one of this name too; identities are unique in the whole platform: choose another name", other(all, h))})
		}
	}
	if more {
		return true
	}
	for _, hash := range slices.Sorted(maps.Keys(hashes)) {
		all := hashes[hash]
		for _, h := range a.losers(all, func(b *Access) bool { return b.hasHash(hash) }) {
			blame(h.at, fault{"identity", h.name, fmt.Sprintf("token.%s: %s has a token of the same hash; make another with 'selvedge token create'", h.token, other(all, h))})
		}
	}
	return more
}

func (b *Access) hasHash(hash string) bool {
	for _, id := range b.Identity {
		for _, t := range id.Token {
			if t.Hash == hash {
				return true
			}
		}
	}
	return false
}

// losers returns who must give way: to a directory above, or to who held it before. Of several
// newcomers nobody is right.
func (a *access) losers(all []holding, had func(*Access) bool) []holding {
	if len(all) < 2 {
		return nil
	}
	var left, out []holding
	for _, h := range all {
		below := slices.ContainsFunc(all, func(o holding) bool { return o.at != h.at && Within(h.at, o.at) })
		switch {
		case !below:
			left = append(left, h)
		case a.isFresh(h.at): // what is kept from before is left out silently
			out = append(out, h)
		}
	}
	if len(left) < 2 {
		return out
	}
	held := slices.IndexFunc(left, func(h holding) bool {
		b := a.c.before.Access[h.at]
		return b != nil && had(b)
	})
	for i, h := range left {
		if i != held && a.isFresh(h.at) {
			out = append(out, h)
		}
	}
	return out
}

func other(all []holding, h holding) string {
	for _, o := range all {
		if o != h {
			if o.at == "" {
				return "the platform"
			}
			return o.at
		}
	}
	return "another"
}

// refuse refuses a directory and all below it.
func (a *access) refuse(at string) (news bool) {
	for d := range a.fresh {
		if !Within(d, at) || a.isRefused(d) {
			continue
		}
		news = true
		if _, ok := a.c.all[d]; ok {
			a.c.refused[d] = true
		} else {
			a.refused[d] = true
		}
	}
	return news
}
