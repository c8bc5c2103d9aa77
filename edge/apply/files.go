package apply

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"selvedge/schema/nodestate"
)

// files keeps the config files of containers: one directory for each distinct set,
// named by its content, below one root. Directories are 0755 and files 0644, as
// containers read them under any user.
type files struct {
	dir string
	mu  sync.Mutex // two containers may share a set
}

// binds returns where a container's files are, written or not.
func (f *files) binds(c nodestate.Container) []Bind {
	var out []Bind
	set := setName(c.Files)
	for i, file := range c.Files {
		out = append(out, Bind{Host: filepath.Join(f.dir, set, strconv.Itoa(i)), Path: file.Path})
	}
	return out
}

// setName hashes paths and contents, each with its length in front.
func setName(list []nodestate.File) string {
	h := sha256.New()
	for _, x := range list {
		fmt.Fprintf(h, "%d %s %d %s\n", len(x.Path), x.Path, len(x.Content), x.Content)
	}
	return hex.EncodeToString(h.Sum(nil))[:32]
}

// ensure writes the files where they are missing or differ and tells whether it
// had to. A container that mounted the old ones must then start anew.
func (f *files) ensure(list []nodestate.File) (written bool, err error) {
	if len(list) == 0 {
		return false, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return false, fmt.Errorf("make the folder of config files: %w", err)
	}
	root, err := os.OpenRoot(f.dir)
	if err != nil {
		return false, fmt.Errorf("open the folder of config files: %w", err)
	}
	defer root.Close()
	set := setName(list)
	if whole(root, set, list) {
		return false, nil
	}
	tmp := set + ".tmp"
	if err := errors.Join(root.RemoveAll(tmp), root.RemoveAll(set)); err != nil {
		return false, fmt.Errorf("replace config files: %w", err)
	}
	if err := writeSet(root, tmp, list); err != nil {
		return false, fmt.Errorf("write config files below %s: %w", f.dir, err)
	}
	if err := root.Rename(tmp, set); err != nil {
		return false, fmt.Errorf("write config files below %s: %w", f.dir, err)
	}
	return true, nil
}

func writeSet(root *os.Root, dir string, list []nodestate.File) error {
	if err := root.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := root.Chmod(dir, 0o755); err != nil { // whatever the umask is
		return err
	}
	for i, x := range list {
		name := filepath.Join(dir, strconv.Itoa(i))
		w, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		_, err = io.WriteString(w, x.Content)
		if err = errors.Join(err, w.Chmod(0o644), w.Sync(), w.Close()); err != nil {
			return err
		}
	}
	return nil
}

// whole tells whether a set is there, each file with its content and rights.
func whole(root *os.Root, set string, list []nodestate.File) bool {
	for i, x := range list {
		name := filepath.Join(set, strconv.Itoa(i))
		fi, err := root.Lstat(name)
		if err != nil || !fi.Mode().IsRegular() || fi.Mode().Perm() != 0o644 || fi.Size() != int64(len(x.Content)) {
			return false
		}
		b, err := root.ReadFile(name)
		if err != nil || !bytes.Equal(b, []byte(x.Content)) {
			return false
		}
	}
	return true
}

// sweep removes the sets that no container of the list uses.
func (f *files) sweep(specs []Spec) error {
	used := map[string]bool{}
	for _, s := range specs {
		used[setName(s.Container.Files)] = true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	root, err := os.OpenRoot(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep config files: %w", err)
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	for _, e := range entries {
		if !used[e.Name()] {
			err = errors.Join(err, root.RemoveAll(e.Name()))
		}
	}
	if err != nil {
		return fmt.Errorf("sweep config files: %w", err)
	}
	return nil
}
