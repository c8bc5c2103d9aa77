package git

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// testRepo is a real repository, worked on by the real git.
type testRepo struct {
	tb  testing.TB
	dir string
}

func needGit(tb testing.TB) {
	tb.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		if os.Getenv("CI") == "true" {
			tb.Fatal("git is not installed")
		}
		tb.Skip("git is not installed")
	}
}

func initRepo(tb testing.TB, dir string, args ...string) testRepo {
	tb.Helper()
	needGit(tb)
	r := testRepo{tb, dir}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	r.git(append([]string{"init", "-q", "-b", "main"}, args...)...)
	return r
}

func (r testRepo) git(args ...string) string { return r.gitIn("", args...) }

func (r testRepo) gitIn(stdin string, args ...string) string {
	r.tb.Helper()
	out, err := r.try(stdin, args...)
	if err != nil {
		r.tb.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

func (r testRepo) try(stdin string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = r.dir
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), gitEnv...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String() + errs.String(), err
	}
	return out.String(), nil
}

var gitEnv = []string{
	"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
	"GIT_AUTHOR_NAME=Ana", "GIT_AUTHOR_EMAIL=ana@example.com",
	"GIT_COMMITTER_NAME=Ana", "GIT_COMMITTER_EMAIL=ana@example.com",
	// quiet: a gc in the background would race with what a test does on purpose
	"GIT_CONFIG_COUNT=4",
	"GIT_CONFIG_KEY_0=gc.auto", "GIT_CONFIG_VALUE_0=0",
	"GIT_CONFIG_KEY_1=protocol.file.allow", "GIT_CONFIG_VALUE_1=always",
	"GIT_CONFIG_KEY_2=receive.denyCurrentBranch", "GIT_CONFIG_VALUE_2=updateInstead",
	"GIT_CONFIG_KEY_3=advice.detachedHead", "GIT_CONFIG_VALUE_3=false",
}

func (r testRepo) write(name, text string) {
	r.tb.Helper()
	file := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		r.tb.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		r.tb.Fatal(err)
	}
}

// commit writes files, name and text in turn, and commits all there is.
func (r testRepo) commit(msg string, files ...string) (hash string) {
	r.tb.Helper()
	for i := 0; i < len(files); i += 2 {
		r.write(files[i], files[i+1])
	}
	r.git("add", "-A")
	r.git("commit", "-q", "--allow-empty", "-m", msg)
	return r.git("rev-parse", "HEAD")
}

// bareAndClone makes a bare repository with one commit on main, and a worktree that
// pushes to it.
func bareAndClone(tb testing.TB) (bare, work testRepo) {
	tb.Helper()
	dir := tb.TempDir()
	bare = initRepo(tb, filepath.Join(dir, "bare.git"), "--bare")
	work = initRepo(tb, filepath.Join(dir, "work"))
	work.git("remote", "add", "origin", bare.dir)
	work.commit("first", "a.txt", "one\n", "sub/b.txt", "two\n")
	work.git("push", "-q", "origin", "main")
	return bare, work
}

func (r testRepo) push(refspec string) { r.tb.Helper(); r.git("push", "-q", "-f", "origin", refspec) }

func mustHead(tb testing.TB, s *Source) *Commit {
	tb.Helper()
	c, err := s.Head(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func wantHead(tb testing.TB, s *Source, hash string, rel Relation) *Commit {
	tb.Helper()
	c := mustHead(tb, s)
	if c.Hash != hash || c.Relation != rel {
		tb.Fatalf("head is %s (%s), want %s (%s)", c.Hash, c.Relation, hash, rel)
	}
	return c
}

func wantErr(tb testing.TB, err, kind error, texts ...string) {
	tb.Helper()
	if !errors.Is(err, kind) {
		tb.Fatalf("error is %v, want %v", err, kind)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			tb.Errorf("error %q does not say %q", err, text)
		}
	}
}

func wantFile(tb testing.TB, t *Tree, name, text string) {
	tb.Helper()
	got, err := t.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	if string(got) != text {
		tb.Fatalf("%s holds %q, want %q", name, got, text)
	}
}

// recorder keeps what was logged.
type recorder struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

func (r *recorder) log() *slog.Logger { return slog.New(slog.NewTextHandler(r, nil)) }

var silent = slog.New(slog.NewTextHandler(io.Discard, nil))

// eventually waits long: slow machines are no bugs.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatal("waited in vain: " + what)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func hexBytes(s string) ([]byte, error) { return hex.DecodeString(s) }
