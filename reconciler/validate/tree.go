package validate

import (
	"crypto/sha1" // #nosec G505 -- names Git blobs, guards nothing
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
)

// Tree is the content of a repo: a commit's tree or a directory. Paths are those
// of io/fs. Symbolic links are reported as such and never followed.
type Tree interface {
	fs.FS
	fs.ReadDirFS
	fs.ReadFileFS
	// ID names the content of a file, or the names and kinds of a directory's
	// entries: equal IDs mean equal content.
	ID(name string) (string, error)
}

// Dir is a working directory as a tree. A directory named .git at its top is left out.
func Dir(root *os.Root) Tree {
	return dirTree{root: root, fsys: root.FS()}
}

type dirTree struct {
	root *os.Root
	fsys fs.FS
}

func (d dirTree) Open(name string) (fs.File, error) {
	if err := d.plain("open", name); err != nil {
		return nil, err
	}
	return d.fsys.Open(name)
}

func (d dirTree) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := d.plain("readdir", name); err != nil {
		return nil, err
	}
	es, err := fs.ReadDir(d.fsys, name)
	if err != nil || name != "." {
		return es, err
	}
	kept := es[:0]
	for _, e := range es {
		if e.Name() != ".git" {
			kept = append(kept, e)
		}
	}
	return kept, nil
}

func (d dirTree) ReadFile(name string) ([]byte, error) {
	if err := d.plain("read", name); err != nil {
		return nil, err
	}
	return fs.ReadFile(d.fsys, name)
}

// ID is Git's own name of a blob for a file; a directory's is the SHA-1 of its listing.
func (d dirTree) ID(name string) (string, error) {
	if err := d.plain("id", name); err != nil {
		return "", err
	}
	fi, err := d.stat(name)
	if err != nil {
		return "", err
	}
	h := sha1.New() // #nosec G401 -- as Git does
	if fi.IsDir() {
		es, err := d.ReadDir(name)
		if err != nil {
			return "", err
		}
		for _, e := range es {
			fmt.Fprintf(h, "%s %s\x00", e.Type(), e.Name())
		}
		return hex.EncodeToString(h.Sum(nil)), nil
	}
	b, err := fs.ReadFile(d.fsys, name)
	if err != nil {
		return "", err
	}
	h.Write([]byte("blob " + strconv.Itoa(len(b)) + "\x00"))
	h.Write(b)
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (d dirTree) stat(name string) (fs.FileInfo, error) { return d.root.Lstat(name) }

// plain refuses a path with a symbolic link in it: os.Root keeps links inside the
// root, but a commit's tree would not follow them at all.
func (d dirTree) plain(op, name string) error {
	if !fs.ValidPath(name) {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	for p := name; p != "."; p = path.Dir(p) {
		fi, err := d.stat(p)
		if err != nil {
			return err
		}
		if fi.Mode()&fs.ModeSymlink != 0 {
			return &fs.PathError{Op: op, Path: name, Err: fmt.Errorf("%s is a symbolic link", p)}
		}
	}
	return nil
}
