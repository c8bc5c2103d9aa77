package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"selvedge/internal/atomicfile"
	"selvedge/schema/nodestate"
)

const (
	statesDir = "states"
	trustDir  = "trust"
	maxSmall  = 256 << 10                        // bytes of all files but contents
	maxState  = nodestate.MaxManifestSize + 4096 // with its record
	maxTrust  = 2 * nodestate.MaxManifestSize
)

// disk is the directory. step, unless nil, is called before each system call that changes
// something; crash tests stop or fail there.
type disk struct {
	dir  string
	step func(op, name string) error
}

func (d *disk) write(name string, data []byte) error {
	var step func(string) error
	if d.step != nil {
		step = func(op string) error { return d.step(op, name) }
	}
	err := atomicfile.WriteSteps(filepath.Join(d.dir, name), data, 0o600, step)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("store: write %s: the disk of %s is full; free some space: what the node runs stays as it is: %w", name, d.dir, err)
	}
	if err != nil {
		return fmt.Errorf("store: write %s: %w", name, err)
	}
	return nil
}

func (d *disk) remove(name string) error {
	if d.step != nil {
		if err := d.step("remove", name); err != nil {
			return err
		}
	}
	if err := os.Remove(filepath.Join(d.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// read returns a file's content; it follows no link out of the directory.
func (d *disk) read(name string, limit int64) ([]byte, error) {
	root, err := os.OpenRoot(d.dir)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	defer root.Close()
	// not blocking: a planted pipe would be waited for without end
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("store: read %s: %w", name, err)
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("store: read %s: not a regular file", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("store: read %s: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("store: read %s: more than %d bytes", name, limit)
	}
	return b, nil
}

// list returns the names in a folder, at most maxNames.
func (d *disk) list(folder string) []string {
	f, err := os.Open(filepath.Join(d.dir, folder))
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(maxNames)
	return names
}

// maxNames bounds what is looked at in a folder that holds a handful of files.
const maxNames = 1024

// byOthers are the temporary files of what other processes write beside this one, see Hold
// and Release: they may be at it just now, and the next of them overwrites what a crash left.
var byOthers = []string{".hold.tmp", ".retry.tmp"}

// clean removes what a crash left of writes.
func (d *disk) clean() error {
	for _, folder := range []string{".", statesDir, trustDir} {
		for _, name := range d.list(folder) {
			if strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".tmp") && !slices.Contains(byOthers, name) {
				if err := d.remove(filepath.Join(folder, name)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// make makes the directories, or checks that they are private.
func (d *disk) make() error {
	for _, dir := range []string{d.dir, filepath.Join(d.dir, statesDir), filepath.Join(d.dir, trustDir)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("store: %w", err)
		}
		fi, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("store: %w", err)
		}
		if fi.Mode().Perm()&0o077 != 0 {
			return fmt.Errorf("store: others may enter %s (mode %04o); chmod 700 %s", dir, fi.Mode().Perm(), dir)
		}
	}
	return atomicfile.SyncDir(d.dir)
}

// lock keeps other processes out until the returned file is closed.
func (d *disk) lock() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(d.dir, "lock"), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			who := make([]byte, 20)
			n, _ := f.ReadAt(who, 0)
			return nil, fmt.Errorf("store %s: %w (process %s); is selvedge-edge running already?", d.dir, ErrLocked, strings.TrimSpace(string(who[:n])))
		}
		return nil, fmt.Errorf("store: lock %s: %w", d.dir, err)
	}
	f.Truncate(0) // for people only: the lock is the kernel's
	f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return f, nil
}

// file returns the name of the file that holds the content of a digest.
func file(folder, digest string) string {
	return filepath.Join(folder, strings.TrimPrefix(digest, "sha256:"))
}
