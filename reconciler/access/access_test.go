package access

import (
	"math/rand/v2"
	"strings"
	"testing"

	"selvedge/schema/roster"
)

var bindings = []roster.Binding{
	{Name: "munich-viewers", Scope: "folders/munich", Role: Viewer, Subjects: []string{"user:ana", "group:line-1"}},
	{Name: "line-1-editors", Scope: "folders/munich/line-1", Role: Editor, Subjects: []string{"user:ana"}},
	{Name: "root", Scope: "", Role: Admin, Subjects: []string{"user:root"}},
	{Name: "ci", Scope: "folders/munich", Role: Editor, Subjects: []string{"service:ci"}},
	{Name: "odd", Scope: "folders/munich", Role: "owner", Subjects: []string{"user:odd"}},
	{Name: "bad-path", Scope: "folders/../folders", Role: Admin, Subjects: []string{"user:odd"}},
}

func TestDecide(t *testing.T) {
	user := func(name string, groups ...string) Subject {
		return Subject{Kind: "user", Name: name, Groups: groups}
	}
	bound := func(s Subject, role, scope string) Subject { s.Role, s.Scope = role, scope; return s }
	for _, c := range []struct {
		name   string
		s      Subject
		scope  string
		a      Action
		ok     bool
		reason string
	}{
		{"a viewer sees below", user("ana"), "folders/munich/line-9", View, true, "user:ana is viewer at folders/munich by roleBinding munich-viewers"},
		{"and reads logs", user("ana"), "folders/munich", Logs, true, "user:ana is viewer at folders/munich by roleBinding munich-viewers"},
		{"and does not act", user("ana"), "folders/munich", Exec, false,
			"user:ana is viewer at folders/munich; exec needs editor there, by roleBinding at folders/munich or above"},
		{"not below either", user("ana"), "folders/munich/line-2", Exec, false,
			"user:ana is viewer at folders/munich; exec needs editor at folders/munich/line-2, by roleBinding at folders/munich/line-2 or above"},
		{"the strongest role counts", user("ana"), "folders/munich/line-1/cell", Exec, true, "user:ana is editor at folders/munich/line-1 by roleBinding line-1-editors"},
		{"not above", user("ana"), "folders", View, false,
			"user:ana has no role at folders; view needs viewer there, by roleBinding at folders or above"},
		{"not the platform", user("ana"), "", View, false,
			"user:ana has no role at the platform; view needs viewer there, by roleBinding at the platform"},
		{"a longer name is elsewhere", user("ana"), "folders/munich-2", View, false,
			"user:ana has no role at folders/munich-2; view needs viewer there, by roleBinding at folders/munich-2 or above"},
		{"a group", user("bo", "x", "line-1"), "folders/munich", View, true, "user:bo is viewer at folders/munich by roleBinding munich-viewers"},
		{"a group's name is no user", user("line-1"), "folders/munich", View, false, ""},
		{"a service", Subject{Kind: "service", Name: "ci"}, "folders/munich", Join, true, "service:ci is editor at folders/munich by roleBinding ci"},
		{"a user of a service's name", user("ci"), "folders/munich", Join, false, ""},
		{"a group as a kind", Subject{Kind: "group", Name: "line-1"}, "folders/munich", View, false, ""},
		{"an admin audits everywhere", user("root"), "folders/munich", Audit, true, "user:root is admin at the platform by roleBinding root"},
		{"an editor does not", user("ana"), "folders/munich/line-1", Audit, false,
			"user:ana is editor at folders/munich/line-1; audit needs admin there, by roleBinding at folders/munich/line-1 or above"},
		{"nobody", Subject{}, "folders/munich", View, false, ""},
		{"an unknown role is none", user("odd"), "folders/munich", View, false, ""},
		{"an unknown action", user("root"), "", "fly", false, `"fly" is no action`},
		{"a path that climbs", user("ana"), "folders/munich/../x", View, false, `"folders/munich/../x" is no path of the tree`},
		{"a path from the root", user("root"), "/folders", View, false, `"/folders" is no path of the tree`},
		{"a path with a slash behind", user("root"), "folders/", View, false, `"folders/" is no path of the tree`},

		{"a token that only views", bound(user("root"), Viewer, ""), "folders/munich", Exec, false,
			"user:root is viewer at the platform (the token is bound to role viewer); exec needs editor at folders/munich, by roleBinding at folders/munich or above"},
		{"a token raises nothing", bound(user("ana"), Admin, ""), "folders/munich", Exec, false, ""},
		{"a token's scope", bound(user("root"), "", "folders/munich"), "folders/munich/line-1", Audit, true, "user:root is admin at folders/munich by roleBinding root"},
		{"and beside it", bound(user("root"), "", "folders/munich"), "folders/berlin", View, false,
			"user:root has no role at folders/berlin (the token is bound to scope folders/munich); view needs viewer there, by roleBinding at folders/berlin or above"},
		{"and above it", bound(user("root"), "", "folders/munich"), "", View, false, ""},
		{"a token's scope above the binding", bound(user("ana"), "", "folders"), "folders/munich", View, true, ""},
		{"a token of elsewhere", bound(user("ana"), "", "folders/berlin"), "folders/munich", View, false, ""},
		{"an unknown role of a token", bound(user("root"), "god", ""), "", View, false, ""},
		{"an odd scope of a token", bound(user("root"), "", "folders//x"), "folders//x", View, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Decide(bindings, c.s, c.scope, c.a)
			if d.Allowed != c.ok || c.reason != "" && d.Reason != c.reason {
				t.Errorf("%+v\nwant %v %q", d, c.ok, c.reason)
			}
			if d.Allowed == (d.Needs != "") && needs(c.a) != "" && ValidScope(c.scope) {
				t.Errorf("needs %q", d.Needs)
			}
			if got := Can(bindings, c.s, c.a)(c.scope); got != c.ok {
				t.Errorf("Can says %v", got)
			}
		})
	}
}

func TestAbove(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"", "", true}, {"", "a", true}, {"a", "", false}, {"a", "a", true}, {"a", "a/b", true}, {"a", "ab", false},
		{"a/b", "a", false}, {"a/b", "a/bc", false}, {"a/b", "a/b/c", true}, {"b", "a/b", false},
	} {
		if got := Above(c.a, c.b); got != c.want {
			t.Errorf("Above(%q, %q) = %v", c.a, c.b, got)
		}
	}
}

// TestProperties draws trees, bindings and subjects at random and holds what must be true of
// all of them.
func TestProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	scope := func() string {
		var parts []string
		for range r.IntN(4) {
			parts = append(parts, pick("a", "ab", "b", "a-b"))
		}
		return strings.Join(parts, "/")
	}
	actions := []Action{View, Logs, Operate, Exec, Join, Audit}
	allowed := 0
	for range 20000 {
		var bs []roster.Binding
		for range r.IntN(5) {
			bs = append(bs, roster.Binding{Name: "x", Scope: scope(), Role: pick(Viewer, Editor, Admin, "other"), Subjects: []string{pick("user:u", "group:g", "service:u", "user:v")}})
		}
		free := Subject{Kind: pick("user", "service"), Name: "u"}
		if r.IntN(2) == 0 {
			free.Groups = []string{"g"}
		}
		narrow := free
		narrow.Role, narrow.Scope = pick("", Viewer, Editor, Admin, "other"), scope()
		at, a := scope(), actions[r.IntN(len(actions))]
		d, n := Decide(bs, free, at, a), Decide(bs, narrow, at, a)
		if d.Allowed {
			allowed++
		}
		switch {
		case n.Allowed && !d.Allowed:
			t.Fatalf("a token widens: %+v %+v %q %s", bs, narrow, at, a)
		case n.Allowed && !Above(narrow.Scope, at):
			t.Fatalf("a token acts outside of its scope: %+v %+v %q", bs, narrow, at)
		case d.Allowed && !Decide(bs, free, at+strings.Repeat("/", min(1, len(at)))+"z", a).Allowed:
			t.Fatalf("a right ends below its scope: %+v %+v %q", bs, free, at)
		case d.Allowed && a != View && !Decide(bs, free, at, View).Allowed:
			t.Fatalf("who may %s does not see: %+v %+v %q", a, bs, free, at)
		case len(bs) > 0 && d.Allowed && Decide(nil, free, at, a).Allowed:
			t.Fatal("a right without a binding")
		case d.Reason == "" || n.Reason == "":
			t.Fatal("no reason")
		case Can(bs, narrow, a)(at) != n.Allowed || Visible(bs, narrow)(at) != Decide(bs, narrow, at, View).Allowed:
			t.Fatalf("Can and Decide differ: %+v %+v %q %s", bs, narrow, at, a)
		}
		// a binding more never takes a right away
		if d.Allowed && !Decide(append(bs, roster.Binding{Scope: at, Role: Viewer, Subjects: []string{"user:u"}}), free, at, a).Allowed {
			t.Fatal("a binding takes a right away")
		}
	}
	if allowed < 1000 {
		t.Errorf("only %d of the draws were allowed: the test shows little", allowed)
	}
}

func FuzzDecide(f *testing.F) {
	f.Add("folders/a", "folders/ab", "viewer", "user:x", "user", "x", "", "")
	f.Add("", "a", "admin", "group:g", "user", "x", "editor", "a/b")
	f.Fuzz(func(t *testing.T, at, scope, role, who, kind, name, tokenRole, tokenScope string) {
		bs := []roster.Binding{{Name: "b", Scope: at, Role: role, Subjects: []string{who}}}
		s := Subject{Kind: kind, Name: name, Groups: []string{"g"}, Role: tokenRole, Scope: tokenScope}
		for _, a := range []Action{View, Exec, Audit} {
			d := Decide(bs, s, scope, a)
			if Can(bs, s, a)(scope) != d.Allowed {
				t.Fatal("Can and Decide differ")
			}
			if d.Allowed && (at != "" && scope != at && !strings.HasPrefix(scope, at+"/") || rank(role) < rank(needs(a)) ||
				who != kind+":"+name && who != "group:g") {
				t.Fatalf("allowed: %+v", d)
			}
		}
	})
}

func BenchmarkVisible(b *testing.B) {
	var bs []roster.Binding
	for i := range 1000 {
		bs = append(bs, roster.Binding{Scope: "folders/f" + string(rune('a'+i%26)), Role: Viewer, Subjects: []string{"user:ana"}})
	}
	see := Visible(bs, Subject{Kind: "user", Name: "ana"})
	b.ReportAllocs()
	for b.Loop() {
		see("folders/fz/hall-3/line-1")
	}
}

func BenchmarkDecide(b *testing.B) {
	for b.Loop() {
		Decide(bindings, Subject{Kind: "user", Name: "ana"}, "folders/munich/line-1", Exec)
	}
}
