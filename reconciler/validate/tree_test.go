package validate

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

func TestDirIDs(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("no git")
	}
	dir := repoDir(t, map[string]string{"a.txt": "hello\n", "d/b": ""})
	tr := tree(t, dir)
	for _, name := range []string{"a.txt", "d/b"} {
		out, err := exec.Command(git, "hash-object", filepath.Join(dir, name)).Output()
		if err != nil {
			t.Fatal(err)
		}
		id, err := tr.ID(name)
		if err != nil || id != strings.TrimSpace(string(out)) {
			t.Errorf("%s: %s, git says %s (%v)", name, id, out, err)
		}
	}
	before, err := tr.ID(".")
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"a.txt": "other"})
	if id, _ := tr.ID("."); id != before {
		t.Error("the ID of a directory follows the content of its files")
	}
	write(t, dir, map[string]string{"new": ""})
	if id, _ := tr.ID("."); id == before {
		t.Error("the ID of a directory does not follow its names")
	}
	if _, err := tr.ID("none"); !os.IsNotExist(err) {
		t.Errorf("missing: %v", err)
	}
}

// TestSymlinks holds that no link is followed, wherever it is.
func TestSymlinks(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret.yaml")
	if err := os.WriteFile(outside, []byte("gw-5: {labels: {a: secret}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v := validator(t, Config{})
	for _, c := range []struct {
		name, link, target, want string
		over                     map[string]string
	}{
		{"file", wsDir + "/x.yaml", outside, wsDir + "/x.yaml: neither a file nor a directory", map[string]string{wsDir + "/x.cue": "@extern(embed)\n\npackage fleet\n\nnode: _ @embed(file=x.yaml)\n"}},
		{"inside", wsDir + "/x.cue", "apps.cue", wsDir + "/x.cue: neither a file nor a directory", nil},
		{"directory", "folders/plant-c", "plant-a", "folders/plant-c: neither a file nor a directory", nil},
		{"vendored", "cue.mod/pkg/x.example", "..", "cue.mod/pkg/x.example: neither a file nor a directory", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := repoDir(t, with(c.over))
			if err := os.Symlink(c.target, filepath.Join(dir, c.link)); err != nil {
				t.Fatal(err)
			}
			f, repo := check(t, v, dir)
			if got := all(f, repo); !strings.Contains(got, c.want) || strings.Contains(got, "secret") {
				t.Errorf("want %s\ngot %s", c.want, got)
			}
			if _, err := tree(t, dir).ReadFile(c.link); err == nil {
				t.Error("the tree follows it")
			}
		})
	}
}

// mapTree is a tree in memory, with names that no checkout would make.
type mapTree struct{ fstest.MapFS }

func (m mapTree) ID(name string) (string, error) {
	b, err := m.MapFS.ReadFile(name)
	return string(b), err
}

func TestNames(t *testing.T) {
	m := mapTree{fstest.MapFS{}}
	for name, s := range baseRepo() {
		m.MapFS[name] = &fstest.MapFile{Data: []byte(s)}
	}
	m.MapFS[wsDir+"/\x1b[2J.cue"] = &fstest.MapFile{Data: []byte("package fleet\n")}
	m.MapFS[otherDir+"/x.cue"] = &fstest.MapFile{Data: []byte("package fleet\n\n\"a\\u001b[2Jb\": 1\n")}
	m.MapFS[otherDir+"/lost.yaml"] = &fstest.MapFile{Data: []byte("x: 1\n")}
	v := validator(t, Config{})
	f, repo, err := v.Validate(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	got := all(f, repo)
	t.Log(got)
	if strings.Contains(got, "\x1b") {
		t.Errorf("a control character gets through: %q", got)
	}
	for _, want := range []string{`\u001b[2J.cue: the name has control characters`, `unknown field "a\x1b[2Jb"`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s", want)
		}
	}
	delete(m.MapFS, otherDir+"/x.cue")
	f, repo, err = v.Validate(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	if got := all(f, repo); !strings.Contains(got, otherDir+"/lost.yaml: warning: nothing reads this file") {
		t.Errorf("got %s", got)
	}
}
