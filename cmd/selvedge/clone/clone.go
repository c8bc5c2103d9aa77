package clone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"selvedge/reconciler/validate"
)

// Clone is a config repo in a Git working tree.
type Clone struct {
	Dir string // of the config repo: its root, or a folder in a larger working tree
}

// Change is files that come or go together.
type Change struct {
	Write   map[string][]byte // by path from the root of the config repo; none of them is there yet
	Remove  []string
	Onto    string // the commit that it was checked with, as HEAD is then; empty: whichever it is
	Subject string // of the commit
	Body    string
}

// Tree returns a tree as it would be with the change.
func (c Change) Tree(base validate.Tree) (validate.Tree, error) {
	files := map[string][]byte{}
	for name, text := range c.Write {
		if _, err := fs.Stat(base, name); err == nil {
			return nil, inTheWay(name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		files[name] = text
	}
	for _, name := range c.Remove {
		files[name] = nil
	}
	return overlay{base, files}, nil
}

func inTheWay(name string) error {
	return fmt.Errorf("%s is there already, and is not overwritten; look at it, and move it away first", name)
}

func (c Change) paths() []string {
	return slices.Sorted(slices.Values(append(slices.Collect(maps.Keys(c.Write)), c.Remove...)))
}

// Ready refuses a clone that is none, or whose index holds other changes.
func (c Clone) Ready(ctx context.Context) error {
	if err := c.inside(ctx); err != nil {
		return err
	}
	staged, err := c.git(ctx, "diff", "--cached", "--name-only", "-z")
	if err != nil {
		return err
	}
	if first, _, _ := strings.Cut(staged, "\x00"); first != "" {
		return fmt.Errorf("the index of %s holds other changes (%s); commit or unstage them first", c.Dir, first)
	}
	return nil
}

func (c Clone) inside(ctx context.Context) error {
	if _, err := c.git(ctx, "rev-parse", "--is-inside-work-tree"); err != nil {
		return fmt.Errorf("%s is no Git working tree: %w; give a clone of the config repo with --repo", c.Dir, err)
	}
	return nil
}

// Hold keeps other runs of this program from changing the clone until it is released: what
// one has checked, no other takes away. It waits a little for one that is at work.
func (c Clone) Hold(ctx context.Context) (release func(), err error) {
	if err := c.inside(ctx); err != nil {
		return nil, err
	}
	name, err := c.git(ctx, "rev-parse", "--git-path", "selvedge.lock")
	if err != nil {
		return nil, err
	}
	if name = strings.TrimRight(name, "\n"); !filepath.IsAbs(name) {
		name = filepath.Join(c.Dir, name)
	}
	f, err := os.OpenFile(name, os.O_RDONLY|os.O_CREATE, 0o644) // others who share the clone lock it, too
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(holdWait); ; {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(end) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil, errors.Join(fmt.Errorf("another run changes %s now; let it end first (%s: %w)", c.Dir, name, err), f.Close())
}

// holdWait is for a run that somebody answers soon, or a slow hook.
const holdWait = time.Minute

// Head returns the commit that the clone is at, or "" before the first one.
func (c Clone) Head(ctx context.Context) string {
	head, _ := c.git(ctx, "rev-parse", "--verify", "--quiet", "HEAD")
	return strings.TrimSpace(head)
}

// Fits refuses a change that would lose something in the working tree.
func (c Clone) Fits(ctx context.Context, ch Change) error {
	root, err := os.OpenRoot(c.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, name := range slices.Sorted(maps.Keys(ch.Write)) {
		if _, err := found(root, name, ch.Write[name]); err != nil {
			return err
		}
	}
	for _, name := range ch.Remove {
		if out, err := c.git(ctx, "status", "--porcelain", "-z", "--", name); err != nil {
			return err
		} else if out != "" {
			return fmt.Errorf("%s has changes that are not committed; commit or drop them first", name)
		}
	}
	return nil
}

// Commit writes a change and commits it, as a whole or not at all. The change is checked already.
func (c Clone) Commit(ctx context.Context, ch Change) (hash string, err error) {
	if err := c.Ready(ctx); err != nil {
		return "", err
	}
	if err := c.Fits(ctx, ch); err != nil {
		return "", err
	}
	root, err := os.OpenRoot(c.Dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	paths := ch.paths()
	before := c.Head(ctx)
	if ch.Onto != "" && before != ch.Onto {
		return "", fmt.Errorf("%s is at %.12s now, and the change was checked with %.12s; run it again", c.Dir, before, ch.Onto)
	}
	var written []string
	removed := map[string]content{}
	undo := func() {
		ctx := context.WithoutCancel(ctx)
		if c.Head(ctx) != before {
			return // it was committed, and interrupted after that
		}
		_, _ = c.git(ctx, append([]string{"reset", "--quiet", "--"}, paths...)...)
		for _, name := range written {
			_ = root.Remove(name)
		}
		for name, old := range removed { // not by Git, which may be what failed
			_ = root.WriteFile(name, old.text, old.mode)
		}
	}
	defer func() {
		if err != nil {
			undo()
		}
	}()
	for _, name := range slices.Sorted(maps.Keys(ch.Write)) {
		made, err := write(root, name, ch.Write[name])
		if made {
			written = append(written, name)
		}
		if err != nil {
			return "", err
		}
	}
	for _, name := range ch.Remove {
		fi, err := root.Stat(name)
		if err != nil {
			return "", err
		}
		text, err := root.ReadFile(name)
		if err != nil {
			return "", err
		}
		removed[name] = content{text, fi.Mode().Perm()}
		if err := root.Remove(name); err != nil {
			return "", err
		}
	}
	if _, err := c.git(ctx, append([]string{"add", "--"}, paths...)...); err != nil {
		return "", err
	}
	args := []string{"commit", "--quiet", "-m", ch.Subject}
	if ch.Body != "" {
		args = append(args, "-m", ch.Body)
	}
	if _, err := c.git(ctx, append(append(args, "--"), paths...)...); err != nil {
		return "", err
	}
	hash, err = c.git(context.WithoutCancel(ctx), "rev-parse", "HEAD")
	return strings.TrimSpace(hash), err
}

// content is a file that was taken away.
type content struct {
	text []byte
	mode fs.FileMode
}

// Push pushes the branch to where it follows.
func (c Clone) Push(ctx context.Context) error {
	_, err := c.git(ctx, "push", "--quiet")
	return err
}

// found tells whether a file is there with that content, as an interrupted run leaves it behind.
// With another one it is in the way.
func found(root *os.Root, name string, content []byte) (bool, error) {
	old, err := root.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !bytes.Equal(old, content):
		return false, inTheWay(name)
	}
	return true, nil
}

// write makes a file that is not there, whole: a reader sees all of it or none. A file that is
// found will do, and is not this run's to take away again.
func write(root *os.Root, name string, content []byte) (made bool, err error) {
	if there, err := found(root, name, content); there || err != nil {
		return false, err
	}
	tmp := path.Join(path.Dir(name), "."+path.Base(name)+".tmp")
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return false, err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = root.Link(tmp, name) // unlike a renaming, it replaces nothing
	}
	return err == nil, errors.Join(err, root.Remove(tmp))
}

// git runs the git command in the clone. Its errors are what it says.
func (c Clone) git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = filepath.Clean(c.Dir)
	cmd.Env = append(os.Environ(), "GIT_LITERAL_PATHSPECS=1")
	cmd.Stdin = os.Stdin                                                     // hooks and signing may ask
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // so that it removes its locks
	cmd.WaitDelay = 2 * time.Second                                          // for hooks that go on without it
	var out, says bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &says
	if err := cmd.Run(); err != nil {
		what := strings.TrimSpace(says.String())
		if what == "" {
			what = strings.TrimSpace(out.String())
		}
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, what)
	}
	return out.String(), nil
}
