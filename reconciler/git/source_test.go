package git

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHeadFollowsPushes(t *testing.T) {
	bare, work := bareAndClone(t)
	src := New(Config{Remote: bare.dir, Branch: "main", Log: silent})
	first := work.git("rev-parse", "HEAD")
	c := wantHead(t, src, first, First)
	if c.Ref != "refs/heads/main" || c.Before != "" || c.Subject() != "first" {
		t.Errorf("commit is %+v", c)
	}
	firstTree := c.Tree
	wantHead(t, src, first, Same)
	h := work.commit("second", "a.txt", "ONE\n")
	work.push("main")
	c = wantHead(t, src, h, Forward)
	if c.Before != first || len(c.Parents) != 1 || c.Parents[0] != first {
		t.Errorf("commit is %+v", c)
	}
	wantFile(t, c.Tree, "a.txt", "ONE\n")
	wantFile(t, firstTree, "a.txt", "one\n")

	// a push of many objects arrives as a pack
	var files []string
	for i := range 300 {
		files = append(files, fmt.Sprintf("many/%d", i), fmt.Sprint(i))
	}
	h = work.commit("many", files...)
	work.push("main")
	wantFile(t, wantHead(t, src, h, Forward).Tree, "many/299", "299")

	// packs are replaced under our feet
	bare.git("gc", "-q", "--prune=now")
	wantHead(t, src, h, Same)
	wantFile(t, firstTree, "sub/b.txt", "two\n")
	h = work.commit("after gc", "a.txt", "three\n")
	work.push("main")
	bare.git("repack", "-q", "-a", "-d")
	bare.git("pack-refs", "--all")
	c = wantHead(t, src, h, Forward)
	wantFile(t, c.Tree, "a.txt", "three\n")
	wantFile(t, c.Tree, "many/7", "7")

	// force-push: not an error, but told
	work.git("reset", "-q", "--hard", first)
	h2 := work.commit("other history", "a.txt", "four\n")
	work.push("main")
	c = wantHead(t, src, h2, Rewritten)
	if c.Before != h {
		t.Errorf("before is %s", c.Before)
	}
	work.push(first + ":refs/heads/main") // back to what was there before
	wantHead(t, src, first, Rewritten)
	// a restart
	again := New(Config{Remote: "file://" + bare.dir, Since: first, Log: silent})
	wantHead(t, again, first, Same)
	if c, err := again.Commit(context.Background(), h2); err != nil || c.Hash != h2 {
		t.Error(c, err)
	}
	wantHead(t, New(Config{Remote: bare.dir, Since: h, Log: silent}), first, Rewritten)
	wantHead(t, New(Config{Remote: bare.dir, Since: strings.Repeat("12", 20), Log: silent}), first, Rewritten)
	// a merge has the one before among its ancestors, though not as first parent
	work.git("reset", "-q", "--hard", h2)
	work.git("merge", "-q", "-s", "ours", "-m", "merge", h)
	work.push("main")
	wantHead(t, New(Config{Remote: bare.dir, Since: h, Log: silent}), work.git("rev-parse", "HEAD"), Forward)
}

func TestStatesOfALocalRepository(t *testing.T) {
	ctx := context.Background()
	t.Run("empty", func(t *testing.T) {
		r := initRepo(t, t.TempDir(), "--bare")
		_, err := New(Config{Remote: r.dir, Log: silent}).Head(ctx)
		wantErr(t, err, ErrEmpty, r.dir, "push a first commit to main")
		_, err = New(Config{Remote: r.dir, Branch: "prod", Log: silent}).Head(ctx)
		wantErr(t, err, ErrEmpty)
	})
	t.Run("branch", func(t *testing.T) {
		bare, work := bareAndClone(t)
		work.push("main:release/1")
		src := New(Config{Remote: bare.dir, Branch: "release/1", Log: silent})
		c := mustHead(t, src)
		bare.git("update-ref", "-d", "refs/heads/release/1")
		_, err := src.Head(ctx)
		wantErr(t, err, ErrNoBranch, `"release/1" is not there, but main`, "last good commit stays in force")
		h := work.commit("next", "a.txt", "2")
		work.push("main:release/1")
		if next := wantHead(t, src, h, Forward); next.Before != c.Hash {
			t.Errorf("before is %s", next.Before)
		}
		for _, odd := range []string{"release", "main/sub", "../../../etc/passwd", "HEAD/x", "-x", "a b", "refs/heads", "\x00"} {
			_, err = New(Config{Remote: bare.dir, Branch: odd, Log: silent}).Head(ctx)
			wantErr(t, err, ErrNoBranch)
		}
	})
	t.Run("not a repository", func(t *testing.T) {
		dir := t.TempDir()
		_, err := New(Config{Remote: dir, Log: silent}).Head(ctx)
		wantErr(t, err, ErrNotRepository, dir, "git init")
		_, err = New(Config{Remote: dir + "/none", Log: silent}).Head(ctx)
		wantErr(t, err, ErrNotRepository, "check the path")
	})
	t.Run("below a repository", func(t *testing.T) { // only the CLI looks above
		r := initRepo(t, t.TempDir())
		r.commit("x", "sub/f", "1")
		_, err := New(Config{Remote: filepath.Join(r.dir, "sub"), Log: silent}).Head(ctx)
		wantErr(t, err, ErrNotRepository)
	})
	t.Run("detached HEAD", func(t *testing.T) {
		r := initRepo(t, t.TempDir())
		h := r.commit("x", "f", "1")
		r.commit("y", "f", "2")
		r.git("checkout", "-q", h)
		if c := mustHead(t, New(Config{Remote: r.dir, Log: silent})); c.Hash != h || c.Ref != "" {
			t.Errorf("%+v", c)
		}
	})
	t.Run("linked worktree", func(t *testing.T) {
		dir := t.TempDir()
		r := initRepo(t, filepath.Join(dir, "r"))
		r.commit("x", "f", "1")
		r.git("worktree", "add", "-q", "-b", "other", filepath.Join(dir, "w"))
		h := testRepo{t, filepath.Join(dir, "w")}.commit("y", "f", "2")
		wantFile(t, wantHead(t, New(Config{Remote: filepath.Join(dir, "w"), Log: silent}), h, First).Tree, "f", "2")
	})
	t.Run("removed and made again", func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "r")
		r := initRepo(t, path)
		r.commit("x", "f", "1")
		src := New(Config{Remote: path, Log: silent})
		mustHead(t, src)
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		_, err := src.Head(ctx)
		wantErr(t, err, ErrNotRepository)
		r = initRepo(t, path)
		_, err = src.Head(ctx)
		wantErr(t, err, ErrEmpty)
		h := r.commit("other", "g", "2")
		wantFile(t, wantHead(t, src, h, Rewritten).Tree, "g", "2")
	})
	t.Run("refs damaged", func(t *testing.T) {
		for name, text := range map[string]string{"empty": "", "junk": "hello\n", "zero": strings.Repeat("0", 40) + "\n", "loop": "ref: refs/heads/main\n", "short": "abcd\n", "outside": "ref: ../../etc/passwd\n"} {
			t.Run(name, func(t *testing.T) {
				r := initRepo(t, t.TempDir())
				r.commit("x", "f", "1")
				r.write(".git/refs/heads/main", text)
				_, err := New(Config{Remote: r.dir, Log: silent}).Head(ctx)
				if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrEmpty) && !errors.Is(err, ErrNoBranch) {
					t.Errorf("error is %v", err)
				}
				t.Log(err)
			})
		}
		r := initRepo(t, t.TempDir())
		r.commit("x", "f", "1")
		r.git("pack-refs", "--all")
		r.write(".git/packed-refs", "garbage here\nmore\n")
		_, err := New(Config{Remote: r.dir, Log: silent}).Head(ctx)
		wantErr(t, err, ErrCorrupt)
	})
	t.Run("canceled", func(t *testing.T) {
		bare, _ := bareAndClone(t)
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := New(Config{Remote: bare.dir, Log: silent}).Head(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("half a pack", func(t *testing.T) { // as another push is being written
		bare, work := bareAndClone(t)
		bare.git("gc", "-q")
		junk := filepath.Join(bare.dir, "objects/pack/pack-"+strings.Repeat("ab", 20)+".pack")
		if err := os.WriteFile(junk, []byte("PACK"), 0o600); err != nil {
			t.Fatal(err)
		}
		wantFile(t, mustHead(t, New(Config{Remote: bare.dir, Log: silent})).Tree, "a.txt", "one\n")
		_ = work
	})
}

func TestAddresses(t *testing.T) {
	for remote, want := range map[string]string{
		"":                                   "it is empty",
		"http://git.example/x.git":           "use https://",
		"http://10.0.0.1/x.git":              "use https://",
		"http://localhost.example/x":         "use https://",
		"https://ana:secret@git.example/x":   "credentials file",
		"https://token@git.example/x":        "credentials file",
		"ssh://git@git.example/x":            "ssh:// is not supported",
		"git@git.example:x/y.git":            "SSH address",
		"git://git.example/x":                "not supported",
		"https:///x":                         "names no host",
		"file://other/x":                     "names no host, or a host",
		"https://git.example/x?token=secret": "query",
		"https://ana:sec%ret@git.example/x":  "no valid URL",
	} {
		_, err := New(Config{Remote: remote, Dir: t.TempDir(), Log: silent}).Head(context.Background())
		wantErr(t, err, ErrConfig, want)
		if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "sec%ret") || strings.Contains(err.Error(), "token@") {
			t.Errorf("the error shows the credentials: %v", err)
		}
		if err := New(Config{Remote: remote, Log: silent}).Run(context.Background()); !errors.Is(err, ErrConfig) {
			t.Errorf("Run: %v", err)
		}
	}
	for _, ok := range []string{"http://127.0.0.1:1/x", "http://[::1]:1/x", "http://localhost:1/x", "https://git.example:8443/a/b.git"} {
		if at, err := parseRemote(ok); err != nil || at.url == nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
}

// TestReadingWhileGitRepacks reads all the time while pushes come and packs are replaced.
func TestReadingWhileGitRepacks(t *testing.T) {
	bare, work := bareAndClone(t)
	stop := make(chan struct{})
	done := make(chan error, 2)
	src := New(Config{Remote: bare.dir, Branch: "main", Log: silent})
	old := mustHead(t, src)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			c, err := src.Head(context.Background())
			if err == nil {
				_, err = c.Tree.ReadFile("a.txt")
			}
			if err == nil {
				_, err = c.Tree.ReadFile("sub/b.txt")
			}
			if err == nil { // nothing of it is cached
				_, err = New(Config{Remote: bare.dir, Since: old.Hash, Log: silent}).Head(context.Background())
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			args := [][]string{{"repack", "-q", "-a", "-d"}, {"gc", "-q"}, {"repack", "-q", "-A", "-d"}, {"pack-refs", "--all"}, {"prune-packed"}}[i%5]
			if out, err := bare.try("", args...); err != nil {
				done <- fmt.Errorf("%v: %w: %s", args, err, out)
				return
			}
		}
	}()
	var h string
	for i := range 15 {
		h = work.commit("push", "a.txt", strings.Repeat("x", i+10))
		// git itself loses a race against gc now and then, and says so
		eventually(t, "pushed", func() bool { _, err := work.try("", "push", "-q", "origin", "main"); return err == nil })
	}
	close(stop)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	wantFile(t, mustHead(t, src).Tree, "a.txt", strings.Repeat("x", 24))
	wantFile(t, old.Tree, "a.txt", "one\n")
	wantHead(t, src, h, Same)
}
