package clone

import (
	"bytes"
	"crypto/sha1" // #nosec G505 -- names Git blobs, guards nothing
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"selvedge/reconciler/validate"
)

// overlay is a tree with files put into it, or taken out: it shows what a change would be.
type overlay struct {
	validate.Tree
	files map[string][]byte // by path; nil: taken out
}

func (o overlay) ReadFile(name string) ([]byte, error) {
	if b, ok := o.files[name]; ok {
		if b == nil {
			return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
		}
		return bytes.Clone(b), nil
	}
	return o.Tree.ReadFile(name)
}

func (o overlay) ReadDir(name string) ([]fs.DirEntry, error) {
	es, err := o.Tree.ReadDir(name)
	if err != nil {
		return nil, err
	}
	es = slices.DeleteFunc(slices.Clone(es), func(e fs.DirEntry) bool {
		_, ok := o.files[path.Join(name, e.Name())]
		return ok
	})
	for p, b := range o.files {
		if b != nil && path.Dir(p) == name {
			es = append(es, fs.FileInfoToDirEntry(info{path.Base(p), int64(len(b))}))
		}
	}
	slices.SortFunc(es, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return es, nil
}

func (o overlay) Open(name string) (fs.File, error) {
	b, ok := o.files[name]
	if !ok {
		return o.Tree.Open(name)
	}
	if b == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return file{bytes.NewReader(b), info{path.Base(name), int64(len(b))}}, nil
}

// ID is made as that of a directory is.
func (o overlay) ID(name string) (string, error) {
	h := sha1.New() // #nosec G401 -- as Git does
	if b, ok := o.files[name]; ok {
		if b == nil {
			return "", &fs.PathError{Op: "id", Path: name, Err: fs.ErrNotExist}
		}
		h.Write([]byte("blob " + strconv.Itoa(len(b)) + "\x00"))
		h.Write(b)
		return hex.EncodeToString(h.Sum(nil)), nil
	}
	for p := range o.files {
		if path.Dir(p) != name {
			continue
		}
		es, err := o.ReadDir(name)
		if err != nil {
			return "", err
		}
		for _, e := range es {
			fmt.Fprintf(h, "%s %s\x00", e.Type(), e.Name())
		}
		return hex.EncodeToString(h.Sum(nil)), nil
	}
	return o.Tree.ID(name)
}

type info struct {
	name string
	size int64
}

func (i info) Name() string     { return i.name }
func (i info) Size() int64      { return i.size }
func (info) Mode() fs.FileMode  { return 0o644 }
func (info) ModTime() time.Time { return time.Time{} }
func (info) IsDir() bool        { return false }
func (info) Sys() any           { return nil }

type file struct {
	io.Reader
	info info
}

func (f file) Stat() (fs.FileInfo, error) { return f.info, nil }
func (file) Close() error                 { return nil }
