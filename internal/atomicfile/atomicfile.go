// Package atomicfile replaces files so that a crash leaves the old content or the new.
package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Write replaces the file of that name: it writes a temporary file beside it,
// syncs it, renames it over the name and syncs the directory. On an error the old
// content stays, and the temporary file is removed; after a crash in between, one
// named like the file with a leading dot and a trailing ".tmp" may be left over.
func Write(name string, data []byte, perm fs.FileMode) error {
	return WriteSteps(name, data, perm, nil)
}

// WriteSteps is Write for those who must show what a crash leaves: step, unless nil, is
// called before each system call that changes the disk, with its name (create, write,
// sync, rename, syncdir). An error from it is returned in place of the call.
func WriteSteps(name string, data []byte, perm fs.FileMode, step func(op string) error) (err error) {
	if step == nil {
		step = func(string) error { return nil }
	}
	dir := filepath.Dir(name)
	tmp := filepath.Join(dir, "."+filepath.Base(name)+".tmp")
	if err = step("create"); err != nil {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp)
		}
	}()
	if err = step("write"); err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Chmod(perm) // the name may have been left over with other rights
	}
	if err == nil {
		err = step("sync")
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = step("rename"); err != nil {
		return err
	}
	if err = os.Rename(tmp, name); err != nil {
		return err
	}
	if err = step("syncdir"); err != nil {
		return err
	}
	return SyncDir(dir)
}

// SyncDir makes renames and removals in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
