package resolve

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"selvedge/schema/fleet"
)

// folder returns the platform ("") or a folder.
func folder(path string, change func(*fleet.Unit)) *fleet.Source {
	ids++
	u := &fleet.Unit{Platform: fleet.Platform{Name: "test", Engine: 1}}
	change(u)
	return &fleet.Source{Path: path, ID: fmt.Sprint("id", ids), Unit: u}
}

// tree makes a fleet of the platform and directories: a workspace, unless the path ends in "/".
func tree(dirs map[string]func(*fleet.Unit)) *fleet.Fleet {
	f := fleetOf()
	f.Folders = map[string]*fleet.Source{"": folder("", func(*fleet.Unit) {})}
	for at, change := range dirs {
		path, isFolder := strings.CutSuffix(at, "/")
		switch {
		case change == nil && isFolder:
			f.Folders[path] = refusedWS(path)
		case change == nil:
			f.Workspaces[path] = refusedWS(path)
		case isFolder:
			f.Folders[path] = folder(path, change)
		default:
			f.Workspaces[path] = ws(path, change)
		}
	}
	return f
}

// declares gives a directory identities, each with a token: "ana=HASH".
func declares(all ...string) func(*fleet.Unit) {
	return func(u *fleet.Unit) {
		u.Identity = map[string]fleet.Identity{}
		for _, a := range all {
			name, hash, _ := strings.Cut(a, "=")
			u.Identity[name] = fleet.Identity{Kind: "user", Token: map[string]fleet.Token{"t": {Hash: hash, Expires: "2030-01-31T00:00:00Z"}}}
		}
	}
}

func identities(r *Result) string {
	var out []string
	for at, a := range r.Accepted.Access {
		for name, id := range a.Identity {
			s := at + ":" + name
			for _, t := range id.Token {
				s += "=" + t.Hash
			}
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

type dirs = map[string]func(*fleet.Unit)

func TestAccess(t *testing.T) {
	nothing := func(*fleet.Unit) {}
	for _, tt := range []struct {
		name          string
		before, after dirs
		want          string // identities by directory
		refused       string
		says          string
	}{
		{name: "everywhere", after: dirs{"/": declares("root=0"), "f/": declares("ana=1"), "f/a": declares("ben=2"), "g/": declares("eve=3")},
			want: ":root=0 f/a:ben=2 f:ana=1 g:eve=3"},
		{name: "a refused workspace keeps its own", before: dirs{"f/a": declares("ben=2")}, after: dirs{"f/a": nil}, want: "f/a:ben=2", refused: "f/a"},
		{name: "a refused folder keeps its own", before: dirs{"f/": declares("ana=1"), "f/a": declares("ben=2")}, after: dirs{"f/": nil, "f/a": nil},
			want: "f/a:ben=2 f:ana=1", refused: "f/a"},
		{name: "refused from the start", after: dirs{"f/a": nil, "f/b": declares("ben=2")}, want: "f/b:ben=2", refused: "f/a"},
		{name: "gone", before: dirs{"f/": declares("ana=1"), "f/a": declares("ben=2")}, after: dirs{"g": nothing}, want: ""},
		{name: "gone while a directory is new and refused, which it may have become", before: dirs{"f/a": declares("ben=2")}, after: dirs{"f/b": nil}, want: "f/a:ben=2", refused: "f/b"},
		{name: "a name twice, new", after: dirs{"f/a": declares("ben=1"), "f/b": declares("ben=2"), "f/c": declares("x=3")}, want: "f/c:x=3", refused: "f/a f/b",
			says: `identity "ben": f/b has one of this name too`},
		{name: "a name twice, one had it", before: dirs{"f/a": declares("ben=1")}, after: dirs{"f/a": declares("ben=1"), "f/b": declares("ben=2")}, want: "f/a:ben=1", refused: "f/b"},
		{name: "a name of a refused workspace", before: dirs{"f/a": declares("ben=1")}, after: dirs{"f/a": nil, "f/b": declares("ben=2")}, want: "f/a:ben=1", refused: "f/a f/b"},
		{name: "a name that moves", before: dirs{"f/a": declares("ben=1"), "f/b": nothing}, after: dirs{"f/a": nothing, "f/b": declares("ben=1")}, want: "f/b:ben=1"},
		{name: "a name that moves out of a refused workspace", before: dirs{"f/a": declares("ben=1"), "f/b": nothing}, after: dirs{"f/a": nil, "f/b": declares("ben=1")}, want: "f/a:ben=1", refused: "f/a f/b"},
		{name: "the platform takes a name of a workspace that is refused for it", before: dirs{"f/a": declares("ben=1")}, after: dirs{"/": declares("ben=2"), "f/a": nil}, want: ":ben=2", refused: "f/a"},
		{name: "a hash twice, new", after: dirs{"f/a": declares("ben=1"), "f/b": declares("eve=1")}, refused: "f/a f/b", says: "a token of the same hash"},
		{name: "a hash twice, one had it", before: dirs{"f/a": declares("ben=1")}, after: dirs{"f/a": declares("ben=1"), "f/b": declares("eve=1")}, want: "f/a:ben=1", refused: "f/b"},
		{name: "a hash of a folder above", after: dirs{"f/": declares("ana=1"), "f/a": declares("eve=1")}, want: "f:ana=1", refused: "f/a"},
		{name: "a hash twice in one directory", after: dirs{"f/a": declares("ben=1", "eve=1")}, refused: "f/a", says: `identity "eve": token.t: has the hash of token t of ben`},
		{name: "a folder's mistake refuses what is below", after: dirs{"f/": declares("ben=1", "eve=1"), "f/a": declares("ana=2"), "g/a": declares("x=3")}, want: "g/a:x=3", refused: "f/a"},
		{name: "no day of the calendar", after: dirs{"f/a": func(u *fleet.Unit) {
			u.Identity = map[string]fleet.Identity{"ana": {Token: map[string]fleet.Token{"t": {Hash: "1", Expires: "2030-02-30T00:00:00Z"}}}}
		}}, refused: "f/a", says: `token.t.expires: "2030-02-30T00:00:00Z" is no time`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := New(Config{})
			var accepted Accepted
			if tt.before != nil {
				first := r.Resolve(tree(tt.before), Accepted{})
				if firstError(first.Problems) != "" {
					t.Fatal(texts(first.Problems))
				}
				b, err := json.Marshal(first.Accepted) // as a restart does
				if err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal(b, &accepted); err != nil {
					t.Fatal(err)
				}
			}
			f := tree(tt.after)
			got := r.Resolve(f, accepted)
			if s := identities(got); s != tt.want {
				t.Errorf("identities %q, want %q", s, tt.want)
			}
			if s := strings.Join(got.Refused, " "); s != tt.refused {
				t.Errorf("refused %q, want %q\n%s", s, tt.refused, texts(got.Problems))
			}
			if tt.says != "" && !strings.Contains(texts(got.Problems), tt.says) {
				t.Errorf("it says\n%s\nwithout %q", texts(got.Problems), tt.says)
			}
			again := r.Resolve(f, got.Accepted)
			if s := identities(again); s != tt.want {
				t.Errorf("after a second pass: identities %q, want %q", s, tt.want)
			}
			if fresh := New(Config{}).Resolve(f, accepted); identities(fresh) != tt.want || texts(fresh.Problems) != texts(got.Problems) {
				t.Errorf("without a memory:\n%s\nwith:\n%s", texts(fresh.Problems), texts(got.Problems))
			}
		})
	}
}

func TestAccessWarnings(t *testing.T) {
	f := tree(dirs{
		"folders/a/": func(u *fleet.Unit) {
			declares("ana=1")(u)
			u.Identity["ana"].Token["t"] = fleet.Token{Hash: "1", Expires: "2030-01-31T00:00:00Z", Scope: "folders/b"}
			u.Identity["ben"] = fleet.Identity{Kind: "user", Groups: []string{"g"}, Token: map[string]fleet.Token{"x": {Hash: "2", Expires: "2030-01-31T00:00:00Z", Scope: "folders/nowhere"}}}
			u.RoleBinding = map[string]fleet.RoleBinding{"b": {Role: "viewer", Subjects: []string{"user:ana", "user:nobody", "group:g", "group:none", "service:ana"}}}
			u.AccessGuide = map[string]fleet.AccessGuide{"g1": {Prefix: "gw-"}}
		},
		"folders/a/l": func(u *fleet.Unit) {
			u.AccessGuide = map[string]fleet.AccessGuide{"g2": {Prefix: "gw-big-"}, "g3": {Prefix: "box-"}, "g4": {Prefix: "box-"}}
		},
		"folders/b/l": func(u *fleet.Unit) { u.AccessGuide = map[string]fleet.AccessGuide{"g1": {Prefix: "gw-"}} },
	})
	r := New(Config{}).Resolve(f, Accepted{})
	got := texts(r.Problems)
	for _, want := range []string{
		`identity "ana": token.t.scope: folders/b is not below folders/a`,
		`identity "ben": token.x.scope: there is no directory folders/nowhere`,
		`roleBinding "b": nobody is user:nobody`, `roleBinding "b": nobody is group:none`, `roleBinding "b": nobody is service:ana`,
		`accessGuide "g2": names that begin with "gw-big-" begin with "gw-" of guide "g1" of folders/a too`,
		`accessGuide "g4": names that begin with "box-" begin with "box-" of guide "g3" of folders/a/l too`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if n := strings.Count(got, "warning:"); n != 7 || len(r.Refused) > 0 || firstError(r.Problems) != "" {
		t.Errorf("%d warnings, refused %v:\n%s", n, r.Refused, got)
	}
	if a := r.Accepted.Access; len(slices.Collect(maps.Keys(a))) != 4 || a["folders/a"].Kind != "folder" || a["folders/a/l"].Kind != "workspace" || a[""].Title != "test" {
		t.Errorf("%v", a)
	}
}
