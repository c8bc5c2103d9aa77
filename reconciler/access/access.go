package access

import (
	"fmt"
	"slices"
	"strings"

	"selvedge/schema/roster"
)

// Subject is somebody who asks.
type Subject struct {
	Kind   string // user or service
	Name   string
	Groups []string
	Role   string // the token's own bound: at most this; empty: none
	Scope  string // the token's own bound: there and below; empty: none
}

// String returns the subject as role bindings write it.
func (s Subject) String() string { return s.Kind + ":" + s.Name }

// Action is what somebody wants to do.
type Action string

// The actions, each with the role that it needs.
const (
	View    Action = "view"    // viewer: nodes, status, events, metrics, changes
	Logs    Action = "logs"    // viewer
	Operate Action = "operate" // editor: restart
	Exec    Action = "exec"    // editor
	Join    Action = "join"    // editor: join tokens, nodes that wait
	Audit   Action = "audit"   // admin
)

// The roles, each with all that the ones before it have.
const (
	Viewer = "viewer"
	Editor = "editor"
	Admin  = "admin"
)

// rank orders roles; 0 is no role.
func rank(role string) int {
	switch role {
	case Viewer:
		return 1
	case Editor:
		return 2
	case Admin:
		return 3
	}
	return 0
}

// needs returns the role that an action asks for; "" if there is no such action.
func needs(a Action) string {
	switch a {
	case View, Logs:
		return Viewer
	case Operate, Exec, Join:
		return Editor
	case Audit:
		return Admin
	}
	return ""
}

// Decision is an answer with its reason.
type Decision struct {
	Allowed bool
	Reason  string // for people
	Needs   string // the role that would do; empty if allowed, or if none would
	Role    string // that the subject has at the scope; empty: none
}

// Decide tells whether the subject may act at the scope, a path of the tree ("" is the
// platform).
func Decide(bindings []roster.Binding, s Subject, scope string, a Action) Decision {
	need := needs(a)
	switch {
	case need == "":
		return Decision{Reason: fmt.Sprintf("%q is no action", a)}
	case !ValidScope(scope):
		return Decision{Reason: fmt.Sprintf("%q is no path of the tree", scope)}
	}
	var best roster.Binding // of those that count here, the strongest
	for _, b := range Roles(bindings, s) {
		if Above(b.Scope, scope) && rank(b.Role) > rank(best.Role) {
			best = b
		}
	}
	if best.Role == "" {
		return Decision{
			Reason: fmt.Sprintf("%s has no role at %s%s; %s needs %s there, by roleBinding at %s", s, Place(scope), bounds(s), a, need, orAbove(scope)),
			Needs:  need,
		}
	}
	has := fmt.Sprintf("%s is %s at %s", s, best.Role, Place(best.Scope))
	if rank(best.Role) >= rank(need) {
		return Decision{Allowed: true, Role: best.Role, Reason: has + " by roleBinding " + best.Name}
	}
	there := "there"
	if best.Scope != scope {
		there = "at " + Place(scope)
	}
	return Decision{
		Role:   best.Role,
		Reason: fmt.Sprintf("%s%s; %s needs %s %s, by roleBinding at %s", has, bounds(s), a, need, there, orAbove(scope)),
		Needs:  need,
	}
}

// bounds says how the token narrows what its holder may, for that may be why.
func bounds(s Subject) string {
	var parts []string
	if s.Role != "" {
		parts = append(parts, "role "+s.Role)
	}
	if s.Scope != "" {
		parts = append(parts, "scope "+s.Scope)
	}
	if len(parts) == 0 {
		return ""
	}
	return " (the token is bound to " + strings.Join(parts, " and ") + ")"
}

// Place names a scope to people.
func Place(scope string) string {
	if scope == "" {
		return "the platform"
	}
	return scope
}

func orAbove(scope string) string {
	if scope == "" {
		return "the platform"
	}
	return scope + " or above"
}

// Roles returns the bindings that apply to the subject, as the token narrows them: the role
// is at most the token's, the scope the lower of both. Subjects are those of the one who asked.
func Roles(bindings []roster.Binding, s Subject) []roster.Binding {
	if (s.Kind != "user" && s.Kind != "service") || s.Name == "" {
		return nil
	}
	if s.Role != "" && rank(s.Role) == 0 || !ValidScope(s.Scope) {
		return nil // a bound that is not understood allows nothing
	}
	var out []roster.Binding
	for _, b := range bindings {
		if rank(b.Role) == 0 || !ValidScope(b.Scope) {
			continue
		}
		who, ok := matches(b, s)
		if !ok {
			continue
		}
		if s.Role != "" && rank(s.Role) < rank(b.Role) {
			b.Role = s.Role
		}
		switch {
		case Above(b.Scope, s.Scope):
			b.Scope = s.Scope
		case !Above(s.Scope, b.Scope):
			continue // elsewhere
		}
		b.Subjects = []string{who}
		out = append(out, b)
	}
	return out
}

// matches returns by which of its subjects a binding is the subject's.
func matches(b roster.Binding, s Subject) (string, bool) {
	for _, who := range b.Subjects {
		kind, name, ok := strings.Cut(who, ":")
		if !ok || name == "" {
			continue
		}
		if kind == s.Kind && name == s.Name || kind == "group" && slices.Contains(s.Groups, name) {
			return who, true
		}
	}
	return "", false
}

// Above reports whether a scope is the other one or above it, by whole components:
// "folders/a" is above "folders/a/b", and not above "folders/ab".
func Above(scope, other string) bool {
	return scope == "" || scope == other ||
		len(other) > len(scope) && other[len(scope)] == '/' && other[:len(scope)] == scope
}

// ValidScope reports whether a text is a path of the tree in its one form.
func ValidScope(scope string) bool {
	if scope == "" {
		return true
	}
	for part := range strings.SplitSeq(scope, "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}

// Visible returns a function that tells whether the subject may View at a scope. It looks
// up the path's parts, however many bindings there are, and is safe for concurrent use.
func Visible(bindings []roster.Binding, s Subject) func(scope string) bool {
	return Can(bindings, s, View)
}

// Can is Visible for any action: Can(b, s, a)(scope) equals Decide(b, s, scope, a).Allowed.
func Can(bindings []roster.Binding, s Subject, a Action) func(scope string) bool {
	need := needs(a)
	scopes := map[string]bool{}
	for _, b := range Roles(bindings, s) {
		if need != "" && rank(b.Role) >= rank(need) {
			scopes[b.Scope] = true
		}
	}
	if len(scopes) == 0 {
		return func(string) bool { return false }
	}
	return func(scope string) bool {
		if !ValidScope(scope) {
			return false
		}
		for at := scope; ; {
			if scopes[at] {
				return true
			}
			if at == "" {
				return false
			}
			at = at[:max(0, strings.LastIndexByte(at, '/'))]
		}
	}
}
