package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"selvedge/internal/atomicfile"
)

// A clone is a bare repository in a folder of its own, Dir/clone-000001.git. One that is
// damaged or has gathered too many packs is not mended but made again under the next
// number, from a name that ends in .tmp until it is whole: at every moment, the folder with
// the highest number is a clone that was complete once.
type clone struct {
	dir    string
	number int
	repo   *Repository
}

const (
	clonePrefix = "clone-"
	cloneSuffix = ".git"
	tmpSuffix   = ".tmp"
	brokenName  = "broken.git" // the last one that was set aside, to look into
	maxPacks    = 64           // one a fetch
	lockWait    = 50 * time.Millisecond
)

func diskError(op, what string, err error) error {
	return &Error{Op: op, What: what, Kind: ErrDisk, Why: printable(err.Error()), Hint: "check the folder's rights and free space; " + hintStays, cause: err}
}

// lockClones keeps other processes from the folder while this one changes it.
func lockClones(ctx context.Context, dir string) (unlock func(), err error) {
	if dir == "" {
		return nil, &Error{Op: "fetch", Kind: ErrConfig, Why: "no folder is set for the clone of a remote", Hint: "set one"}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, diskError("make", dir, err)
	}
	name := filepath.Join(dir, "lock")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, diskError("lock", dir, err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, diskError("lock", dir, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: another process holds it: %w", dir, ctx.Err())
		case <-time.After(lockWait):
		}
	}
}

// newest returns the number of the newest complete clone in dir, 0 if there is none.
func newest(dir string) (int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, diskError("list", dir, err)
	}
	best := 0
	for _, e := range entries {
		best = max(best, cloneNumber(e.Name()))
	}
	return best, nil
}

func cloneNumber(name string) int {
	digits, ok := strings.CutPrefix(name, clonePrefix)
	if digits, ok2 := strings.CutSuffix(digits, cloneSuffix); ok && ok2 {
		if n, err := strconv.Atoi(digits); err == nil {
			return n
		}
	}
	return 0
}

func clonePath(dir string, n int) string {
	return filepath.Join(dir, fmt.Sprintf("%s%06d%s", clonePrefix, n, cloneSuffix))
}

// openNewest opens the newest clone, and removes what an earlier run left half done. It
// returns nil if there is none. Call it with the folder locked.
func openNewest(dir string, lim Limits) (*clone, error) {
	n, err := newest(dir)
	if err != nil {
		return nil, err
	}
	sweep(dir, n)
	if n == 0 {
		return nil, nil
	}
	c := &clone{dir: clonePath(dir, n), number: n}
	l, err := gitDirAt(c.dir)
	if err != nil {
		return c, corrupt("open", c.dir, err)
	}
	c.repo, err = openAt(l, lim)
	return c, err
}

// sweep removes unfinished clones, clones older than n, and unfinished packs of n.
func sweep(dir string, n int) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		old := cloneNumber(e.Name())
		if strings.HasSuffix(e.Name(), tmpSuffix) || (old > 0 && old < n) {
			os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
	packs := filepath.Join(clonePath(dir, n), "objects", "pack")
	entries, _ = os.ReadDir(packs)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "tmp_") {
			os.Remove(filepath.Join(packs, e.Name()))
		}
	}
}

// initClone makes an empty bare repository that the git CLI can read too.
func initClone(dir string, lim Limits) (*Repository, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, diskError("clear", dir, err)
	}
	for _, sub := range []string{"objects/pack", "objects/info", "refs/heads"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, diskError("make", dir, err)
		}
	}
	for name, text := range map[string]string{
		"HEAD":   "ref: refs/heads/main\n",
		"config": "[core]\n\trepositoryformatversion = 0\n\tbare = true\n",
	} {
		if err := atomicfile.Write(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, diskError("make", dir, err)
		}
	}
	return openAt(layout{gitDir: dir, commonDir: dir}, lim)
}

// setRef points a branch and HEAD of the clone at a commit, durably.
func (c *clone) setRef(ref string, h plumbing.Hash) error {
	write := func(name, text string) error {
		file := filepath.Join(c.dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		return atomicfile.Write(file, []byte(text+"\n"), 0o600)
	}
	err := write(ref, h.String())
	if err == nil {
		err = write("HEAD", "ref: "+ref)
	}
	if err != nil {
		return diskError("write", c.dir, err)
	}
	return nil
}

// setShallow notes, as git does, whose parents the remote itself does not have.
func (c *clone) setShallow(cut []plumbing.Hash) error {
	file := filepath.Join(c.dir, "shallow")
	err := os.Remove(file)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if len(cut) > 0 {
		var text strings.Builder
		for _, h := range cut {
			text.WriteString(h.String() + "\n")
		}
		err = atomicfile.Write(file, []byte(text.String()), 0o600)
	}
	if err != nil {
		return diskError("write", c.dir, err)
	}
	return nil
}

// packCount tells how many packs the clone has gathered.
func (c *clone) packCount() int {
	list, _ := filepath.Glob(filepath.Join(c.dir, "objects", "pack", "*.pack"))
	return len(list)
}

// publish gives a clone that was made at a temporary name its own.
func publish(dir, tmp string, n int) error {
	err := os.Rename(tmp, clonePath(dir, n))
	if err == nil {
		err = atomicfile.SyncDir(dir)
	}
	if err != nil {
		return diskError("keep", clonePath(dir, n), err)
	}
	return nil
}

// setAside keeps a damaged clone to look into, and forgets the one before.
func setAside(dir string, c *clone) error {
	to := filepath.Join(dir, brokenName)
	err := os.RemoveAll(to)
	if err == nil {
		err = os.Rename(c.dir, to)
	}
	if err != nil {
		return diskError("set aside", c.dir, err)
	}
	return nil
}

// complete checks that a commit's tree is all there; with contents, also that every file
// matches its hash.
func (o *objects) complete(ctx context.Context, h plumbing.Hash, contents bool) error {
	c, err := o.commit(h)
	if err != nil {
		return err
	}
	seen := make(map[plumbing.Hash]bool)
	todo := []entry{{mode: fs.ModeDir, hash: c.TreeHash}}
	for len(todo) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		d, err := o.directory(todo[len(todo)-1].hash)
		todo = todo[:len(todo)-1]
		if errors.Is(err, ErrTooLarge) || errors.Is(err, ErrUnsupported) {
			continue // what cannot be read is told to those who read it
		}
		if err != nil {
			return err
		}
		for _, e := range slices.Backward(d.entries) {
			if seen[e.hash] || e.mode&fs.ModeIrregular != 0 {
				continue
			}
			seen[e.hash] = true
			switch {
			case e.mode.IsDir():
				todo = append(todo, e)
			case contents:
				if _, err := o.read(plumbing.BlobObject, e.hash, o.limits.FileBytes); err != nil && !errors.Is(err, ErrTooLarge) {
					return err
				}
			case !o.has(e.hash):
				return corrupt("read", o.layout.gitDir, missing(e.hash))
			}
		}
	}
	return nil
}
