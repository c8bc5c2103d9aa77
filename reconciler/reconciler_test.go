package reconciler_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"selvedge/reconciler"
)

func TestPush(t *testing.T) {
	w := newWorld(t)
	w.start()
	if err := w.r.Once(t.Context()); err == nil || !strings.Contains(err.Error(), "no commit yet") {
		t.Errorf("an empty repo: %v", err)
	}
	first := w.push("one", nil)
	w.once()
	w.values(map[string]string{"gw-1": "one", "gw-2": "one", "gw-3": "one"})
	s := w.r.Status()
	if s.InForce.Hash != first || s.Nodes != 3 || s.Signed != 3 || s.Workspaces != 2 || s.Error != "" {
		t.Errorf("status %+v", s)
	}
	if state, err := w.state("gw-1"); err != nil || state.Commit() != first {
		t.Errorf("commit %q, %v", state.Commit(), err)
	}

	// only what changed is signed
	before := w.generations()
	w.push("two", map[string]string{app1: app("two")})
	w.once()
	w.values(map[string]string{"gw-1": "two", "gw-2": "two", "gw-3": "one"})
	after := w.generations()
	if s := w.r.Status(); s.Signed != 2 || after["gw-1"] <= before["gw-1"] || after["gw-3"] != before["gw-3"] {
		t.Errorf("signed %d; generations %v, before %v", s.Signed, after, before)
	}
	w.push("a comment", map[string]string{app1: app("two") + "// nothing\n"})
	w.once()
	if !maps.Equal(w.generations(), after) {
		t.Error("states of equal content were signed anew")
	}
}

func TestRestartSignsNothing(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.push("one", nil)
	w.once()
	before := w.generations()
	w.start()
	w.once()
	if !maps.Equal(w.generations(), before) || w.r.Status().Signed != 0 {
		t.Errorf("generations %v, before %v", w.generations(), before)
	}
	w.values(map[string]string{"gw-1": "one"})
}

func TestRefusedWorkspace(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.push("one", nil)
	w.once()
	w.push("a typo", map[string]string{app1: strings.Replace(app("two"), "resources", "resuorces", 1), app2: app("two")})
	w.once()
	w.values(map[string]string{"gw-1": "one", "gw-2": "one", "gw-3": "two"})
	s := w.r.Status()
	if len(s.Held) != 2 || len(s.Problems) == 0 || s.Error != "" {
		t.Fatalf("status %+v", s)
	}
	if p := s.Problems[0].String(); !strings.HasPrefix(p, app1+":8:3: ") || !strings.Contains(p, `did you mean "resources"`) {
		t.Errorf("problem %q", p)
	}
	// it holds over a restart, and while others go on
	w.start()
	w.push("three", map[string]string{app2: app("three")})
	w.once()
	w.values(map[string]string{"gw-1": "one", "gw-3": "three"})
	w.push("mended", map[string]string{app1: app("four")})
	w.once()
	w.values(map[string]string{"gw-1": "four", "gw-2": "four", "gw-3": "three"})
	if s := w.r.Status(); len(s.Held) != 0 || len(s.Problems) != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestDeletedNode(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.push("one", nil)
	w.once()
	before := w.generations()
	w.push("without gw-2", map[string]string{line1: workspace("Line 1", w.node("gw-1"))})
	w.once()
	w.values(map[string]string{"gw-1": "one", "gw-2": "", "gw-3": "one"})
	if s := w.r.Status(); s.Removed != 1 || s.Nodes != 2 {
		t.Errorf("status %+v", s)
	}
	// a workspace that is gone takes its nodes along; a refused one does not
	w.push("no line 2", map[string]string{line2: "", app2: "", line1: "package fleet\n\nworkspace: titel: \"x\"\n"})
	w.once()
	w.values(map[string]string{"gw-1": "one", "gw-3": ""})
	// what comes back has a higher generation
	w.push("again", map[string]string{line1: workspace("Line 1", w.node("gw-1"), w.node("gw-2"))})
	w.once()
	w.values(map[string]string{"gw-1": "one", "gw-2": "one"})
	if after := w.generations(); after["gw-2"] <= before["gw-2"] {
		t.Errorf("generation %d, before %d", after["gw-2"], before["gw-2"])
	}
}

func TestTakeover(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.push("one", nil)
	w.once()
	first, err := w.state("gw-1")
	w.must(err)
	hold := func(what string) {
		t.Helper()
		w.once()
		s, err := w.state("gw-1")
		if err != nil || s.Digest() != first.Digest() {
			t.Errorf("%s: state of gw-1 is %s, %v; before %s", what, s.Digest(), err, first.Digest())
		}
		if len(w.r.Status().Problems) == 0 {
			t.Errorf("%s: no problem is told", what)
		}
	}
	own := w.keys["gw-1"]

	// another workspace claims the name
	w.push("take the name", map[string]string{line2: workspace("Line 2", w.node("gw-3"), w.node("gw-1"))})
	hold("name")
	w.values(map[string]string{"gw-3": "one"})

	// and still does after a restart
	w.start()
	hold("name after a restart")

	// another one claims the key under a new name
	w.keys["gw-9"] = own
	w.push("take the key", map[string]string{line2: workspace("Line 2", w.node("gw-3"), w.node("gw-9"))})
	hold("key")
	w.values(map[string]string{"gw-9": ""})
}

func TestForcePush(t *testing.T) {
	w := newWorld(t)
	w.start()
	first := w.push("one", nil)
	w.once()
	w.push("two", map[string]string{app1: app("two")})
	w.once()
	before := w.generations()
	w.git(w.clone, "reset", "-q", "--hard", first)
	w.files[app1] = app("three")
	w.push("three", nil, "--force")
	w.once()
	w.values(map[string]string{"gw-1": "three", "gw-3": "one"})
	// back to an old commit: old content, new generation
	w.git(w.clone, "push", "-q", "--force", "origin", first+":main")
	w.once()
	w.values(map[string]string{"gw-1": "one"})
	if after := w.generations(); after["gw-1"] < before["gw-1"]+2 {
		t.Errorf("generations %v, before %v", after, before)
	}
}

func TestBrokenPlatform(t *testing.T) {
	w := newWorld(t)
	w.start()
	first := w.push("one", nil)
	w.once()
	second := w.push("a brace", map[string]string{"platform.cue": platform + "{", app1: app("two")})
	err := w.r.Once(t.Context())
	if !errors.Is(err, reconciler.ErrStalled) || !strings.Contains(err.Error(), "platform.cue:10:2") {
		t.Errorf("error %v", err)
	}
	w.values(map[string]string{"gw-1": "one"})
	if s := w.r.Status(); s.InForce.Hash != first || s.Seen.Hash != second || s.Error == "" || len(s.Problems) == 0 {
		t.Errorf("status %+v", s)
	}
	third := w.push("mended", map[string]string{"platform.cue": platform})
	w.once()
	w.values(map[string]string{"gw-1": "two"})
	if s := w.r.Status(); s.InForce.Hash != third || s.Error != "" {
		t.Errorf("status %+v", s)
	}
}

func TestRepoInTrouble(t *testing.T) {
	w := newWorld(t)
	w.branch = "main"
	w.start()
	first := w.push("one", nil)
	w.once()
	trouble := func(what, says string) {
		t.Helper()
		if err := w.r.Once(t.Context()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want %q", what, err, says)
		}
		if s := w.r.Status(); s.InForce.Hash != first || !strings.Contains(s.Error, says) || s.Since.IsZero() {
			t.Errorf("%s: status %+v", what, s)
		}
		w.values(map[string]string{"gw-1": "one", "gw-2": "one", "gw-3": "one"})
	}
	fine := func(what string) {
		t.Helper()
		if err := w.r.Once(t.Context()); err != nil || w.r.Status().Error != "" {
			t.Errorf("%s: %v", what, err)
		}
	}

	// the branch is deleted: the states stay
	w.git(w.repo, "update-ref", "-d", "refs/heads/main")
	trouble("deleted branch", "no commit yet")
	w.git(w.repo, "update-ref", "refs/heads/other", first)
	trouble("other branch", "no such branch")
	w.git(w.repo, "update-ref", "refs/heads/main", first)
	fine("branch is back")

	// the repository is away
	w.must(os.Rename(w.repo, w.repo+".away"))
	trouble("no repo", "not a Git repository")
	w.must(os.Rename(w.repo+".away", w.repo))
	fine("repo is back")

	// an object of a new commit is damaged
	w.push("two", map[string]string{app1: app("two")})
	blob := w.git(w.clone, "rev-parse", "HEAD:"+app1)
	file := filepath.Join(w.repo, "objects", blob[:2], blob[2:])
	good, err := os.ReadFile(file)
	w.must(err)
	w.must(os.Chmod(file, 0o600))
	w.must(os.WriteFile(file, []byte("garbage"), 0o600))
	w.start() // nothing of it may be in memory
	if err := w.r.Once(t.Context()); err == nil {
		// the damage is found where the file is read, and then it is the workspace's
		if s := w.r.Status(); len(s.Held) != 2 {
			t.Errorf("damaged blob: %+v", s)
		}
	} else if !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged blob: %v", err)
	}
	w.values(map[string]string{"gw-1": "one", "gw-2": "one", "gw-3": "one"})
	w.must(os.WriteFile(file, good, 0o600))
	fine("mended blob")
	w.values(map[string]string{"gw-1": "two", "gw-3": "one"})
}

func TestWatch(t *testing.T) {
	w := newWorld(t)
	stop := w.run()
	w.until("the empty repo to be noticed", func() bool { return w.r.Status().Error != "" })
	w.push("one", nil)
	w.until("the first push", func() bool { return w.value("gw-1") == "one" })
	w.push("two", map[string]string{app1: app("two")})
	w.until("the second push", func() bool { return w.value("gw-1") == "two" && w.value("gw-3") == "one" })
	stop()
}

func TestDamagedData(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"accepted.json", "signed-by.json"} {
		file := filepath.Join(w.data, name)
		w.must(os.WriteFile(file, []byte("{"), 0o600))
		err := w.start().Run(t.Context())
		if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("%s: %v", name, err)
		}
		w.must(os.Remove(file))
	}
}
