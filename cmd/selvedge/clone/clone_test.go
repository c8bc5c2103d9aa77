package clone

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"selvedge/reconciler/validate"
)

// repo makes a clone with one commit.
func repo(t *testing.T) Clone {
	t.Helper()
	t.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(t.TempDir(), "none"))
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	for _, who := range []string{"AUTHOR", "COMMITTER"} {
		t.Setenv("GIT_"+who+"_NAME", "Ana")
		t.Setenv("GIT_"+who+"_EMAIL", "ana@example.com")
	}
	c := Clone{Dir: t.TempDir()}
	put(t, c, "a/kept.cue", "package fleet\n")
	put(t, c, "a/old.cue", "package fleet\n")
	git(t, c, "init", "-q", "-b", "main")
	git(t, c, "add", ".")
	git(t, c, "commit", "-q", "-m", "start")
	return c
}

func put(t *testing.T, c Clone, name, text string) {
	t.Helper()
	name = filepath.Join(c.Dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func git(t *testing.T, c Clone, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = c.Dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// files lists the clone without Git's own.
func files(t *testing.T, c Clone) string {
	t.Helper()
	var out []string
	if err := filepath.WalkDir(c.Dir, func(p string, d fs.DirEntry, err error) error {
		if d.Name() == ".git" {
			return filepath.SkipDir
		}
		if !d.IsDir() {
			out = append(out, strings.TrimPrefix(p, c.Dir+"/"))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

var change = Change{Write: map[string][]byte{"a/new.cue": []byte("package fleet\n"), "a/more.cue": []byte("package fleet // more\n")},
	Remove: []string{"a/old.cue"}, Subject: "subject", Body: "body"}

func TestCommit(t *testing.T) {
	c := repo(t)
	put(t, c, "a/kept.cue", "package fleet // changed, and not of this commit\n")
	put(t, c, "stranger", "x")
	hash, err := c.Commit(t.Context(), change)
	if err != nil || hash != git(t, c, "rev-parse", "HEAD") {
		t.Fatal(hash, err)
	}
	if got := git(t, c, "show", "--no-renames", "--name-status", "--format=%an %s %b", "HEAD"); got != "Ana subject body\n\n\nA\ta/more.cue\nA\ta/new.cue\nD\ta/old.cue" {
		t.Error(got)
	}
	if got := git(t, c, "status", "--porcelain"); got != "M a/kept.cue\n?? stranger" {
		t.Error(got)
	}
}

// TestNothingIsLeft has each step fail: the clone is as it was.
func TestNothingIsLeft(t *testing.T) {
	hook := func(name, text string) func(*testing.T, Clone) {
		return func(t *testing.T, c Clone) {
			put(t, c, ".git/hooks/"+name, "#!/bin/sh\n"+text+"\n")
			if err := os.Chmod(filepath.Join(c.Dir, ".git/hooks", name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, x := range map[string]struct {
		prepare func(*testing.T, Clone)
		says    string
	}{
		"a hook says no":       {hook("pre-commit", "echo no >&2; exit 1"), "no"},
		"a message is refused": {hook("commit-msg", "exit 1"), "git commit"},
		"signing fails": {func(t *testing.T, c Clone) {
			git(t, c, "config", "commit.gpgsign", "true")
			git(t, c, "config", "gpg.program", "/bin/false")
		}, "git commit"},
		"no identity": {func(t *testing.T, c Clone) {
			os.Unsetenv("GIT_AUTHOR_NAME")
			os.Unsetenv("GIT_AUTHOR_EMAIL")
			git(t, c, "config", "user.useConfigOnly", "true")
		}, "git commit"},
		"the file is ignored":        {func(t *testing.T, c Clone) { put(t, c, ".git/info/exclude", "new.cue\n") }, "git add"},
		"the index is locked":        {func(t *testing.T, c Clone) { put(t, c, ".git/index.lock", "") }, "git"},
		"a file is in the way":       {func(t *testing.T, c Clone) { put(t, c, "a/new.cue", "other") }, "is there already"},
		"the removed one is changed": {func(t *testing.T, c Clone) { put(t, c, "a/old.cue", "other") }, "not committed"},
		"others are staged": {func(t *testing.T, c Clone) {
			put(t, c, "x", "x")
			git(t, c, "add", "x")
		}, "index"},
		"a folder leads outside": {func(t *testing.T, c Clone) {
			if err := os.Symlink(t.TempDir(), filepath.Join(c.Dir, "out")); err != nil {
				t.Fatal(err)
			}
		}, "out"},
	} {
		t.Run(name, func(t *testing.T) {
			c := repo(t)
			x.prepare(t, c)
			ch := change
			if name == "a folder leads outside" {
				ch = Change{Write: map[string][]byte{"out/new.cue": []byte("x")}, Subject: "s"}
			}
			head := git(t, c, "rev-parse", "HEAD")
			before := files(t, c)
			_, err := c.Commit(t.Context(), ch)
			if err == nil || !strings.Contains(err.Error(), x.says) {
				t.Errorf("%v, want %q", err, x.says)
			}
			if after := files(t, c); after != before || git(t, c, "rev-parse", "HEAD") != head {
				t.Errorf("before %s, after %s", before, after)
			}
			if got := git(t, c, "diff", "--cached", "--name-only"); got != "" && got != "x" {
				t.Errorf("staged: %s", got)
			}
		})
	}
}

// TestInterrupted ends Git in the midst of it, and leaves what a kill would leave.
func TestInterrupted(t *testing.T) {
	c := repo(t)
	before := files(t, c)
	put(t, c, ".git/hooks/pre-commit", "#!/bin/sh\ntouch .git/begun; exec sleep 60\n")
	if err := os.Chmod(filepath.Join(c.Dir, ".git/hooks/pre-commit"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(filepath.Join(c.Dir, ".git/begun")); err == nil {
				cancel()
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if _, err := c.Commit(ctx, change); err == nil {
		t.Fatal("it was committed")
	}
	if after := files(t, c); after != before {
		t.Errorf("before %s, after %s", before, after)
	}
	if err := os.Remove(filepath.Join(c.Dir, ".git/hooks/pre-commit")); err != nil {
		t.Fatal(err)
	}
	// what a killed run left, whole or in pieces, is no hindrance
	put(t, c, "a/new.cue", string(change.Write["a/new.cue"]))
	put(t, c, "a/.more.cue.tmp", "half")
	if _, err := c.Commit(t.Context(), change); err != nil {
		t.Error(err)
	}
	if after := files(t, c); after != "a/kept.cue a/more.cue a/new.cue" {
		t.Error(after)
	}
}

// TestNoClone refuses what is no working tree.
func TestNoClone(t *testing.T) {
	if err := (Clone{Dir: t.TempDir()}).Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "no Git working tree") {
		t.Error(err)
	}
}

// TestTree is the working tree with the change in it, byte for byte, with the same IDs as if
// it were written.
func TestTree(t *testing.T) {
	c := repo(t)
	root, err := os.OpenRoot(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	over, err := change.Tree(validate.Dir(root))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := over.ReadFile("a/old.cue"); err == nil {
		t.Error("what is removed is there")
	}
	if _, err := (Change{Write: map[string][]byte{"a/kept.cue": nil}}).Tree(validate.Dir(root)); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("over a file: %v", err)
	}
	ids := map[string]string{}
	for _, name := range []string{".", "a", "a/new.cue", "a/kept.cue"} {
		if ids[name], err = over.ID(name); err != nil {
			t.Fatal(name, err)
		}
	}
	if _, err := c.Commit(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	written := validate.Dir(root)
	for name, want := range ids {
		if got, err := written.ID(name); err != nil || got != want {
			t.Errorf("%s: %s before, %s after it was written; %v", name, want, got, err)
		}
	}
}

// TestFoundIsKept: a file that was there before, be it of the same content, is not taken away
// when the commit fails: another run may have committed it.
func TestFoundIsKept(t *testing.T) {
	c := repo(t)
	ch := Change{Write: map[string][]byte{"a/kept.cue": []byte("package fleet\n")}, Subject: "s"}
	if _, err := c.Commit(t.Context(), ch); err == nil {
		t.Error("a commit of nothing")
	}
	if got := git(t, c, "status", "--porcelain"); got != "" {
		t.Error(got)
	}
}

// TestOnto refuses to commit on another commit than the one that was checked.
func TestOnto(t *testing.T) {
	c := repo(t)
	ch := change
	if ch.Onto = c.Head(t.Context()); ch.Onto != git(t, c, "rev-parse", "HEAD") {
		t.Fatal(ch.Onto)
	}
	git(t, c, "commit", "-q", "--allow-empty", "-m", "meanwhile")
	if _, err := c.Commit(t.Context(), ch); err == nil || !strings.Contains(err.Error(), "run it again") {
		t.Error(err)
	}
	if got := git(t, c, "status", "--porcelain"); got != "" {
		t.Error(got)
	}
	ch.Onto = c.Head(t.Context())
	if _, err := c.Commit(t.Context(), ch); err != nil {
		t.Error(err)
	}
}

// TestHold: one at a time, also from a folder of the clone. A linked working tree has an index, and
// so a turn, of its own.
func TestHold(t *testing.T) {
	c := repo(t)
	release, err := c.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := (Clone{Dir: filepath.Join(c.Dir, "a")}).Hold(ctx); err == nil {
		t.Error("two at once")
	}
	next := make(chan error)
	go func() {
		end, err := c.Hold(t.Context())
		if err == nil {
			end()
		}
		next <- err
	}()
	other := Clone{Dir: filepath.Join(t.TempDir(), "other")}
	git(t, c, "worktree", "add", "-q", other.Dir)
	end, err := other.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	end()
	release()
	if err := <-next; err != nil {
		t.Error(err)
	}
}
