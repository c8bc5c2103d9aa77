package git

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watching runs a source whose polls are far apart, so that only events can signal.
func watching(t *testing.T, cfg Config, change func(*Source)) *Source {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = silent
	}
	if cfg.Interval == 0 {
		cfg.Interval = time.Hour
	}
	src := New(cfg)
	if change != nil {
		change(src)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-src.Changed() // the first is unconditional
	return src
}

func await(t *testing.T, src *Source, what string) {
	t.Helper()
	select {
	case <-src.Changed():
	case <-time.After(20 * time.Second):
		t.Fatalf("%s was not signalled", what)
	}
}

// awaitHead takes signals until the head is the wanted one: a signal may come early, but
// one must come after the change.
func awaitHead(t *testing.T, src *Source, want string) *Commit {
	t.Helper()
	for {
		await(t, src, want)
		if c, err := src.Head(context.Background()); err == nil && c.Hash == want {
			return c
		}
	}
}

func TestPushIsSignalled(t *testing.T) {
	bare, work := bareAndClone(t)
	src := watching(t, Config{Remote: bare.dir, Branch: "main"}, nil)
	for i, prepare := range []func(){
		func() {},
		func() {},
		func() { bare.git("pack-refs", "--all") }, // removes the loose file
		func() { bare.git("gc", "-q") },
		func() { bare.git("pack-refs", "--all", "--prune") },
	} {
		prepare()
		h := work.commit("push", "a.txt", strings.Repeat("x", i+10))
		work.push("main")
		wantFile(t, awaitHead(t, src, h).Tree, "a.txt", strings.Repeat("x", i+10))
	}
	// force-push, deletion, and back
	work.git("reset", "-q", "--hard", "HEAD~2")
	work.push("main")
	if c := awaitHead(t, src, work.git("rev-parse", "HEAD")); c.Relation != Rewritten {
		t.Errorf("relation is %s", c.Relation)
	}
	bare.git("update-ref", "-d", "refs/heads/main")
	await(t, src, "the deletion")
	if _, err := src.Head(context.Background()); !errors.Is(err, ErrNoBranch) && !errors.Is(err, ErrEmpty) {
		t.Error(err)
	}
	h := work.commit("back", "a.txt", "back")
	work.push("main")
	awaitHead(t, src, h)
}

func TestPackedRefsAloneSignal(t *testing.T) {
	bare, work := bareAndClone(t)
	h := work.commit("next", "a.txt", "next")
	work.push("main:elsewhere")
	bare.git("pack-refs", "--all")
	src := watching(t, Config{Remote: bare.dir, Branch: "main"}, nil)
	packed := filepath.Join(bare.dir, "packed-refs")
	data := must(os.ReadFile(packed))
	old := bare.git("rev-parse", "main")
	next := strings.Replace(string(data), old+" refs/heads/main", h+" refs/heads/main", 1)
	if err := os.WriteFile(packed+".new", []byte(next), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(packed+".new", packed); err != nil {
		t.Fatal(err)
	}
	awaitHead(t, src, h)
}

func TestBranchWithSlashes(t *testing.T) {
	bare, work := bareAndClone(t)
	src := watching(t, Config{Remote: bare.dir, Branch: "team/line-1/prod"}, nil)
	if _, err := src.Head(context.Background()); !errors.Is(err, ErrNoBranch) {
		t.Fatal(err)
	}
	for i := range 3 { // its folders come, and go when it is packed
		h := work.commit("push", "a.txt", strings.Repeat("y", i+10))
		work.push("main:team/line-1/prod")
		awaitHead(t, src, h)
		bare.git("pack-refs", "--all")
	}
}

func TestHeadMovesToAnotherBranch(t *testing.T) {
	bare, work := bareAndClone(t)
	src := watching(t, Config{Remote: bare.dir}, nil)
	h := work.commit("on dev", "a.txt", "dev")
	work.push("main:dev/next")
	bare.git("symbolic-ref", "HEAD", "refs/heads/dev/next")
	awaitHead(t, src, h)
	h = work.commit("on dev again", "a.txt", "dev 2")
	work.push("main:dev/next")
	awaitHead(t, src, h)
}

func TestWorktreeCommitsAreSignalled(t *testing.T) {
	dir := t.TempDir()
	r := initRepo(t, filepath.Join(dir, "r"))
	r.commit("x", "f", "1")
	src := watching(t, Config{Remote: r.dir}, nil)
	awaitHead(t, src, r.commit("y", "f", "2"))
	r.git("checkout", "-q", "-b", "b")
	await(t, src, "the checkout of a branch")
	awaitHead(t, src, r.commit("z", "f", "3"))

	r.git("worktree", "add", "-q", "-b", "linked", filepath.Join(dir, "w"))
	linked := testRepo{t, filepath.Join(dir, "w")}
	src = watching(t, Config{Remote: linked.dir}, nil)
	awaitHead(t, src, linked.commit("in the linked one", "f", "4"))
	linked.git("checkout", "-q", "--detach")
	await(t, src, "the detached HEAD")
	awaitHead(t, src, linked.commit("detached", "f", "5"))
}

func TestRepositoryRemovedAndMadeAgain(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "r.git")
	work := initRepo(t, filepath.Join(dir, "work"))
	work.commit("x", "f", "1")
	work.git("remote", "add", "origin", path)
	initRepo(t, path, "--bare")
	work.push("main")
	src := watching(t, Config{Remote: path, Branch: "main"}, nil)
	mustHead(t, src)
	for i := range 2 {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		eventually(t, "told that it is gone", func() bool {
			_, err := src.Head(context.Background())
			return errors.Is(err, ErrNotRepository)
		})
		await(t, src, "the removal")
		initRepo(t, path, "--bare")
		h := work.commit("again", "f", strings.Repeat("z", i+5))
		work.push("main")
		awaitHead(t, src, h)
		h = work.commit("and again", "f", strings.Repeat("w", i+5)) // the watches are back
		work.push("main")
		awaitHead(t, src, h)
	}
}

func TestNoInotify(t *testing.T) {
	bare, work := bareAndClone(t)
	for name, change := range map[string]func(*Source){
		"no instance": func(s *Source) {
			s.newWatcher = func() (*fsnotify.Watcher, error) { return nil, errors.New("too many open files") }
		},
		"no watch": func(s *Source) {
			s.newWatcher = func() (*fsnotify.Watcher, error) {
				w, err := fsnotify.NewWatcher()
				if err == nil {
					w.Close() // every Add fails
				}
				return w, err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var log recorder
			src := watching(t, Config{Remote: bare.dir, Branch: "main", Log: log.log()}, change)
			h := work.commit("push", "a.txt", name)
			work.push("main")
			awaitHead(t, src, h)
			if !strings.Contains(log.String(), "max_user_watches") || strings.Count(log.String(), "\n") != 1 {
				t.Errorf("logged %q", log.String())
			}
		})
	}
}

func TestPollsRemotes(t *testing.T) {
	src := New(Config{Remote: "https://git.invalid/x", Interval: time.Millisecond, Log: silent})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- src.Run(ctx) }()
	for range 3 {
		await(t, src, "a poll")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
