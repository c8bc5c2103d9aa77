package git

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
)

// TestResolveLikeGit asks the real git the same questions.
func TestResolveLikeGit(t *testing.T) {
	dir := t.TempDir()
	r := initRepo(t, dir)
	r.commit("one", "f", "1")
	r.git("tag", "v1")
	r.commit("two", "f", "2")
	r.git("tag", "-a", "-m", "release", "v2")
	r.git("tag", "-a", "-m", "of a tag", "v2-again", "v2")
	for _, b := range []string{"left", "feature/right", "third"} {
		r.git("checkout", "-q", "-b", b, "main")
		r.commit(b, "f-"+filepath.Base(b), b)
	}
	r.git("checkout", "-q", "main")
	r.commit("three", "f", "3")
	r.git("merge", "-q", "-m", "octopus", "left", "feature/right", "third")
	r.git("update-ref", "refs/remotes/origin/main", "HEAD~1")
	r.git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")
	full := r.git("rev-parse", "HEAD")
	revs := []string{
		"HEAD", "@", "main", "left", "feature/right", "heads/main", "refs/heads/left", "v1", "v2", "v2-again", "tags/v2",
		"origin/main", "origin", "remotes/origin/main", full, full[:7], full[:12], full[:9], strings.ToUpper(full[:8]), full[:4] + "",
		"HEAD~1", "HEAD~", "HEAD^", "HEAD^1", "HEAD^2", "HEAD^3", "HEAD^4", "HEAD^0", "HEAD~0", "HEAD~2", "HEAD^^", "HEAD^2~1", "HEAD~1^0", "@~2",
		"v2^{commit}", "v2^{}", "v2~1", "v2^{commit}~1", full[:10] + "~1", "HEAD~3", "feature/right^",
		"none", "HEAD~99", "HEAD^9", "", "v3", "HEAD^{tree}", "HEAD^{nonsense", "HEAD~x", "HEAD^x", "--all", "-n1", "HEAD..main", "../../etc/passwd",
		"0000000000000000000000000000000000000001", "deadbeef", "zzzz", full[:3], full + "0", "HEAD:f", "a b", "HEAD~99999999999999999999", "refs/heads", "feature", "\x00", "heads",
	}
	tagHash := r.git("rev-parse", "v2") // an annotated tag's own hash
	revs = append(revs, tagHash, tagHash[:8])
	for _, packed := range []bool{false, true} {
		if packed {
			r.git("gc", "-q")
		}
		repo, err := Open(r.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, rev := range revs {
			var want string
			if rev != "" && rev[0] != '-' && !strings.ContainsAny(rev, "\x00:") && !strings.Contains(rev, "..") && rev != "HEAD^{tree}" {
				// the short hash of a tag is its commit for us
				if out, err := r.try("", "rev-parse", "--verify", "-q", rev+"^{commit}"); err == nil {
					want = strings.TrimSpace(out)
				}
			}
			c, err := repo.Resolve(context.Background(), rev)
			switch {
			case want == "" && err == nil:
				t.Errorf("%q is %s, for git it is nothing", rev, c.Hash)
			case want == "":
				wantErr(t, err, ErrNoRevision)
			case err != nil:
				t.Errorf("%q: %v", rev, err)
			case c.Hash != want:
				t.Errorf("%q is %s, want %s", rev, c.Hash, want)
			}
		}
	}
	repo, err := Open(filepath.Join(dir))
	if err != nil {
		t.Fatal(err)
	}
	c, err := repo.Resolve(context.Background(), "v1")
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, c.Tree, "f", "1")
	if c.Subject() != "one" || c.Author != "Ana <ana@example.com>" || c.Time.IsZero() {
		t.Errorf("commit is %+v", c)
	}
	_, err = repo.Resolve(context.Background(), "nope")
	wantErr(t, err, ErrNoRevision, `resolve "nope"`, "git branch")
}

func TestOpenFindsRepositories(t *testing.T) {
	dir := t.TempDir()
	r := initRepo(t, filepath.Join(dir, "r"))
	h := r.commit("x", "deep/er/f", "1")
	r.git("worktree", "add", "-q", "-b", "other", filepath.Join(dir, "linked"))
	linked := testRepo{t, filepath.Join(dir, "linked")}
	h2 := linked.commit("in the worktree", "g", "2")
	r.git("clone", "-q", "--bare", r.dir, filepath.Join(dir, "bare.git"))
	r.git("clone", "-q", "--shared", r.dir, filepath.Join(dir, "shared"))
	r.git("clone", "-q", "--shared", filepath.Join(dir, "shared"), filepath.Join(dir, "twice"))
	for path, want := range map[string]string{
		"r": h, "r/deep/er": h, "r/.git": h, "linked": h2, "linked/deep": h2, "bare.git": h, "bare.git/refs": h, "shared": h, "twice": h,
	} {
		repo, err := Open(filepath.Join(dir, path))
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		c, err := repo.Resolve(context.Background(), "HEAD")
		if err != nil || c.Hash != want {
			t.Errorf("%s: %v %v", path, c, err)
			continue
		}
		wantFile(t, c.Tree, "deep/er/f", "1")
		if _, err := repo.Resolve(context.Background(), want[:8]); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if repo, err := Open(filepath.Join(dir, "r/deep")); err != nil || repo.Root() != r.dir {
		t.Errorf("root: %v", err)
	}
	_, err := Open(dir)
	wantErr(t, err, ErrNotRepository, dir)
	_, err = Open(filepath.Join(dir, "none"))
	wantErr(t, err, ErrNotRepository, "no such file")
	_, err = Open(filepath.Join(r.dir, "deep/er/f"))
	wantErr(t, err, ErrNotRepository, "not a folder")
	// the worktree's target moved away
	r.write("../broken/.git", "gitdir: /nowhere/at/all\n")
	_, err = Open(filepath.Join(dir, "broken"))
	wantErr(t, err, ErrCorrupt, "/nowhere/at/all", "git worktree repair")
}

func TestUnsupportedFormats(t *testing.T) {
	r := initRepo(t, t.TempDir(), "--object-format=sha256")
	_, err := Open(r.dir)
	wantErr(t, err, ErrUnsupported, "sha256")
	r = initRepo(t, t.TempDir())
	r.git("config", "core.repositoryformatversion", "1")
	r.git("config", "extensions.refstorage", "reftable")
	_, err = Open(r.dir)
	wantErr(t, err, ErrUnsupported, "reftable", "git refs migrate")
}

func TestShallow(t *testing.T) {
	dir := t.TempDir()
	r := initRepo(t, filepath.Join(dir, "r"))
	first := r.commit("one", "f", "1")
	r.commit("one and a half", "f", "1.5")
	second := r.commit("two", "f", "2")
	r.commit("three", "f", "3")
	r.git("clone", "-q", "--depth=2", "file://"+r.dir, filepath.Join(dir, "s"))
	repo, err := Open(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	if !repo.Shallow() {
		t.Error("not shallow")
	}
	if c, err := repo.Resolve(context.Background(), "HEAD~1"); err != nil || c.Hash != second {
		t.Error(c, err)
	}
	for _, rev := range []string{"HEAD~2", first, "origin/elsewhere"} {
		_, err = repo.Resolve(context.Background(), rev)
		wantErr(t, err, ErrNoRevision, "git fetch --unshallow")
		wantErr(t, err, ErrShallow)
	}
	src := New(Config{Remote: filepath.Join(dir, "s"), Since: first, Log: silent})
	if c := mustHead(t, src); c.Relation != Unknown {
		t.Errorf("relation is %s", c.Relation)
	}
}
