package validate

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"selvedge/schema/fleet"
)

// evaluated runs a validation and returns which directories were evaluated for it.
func evaluated(t *testing.T, v *Validator, dir string) (*fleet.Fleet, string) {
	t.Helper()
	asked := &asking{Tree: tree(t, dir), seen: map[string]bool{}}
	f, _, err := v.Validate(context.Background(), asked)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, d := range []string{".", "folders/plant-a", wsDir, "folders/plant-b", otherDir} {
		for p := range asked.seen {
			if filepath.Dir(p) == d && filepath.Ext(p) == ".cue" && d == wsDir {
				out = append(out, "line-1")
				break
			} else if filepath.Dir(p) == d && filepath.Ext(p) == ".cue" && d == otherDir {
				out = append(out, "line-2")
				break
			}
		}
	}
	return f, strings.Join(out, " ")
}

// asking notes which files are read.
type asking struct {
	Tree
	seen map[string]bool
}

func (a *asking) ReadFile(name string) ([]byte, error) {
	a.seen[name] = true
	return a.Tree.ReadFile(name)
}

func TestCache(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cache", "validate.db")
	dir := repoDir(t, with(map[string]string{
		wsDir + "/more.cue":  "@extern(embed)\n\npackage fleet\n\nnode: _ @embed(file=more.yaml)\n",
		wsDir + "/more.yaml": "gw-5:\n  labels: {role: x}\n",
	}))
	v := New(Config{CacheFile: file})
	first, got := evaluated(t, v, dir)
	if got != "line-1 line-2" {
		t.Fatalf("first: %q", got)
	}
	put := func(name, text string) {
		t.Helper()
		write(t, dir, map[string]string{name: text})
	}
	for _, step := range []struct {
		name string
		do   func()
		want string
	}{
		{"nothing", func() {}, ""},
		{"another engine run", func() {
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			v = New(Config{CacheFile: file})
		}, ""},
		{"a file nobody reads", func() { put("docs/x.md", "x") }, ""},
		{"a changed file", func() { put(wsDir+"/workspace.cue", "package fleet\n\nworkspace: title: \"Changed\"\n") }, "line-1"},
		{"a changed embed", func() { put(wsDir+"/more.yaml", "gw-6:\n  labels: {role: x}\n") }, "line-1"},
		{"an added file", func() { put(wsDir+"/y.cue", "package fleet\n") }, "line-1"},
		{"a removed file", func() {
			if err := os.Remove(filepath.Join(dir, wsDir, "y.cue")); err != nil {
				t.Fatal(err)
			}
		}, "line-1"},
		{"a file added above", func() { put("folders/plant-b/z.cue", "package fleet\n\nnode: [string]: labels: country: \"de\"\n") }, "line-2"},
		{"a file added on top", func() { put("z.cue", "package fleet\n") }, "line-1 line-2"},
		{"a missing import appears", func() {
			put("lib/a/a.cue", "package a\n\nx: 1\n")
			put(otherDir+"/i.cue", "package fleet\n\nimport \"example.com/fleet/lib/a\"\n\n_x: a.x\n")
		}, "line-2"},
		{"a changed import", func() { put("lib/a/a.cue", "package a\n\nx: 2\n") }, "line-2"},
		{"a damaged cache", func() {
			if err := v.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 100_000), 0o600); err != nil {
				t.Fatal(err)
			}
			v = validator(t, Config{CacheFile: file})
		}, "line-1 line-2"},
		{"a removed workspace", func() {
			if err := os.RemoveAll(filepath.Join(dir, otherDir)); err != nil {
				t.Fatal(err)
			}
		}, ""},
	} {
		step.do()
		f, got := evaluated(t, v, dir)
		if got != step.want {
			t.Errorf("%s: evaluated %q, want %q", step.name, got, step.want)
		}
		s := f.Workspaces[wsDir]
		if s.Unit == nil {
			t.Fatalf("%s: refused: %v", step.name, s.Problems)
		}
		if s.ID != first.Workspaces[wsDir].ID == (step.want == "" || step.want == "line-2") && step.name == "a changed file" {
			t.Errorf("%s: the ID does not follow", step.name)
		}
	}
	if _, err := os.Stat(file + ".corrupt"); err != nil {
		t.Error("the damaged cache is not set aside:", err)
	}
	if vd := v.store.get(otherDir); vd != nil {
		t.Error("a directory that is gone is kept")
	}
	if vd := v.store.get(wsDir); vd == nil || vd.Result.Unit == nil {
		t.Error("a directory is not kept")
	}
}

// TestCacheCut holds that a cache that was cut short is no end.
func TestCacheCut(t *testing.T) {
	file := filepath.Join(t.TempDir(), "validate.db")
	dir := repoDir(t, baseRepo())
	v := New(Config{CacheFile: file})
	check(t, v, dir)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{0, 10, 4096, 8192, 16384, 20000} {
		if err := os.Truncate(file, n); err != nil {
			t.Fatal(err)
		}
		v := New(Config{CacheFile: file})
		for range 2 {
			if f, _ := check(t, v, dir); f.Workspaces[wsDir].Unit == nil {
				t.Errorf("cut to %d: refused", n)
			}
		}
		if err := v.Close(); err != nil {
			t.Errorf("cut to %d: %v", n, err)
		}
	}
}

// TestKeptPointers holds that a round changes the sources of changed workspaces alone.
func TestKeptPointers(t *testing.T) {
	v := validator(t, Config{})
	dir := repoDir(t, baseRepo())
	a, _ := check(t, v, dir)
	write(t, dir, map[string]string{otherDir + "/workspace.cue": "package fleet\n\nworkspace: title: \"New\"\n"})
	b, _ := check(t, v, dir)
	if a.Workspaces[wsDir] != b.Workspaces[wsDir] {
		t.Error("an unchanged workspace has another source")
	}
	if x, y := a.Workspaces[otherDir], b.Workspaces[otherDir]; x == y || x.ID == y.ID || y.Unit.Workspace.Title != "New" {
		t.Error("a changed workspace has not")
	}
}
