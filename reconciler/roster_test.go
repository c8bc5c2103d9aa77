package reconciler_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"selvedge/schema/roster"
)

// told returns what hubs are told now.
func (w *world) told() roster.Event {
	w.Helper()
	e, ok, err := w.feed.Last()
	w.must(err)
	if !ok {
		w.Fatal("nothing was told yet")
	}
	return e
}

const (
	hash1 = "sha256:0000000000000000000000000000000000000000000000000000000000000001"
	hash2 = "sha256:0000000000000000000000000000000000000000000000000000000000000002"
)

func people(scope, name, hash string) string {
	return fmt.Sprintf(`package fleet

identity: %q: {groups: ["g"], token: t: {hash: %q, expires: "2030-01-31T00:00:00Z"%s}}
roleBinding: "b-%s": {role: "viewer", subjects: ["user:%s"]}
`, name, hash, scope, name, name)
}

func TestRoster(t *testing.T) {
	w := newWorld(t)
	w.start()
	if _, ok, err := w.feed.Last(); ok || err != nil {
		t.Fatal("something is told before anything is known", err)
	}
	commit := w.push("one", map[string]string{
		"folders/a/people.cue": people("", "ana", hash1),
		// a folder without a workspace below
		"folders/c/folder.cue": "package fleet\n\nfolder: title: \"C\"\naccessGuide: box: {prefix: \"box-\", labels: role: \"gateway\"}\n",
	})
	w.once()
	e := w.told()
	f := e.Fleet
	if f.Platform != "Acme" || f.InForce.Hash != commit || f.Seen != f.InForce || f.Fingerprint == "" || e.Trust == "" || f.Error != "" {
		t.Errorf("fleet %+v", f)
	}
	gw := e.Nodes["gw-1"]
	g := w.generations()
	if len(e.Nodes) != 3 || gw.Workspace != "folders/a/line-1" || gw.PublicKey != w.keys["gw-1"] || gw.Labels["role"] != "gateway" ||
		gw.Generation != g["gw-1"] || gw.Commit != commit || !slices.Equal(gw.Apps, []string{"web"}) || len(gw.Images) != 1 || gw.Digest == "" {
		t.Errorf("node %+v", gw)
	}
	if len(e.Changes) != 1 || e.Changes[0].Hash != commit || !maps.Equal(e.Changes[0].Nodes, g) || e.Changes[0].Count != 3 {
		t.Errorf("changes %+v", e.Changes)
	}
	if s := f.Scopes; s[""].Kind != "platform" || s["folders/a"].Title != "A" || s["folders/a/line-1"].Kind != "workspace" || s["folders/c"].Kind != "folder" {
		t.Errorf("scopes %v", s)
	}
	if id := f.Identities["ana"]; id.Scope != "folders/a" || id.Tokens["t"].Hash != hash1 || id.Tokens["t"].Scope != "folders/a" {
		t.Errorf("identity %+v: its tokens open what is below the folder, no more", id)
	}
	if len(f.Bindings) != 1 || f.Bindings[0].Scope != "folders/a" || f.Guides["folders/c/box"].Prefix != "box-" {
		t.Errorf("bindings %v, guides %v", f.Bindings, f.Guides)
	}
	if apps := f.Apps["folders/a/line-1"]; len(apps) != 1 || apps[0] != (roster.App{Name: "web", Scope: "folders/a/line-1"}) {
		t.Errorf("apps %v", apps)
	}

	// a change of one workspace; a node and a folder go
	second := w.push("two", map[string]string{app1: app("two"), line2: workspace("Line 2"), "folders/c/folder.cue": ""})
	w.once()
	e = w.told()
	g = w.generations()
	c := e.Changes[len(e.Changes)-1]
	if _, there := e.Nodes["gw-3"]; there || len(e.Changes) != 2 || c.Hash != second || len(c.Nodes) != 2 || c.Nodes["gw-1"] != g["gw-1"] || !slices.Equal(c.Removed, []string{"gw-3"}) {
		t.Errorf("nodes %v, change %+v", e.Nodes, c)
	}
	if len(e.Fleet.Guides) != 0 || e.Fleet.Scopes["folders/c"].Kind != "" {
		t.Error("a folder that is gone")
	}

	// a restart, and a look without news, tell nothing new
	w.start()
	w.must(w.r.Recall())
	w.once()
	if again := w.told(); len(again.Changes) != 2 || again.Nodes["gw-1"].Commit != second {
		t.Errorf("after a restart: %+v", again.Changes)
	}
}

// TestRosterHolds holds that a broken commit locks nobody out, and lets nobody back in.
func TestRosterHolds(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.push("one", map[string]string{
		"folders/a/people.cue": people("", "ana", hash1), "folders/b/line-2/people.cue": people("", "ben", hash2),
	})
	w.once()
	before := w.told()

	// the workspace of ben, and the folder of ana, each with what removes them and a mistake
	w.push("broken", map[string]string{
		"folders/a/people.cue": "package fleet\n\nfolder: titel: \"A\"\n", "folders/b/line-2/people.cue": "package fleet\n\nap: x: 1\n",
	})
	w.once()
	e := w.told()
	if e.Fleet.Identities["ana"].Tokens["t"].Hash != hash1 || e.Fleet.Identities["ben"].Tokens["t"].Hash != hash2 || len(e.Fleet.Bindings) != 2 {
		t.Errorf("people of refused directories: %+v", e.Fleet.Identities)
	}
	for name, n := range before.Nodes {
		got := e.Nodes[name]
		if got.Held == "" || got.PublicKey != n.PublicKey || got.Generation != n.Generation || !maps.Equal(got.Labels, n.Labels) || !slices.Equal(got.Apps, n.Apps) {
			t.Errorf("held node %s: %+v, was %+v", name, got, n)
		}
	}
	if len(e.Fleet.Problems) == 0 || len(e.Fleet.Apps["folders/a/line-1"]) != 1 {
		t.Errorf("problems %v, apps %v", e.Fleet.Problems, e.Fleet.Apps)
	}
	// after a restart, with nothing but what is on disk
	w.start()
	w.once()
	if e := w.told(); len(e.Fleet.Identities) != 2 || e.Nodes["gw-1"].PublicKey == "" {
		t.Errorf("after a restart: %+v", e.Fleet.Identities)
	}
	// what was removed is gone when the directory is good again, and stays gone in a broken one
	w.push("mended", map[string]string{"folders/a/people.cue": "", "folders/b/line-2/people.cue": ""})
	w.once()
	if e := w.told(); len(e.Fleet.Identities) != 0 || len(e.Fleet.Bindings) != 0 || e.Nodes["gw-1"].Held != "" {
		t.Errorf("after removal: %+v", e.Fleet)
	}
	w.push("broken again", map[string]string{"folders/a/people.cue": people("", "ana", hash1) + "\nap: x: 1\n"})
	w.once()
	if e := w.told(); len(e.Fleet.Identities) != 0 {
		t.Errorf("a broken commit lets back in: %+v", e.Fleet.Identities)
	}
	// a commit that is refused as a whole changes nothing but what is said of it
	w.push("no platform", map[string]string{"platform.cue": "package fleet\n"})
	if err := w.r.Once(t.Context()); err == nil {
		t.Fatal("accepted")
	}
	if e := w.told(); !strings.Contains(e.Fleet.Error, "refused as a whole") || e.Fleet.Seen == e.Fleet.InForce || len(e.Nodes) != 3 || e.Nodes["gw-3"].Generation == 0 {
		t.Errorf("fleet %+v", e.Fleet)
	}
}

// TestRosterKeys holds that a key that is replaced or taken out is told.
func TestRosterKeys(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.push("one", nil)
	w.once()
	w.keys["gw-1"] = nodeKey(t)
	w.push("another key", map[string]string{line1: workspace("Line 1", w.node("gw-1"), "node: \"gw-2\": labels: role: \"gateway\"\n")})
	w.once()
	e := w.told()
	if e.Nodes["gw-1"].PublicKey != w.keys["gw-1"] || e.Nodes["gw-1"].Generation != w.generations()["gw-1"] {
		t.Errorf("gw-1: %+v", e.Nodes["gw-1"])
	}
	if n, there := e.Nodes["gw-2"]; !there || n.PublicKey != "" || n.Generation != 0 || n.Labels["role"] != "gateway" {
		t.Errorf("gw-2 awaits an identity: %+v", n)
	}
}

// TestRosterRecalled holds that a roster that is older than what is published and accepted, as a
// killed pass leaves it, is put right before Git is asked.
func TestRosterRecalled(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.push("one", nil)
	w.once()
	want := w.told()
	stale := w.told()
	stale.Reset = true
	old := stale.Nodes["gw-1"]
	old.Generation, old.Digest, old.PublicKey = 1, "sha256:old", nodeKey(t)
	stale.Nodes["gw-1"] = old
	stale.Nodes["gw-gone"] = roster.Node{Workspace: "folders/a/line-1", PublicKey: nodeKey(t), Generation: 7}
	w.must(w.feed.Tell(stale))

	w.start()
	w.must(os.Rename(w.repo, w.repo+".away"))
	w.must(w.r.Recall())
	if err := w.r.Once(t.Context()); err == nil {
		t.Fatal("no error without Git")
	}
	got := w.told()
	if n := got.Nodes["gw-1"]; n.PublicKey != w.keys["gw-1"] || n.Generation != want.Nodes["gw-1"].Generation || n.Digest != want.Nodes["gw-1"].Digest {
		t.Errorf("gw-1: %+v", n)
	}
	if _, there := got.Nodes["gw-gone"]; there || len(got.Nodes) != 3 || !strings.Contains(got.Fleet.Error, "not a Git repository") {
		t.Errorf("nodes %v, error %q", got.Nodes, got.Fleet.Error)
	}
	// nor does a missing memory of who was accepted put anybody out
	w.must(os.Remove(filepath.Join(w.data, "accepted.json")))
	w.start()
	w.must(w.r.Recall())
	if got := w.told(); len(got.Nodes) != 3 || got.Nodes["gw-1"].PublicKey == "" {
		t.Errorf("without accepted.json: %v", got.Nodes)
	}
}

// TestRosterRevokesFirst holds that hubs learn who is put out before anything of the commit is
// signed.
func TestRosterRevokesFirst(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.push("one", map[string]string{"folders/a/people.cue": people("", "ana", hash1)})
	w.once()
	before := w.generations()
	s := httptest.NewServer(w.feed.Handler())
	defer s.Close()
	res, err := http.Get(s.URL + roster.Path)
	w.must(err)
	defer res.Body.Close()
	d := json.NewDecoder(res.Body)
	change := func() (e roster.Event) {
		t.Helper()
		for {
			var part roster.Event
			w.must(d.Decode(&part))
			e.Removed, e.Changes = append(e.Removed, part.Removed...), append(e.Changes, part.Changes...)
			if part.Fleet != nil {
				e.Fleet = part.Fleet
			}
			if part.Nodes != nil {
				e.Nodes = part.Nodes
			}
			if !part.More {
				return e
			}
		}
	}
	change() // the whole
	w.keys["gw-2"] = nodeKey(t)
	w.push("two", map[string]string{
		app1: app("two"), line1: workspace("Line 1", w.node("gw-1"), w.node("gw-2")), line2: workspace("Line 2"), "folders/a/people.cue": "",
	})
	w.once()
	first, second := change(), change()
	if !slices.Equal(first.Removed, []string{"gw-3"}) || len(first.Nodes) != 1 || first.Nodes["gw-2"].PublicKey != w.keys["gw-2"] ||
		first.Nodes["gw-2"].Generation != before["gw-2"] || first.Fleet == nil || len(first.Fleet.Identities) != 0 || first.Fleet.InForce.Subject != "one" {
		t.Errorf("first: %+v", first)
	}
	if now := w.generations(); second.Nodes["gw-1"].Generation != now["gw-1"] || second.Nodes["gw-2"].Generation != now["gw-2"] ||
		second.Fleet.InForce.Subject != "two" || len(second.Changes) != 1 {
		t.Errorf("then: %+v", second)
	}
}

// TestRosterAllowsFirst holds that hubs give a node the images of a state from when it can have that
// state, and those of the state before until then.
func TestRosterAllowsFirst(t *testing.T) {
	w := newWorld(t)
	w.start()
	const image = "registry.example/web@sha256:000000000000000000000000000000000000000000000000000000000000000"
	with := func(n string) string { return strings.Replace(app("one"), image+"1", image+n, 1) }
	w.push("one", nil)
	w.once()
	before := w.generations()
	images := func(name string, want ...string) {
		t.Helper()
		got := w.told().Nodes[name].Images
		for i := range want {
			want[i] = image + want[i]
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s may have %v, want %v", name, got, want)
		}
	}
	broken := errors.New("the store is full")
	w.put = func() error {
		images("gw-1", "1", "2")
		if n := w.told().Nodes["gw-1"]; n.Generation != before["gw-1"] {
			t.Errorf("announced before it is published: %+v", n)
		}
		return broken
	}
	w.start()
	w.push("two", map[string]string{app1: with("2")})
	if err := w.r.Once(t.Context()); !errors.Is(err, broken) {
		t.Fatal(err)
	}
	images("gw-1", "1", "2")
	// it is taken back before anything of it was published
	w.push("one again", map[string]string{app1: app("one")})
	w.once()
	images("gw-1", "1")
	broken = nil
	w.push("two again", map[string]string{app1: with("2")})
	w.once()
	images("gw-1", "2")
	images("gw-3", "1")
}

// TestRosterRevokesWithoutTrust holds that who is put out is put out also while nothing may be
// signed, and that nothing is signed.
func TestRosterRevokesWithoutTrust(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.push("one", map[string]string{"folders/a/people.cue": people("", "ana", hash1)})
	w.once()
	before := w.generations()
	file := filepath.Join(w.trust, "1.root.json")
	good, err := os.ReadFile(file)
	w.must(err)
	w.must(os.WriteFile(file, good[:len(good)/2], 0o644))
	w.push("two", map[string]string{app1: app("two"), line2: workspace("Line 2"), "folders/a/people.cue": ""})
	for range 2 { // and again, as it is tried
		if err := w.r.Once(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "trust: ") {
			t.Fatal(err)
		}
	}
	e := w.told()
	if _, there := e.Nodes["gw-3"]; there || len(e.Fleet.Identities) > 0 {
		t.Errorf("still let in: %v, %v", e.Nodes["gw-3"], e.Fleet.Identities)
	}
	if got := w.generations(); !maps.Equal(got, before) {
		t.Errorf("signed: %v, before %v", got, before)
	}
	w.must(os.WriteFile(file, good, 0o644))
	w.once()
	if e := w.told(); e.Fleet.InForce.Subject != "two" || len(e.Changes) != 2 {
		t.Errorf("then: %+v", e.Fleet)
	}
}
