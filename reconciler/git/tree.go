package git

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// Limits bound what is read of a repository.
type Limits struct {
	FileBytes  int64 // a file; 0 means 8 MiB
	DirEntries int   // a directory; 0 means 20,000
	Depth      int   // elements of a path; 0 means 64
}

func (l Limits) withDefaults() Limits {
	l.FileBytes = cmp.Or(l.FileBytes, 8<<20)
	l.DirEntries = cmp.Or(l.DirEntries, 20_000)
	l.Depth = cmp.Or(l.Depth, 64)
	return l
}

// Tree is the content of a commit as a file system. It implements fs.FS, fs.ReadDirFS,
// fs.ReadFileFS and fs.StatFS. It never changes and is safe for concurrent use.
//
// Symbolic links and submodules are listed as fs.ModeSymlink and fs.ModeIrregular; reading
// one, or through one, is an error (ErrSymlink, ErrSubmodule). Files have no times.
type Tree struct {
	objects *objects
	root    plumbing.Hash
}

// directory is a decoded tree object.
type directory struct {
	entries []entry // by name
	id      func() string
}

type entry struct {
	name string
	mode fs.FileMode
	hash plumbing.Hash
}

// Open opens a file or a directory.
func (t *Tree) Open(name string) (fs.File, error) {
	e, err := t.find("open", name)
	if err != nil {
		return nil, err
	}
	if e.mode.IsDir() {
		d, err := t.directory("open", name, e)
		if err != nil {
			return nil, err
		}
		return &openDir{info: info{e, t.objects}, entries: d.entries}, nil
	}
	data, err := t.contents("open", name, e)
	if err != nil {
		return nil, err
	}
	return &openFile{info: info{e, t.objects}, Reader: bytes.NewReader(data)}, nil
}

// ReadFile returns the contents of a file.
func (t *Tree) ReadFile(name string) ([]byte, error) {
	e, err := t.find("read", name)
	if err != nil {
		return nil, err
	}
	return t.contents("read", name, e)
}

// Stat describes a file or a directory; it does not follow links.
func (t *Tree) Stat(name string) (fs.FileInfo, error) {
	e, err := t.find("stat", name)
	if err != nil {
		return nil, err
	}
	return info{e, t.objects}, nil
}

// ReadDir lists a directory, sorted by name.
func (t *Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := t.find("readdir", name)
	if err != nil {
		return nil, err
	}
	d, err := t.directory("readdir", name, e)
	if err != nil {
		return nil, err
	}
	return t.list(d.entries), nil
}

func (t *Tree) list(entries []entry) []fs.DirEntry {
	list := make([]fs.DirEntry, len(entries))
	for i, e := range entries {
		list[i] = fs.FileInfoToDirEntry(info{e, t.objects})
	}
	return list
}

// ID identifies what reading the name gives: "blob:<hex>" for a file, "symlink:<hex>",
// "submodule:<hex>", and for a directory "dir:<hex>", a digest over its entries' names
// and kinds alone.
func (t *Tree) ID(name string) (string, error) {
	e, err := t.find("stat", name)
	if err != nil {
		return "", err
	}
	if !e.mode.IsDir() {
		return e.kind() + ":" + e.hash.String(), nil
	}
	d, err := t.directory("readdir", name, e)
	if err != nil {
		return "", err
	}
	return d.id(), nil
}

// Hash returns Git's own hash of a file or of a directory with all below it: equal hashes
// mean equal contents.
func (t *Tree) Hash(name string) (string, error) {
	e, err := t.find("stat", name)
	if err != nil {
		return "", err
	}
	return e.hash.String(), nil
}

// Subtree is the tree of a directory, for a config repo that is a part of a Git repository.
func (t *Tree) Subtree(name string) (*Tree, error) {
	e, err := t.find("open", name)
	if err != nil {
		return nil, err
	}
	if _, err := t.directory("open", name, e); err != nil {
		return nil, err
	}
	return &Tree{objects: t.objects, root: e.hash}, nil
}

// find walks to a name through the directories above it.
func (t *Tree) find(op, name string) (entry, error) {
	if !fs.ValidPath(name) {
		return entry{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	at := entry{name: ".", mode: fs.ModeDir | 0o555, hash: t.root}
	if name == "." {
		return at, nil
	}
	if n := strings.Count(name, "/") + 1; n > t.objects.limits.Depth {
		return entry{}, &fs.PathError{Op: op, Path: name, Err: fmt.Errorf("%w: %d folders deep, and at most %d are read", ErrTooLarge, n, t.objects.limits.Depth)}
	}
	for rest, end := name, 0; rest != ""; {
		part, after, _ := strings.Cut(rest, "/")
		d, err := t.directory(op, strings.TrimSuffix(name[:end], "/"), at)
		if err != nil {
			return entry{}, err
		}
		i, ok := slices.BinarySearchFunc(d.entries, part, func(e entry, name string) int { return strings.Compare(e.name, name) })
		if !ok {
			return entry{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
		}
		at = d.entries[i]
		end += len(part)
		if after != "" {
			if at.mode.IsRegular() {
				return entry{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
			}
			if !at.mode.IsDir() {
				return entry{}, notRead(op, name[:end], at)
			}
			end++
		}
		rest = after
	}
	return at, nil
}

// notRead tells why neither the contents nor the entries of e are given.
func notRead(op, name string, e entry) error {
	err := fmt.Errorf("is a %s", e.kind())
	switch {
	case e.mode&fs.ModeSymlink != 0:
		err = fmt.Errorf("%w; commit the file itself", ErrSymlink)
	case e.mode&fs.ModeIrregular != 0:
		err = fmt.Errorf("%w; commit the files themselves", ErrSubmodule)
	case e.mode.IsDir():
		err = fmt.Errorf("%w: is a directory", fs.ErrInvalid)
	case e.mode.IsRegular():
		err = fmt.Errorf("%w: not a directory", fs.ErrInvalid)
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func (t *Tree) contents(op, name string, e entry) ([]byte, error) {
	if !e.mode.IsRegular() {
		return nil, notRead(op, name, e)
	}
	data, err := t.objects.read(plumbing.BlobObject, e.hash, t.objects.limits.FileBytes)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return data, nil
}

func (t *Tree) directory(op, name string, e entry) (*directory, error) {
	if !e.mode.IsDir() {
		return nil, notRead(op, name, e)
	}
	d, err := t.objects.directory(e.hash)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: cmp.Or(name, "."), Err: err}
	}
	return d, nil
}

// directory reads and decodes a tree object, or takes it from the cache: a push changes
// few of them.
func (o *objects) directory(h plumbing.Hash) (*directory, error) {
	o.treeMu.Lock()
	d := o.trees[h]
	o.treeMu.Unlock()
	if d != nil {
		return d, nil
	}
	data, err := o.read(plumbing.TreeObject, h, maxMetaBytes)
	if err != nil {
		return nil, err
	}
	if d, err = decodeDirectory(h, data, o.limits.DirEntries); err != nil {
		return nil, err
	}
	o.treeMu.Lock()
	defer o.treeMu.Unlock()
	if o.trees == nil || o.cached > maxCachedTrees {
		o.trees, o.cached = make(map[plumbing.Hash]*directory), 0
	}
	if _, ok := o.trees[h]; !ok {
		o.trees[h] = d
		o.cached += len(d.entries) + 1
	}
	return d, nil
}

func decodeDirectory(h plumbing.Hash, data []byte, limit int) (d *directory, err error) {
	what := "tree " + h.String()
	defer guard("read", what, &err)
	obj := &plumbing.MemoryObject{}
	obj.SetType(plumbing.TreeObject)
	if _, err := obj.Write(data); err != nil {
		return nil, err
	}
	var tree object.Tree
	if err := tree.Decode(obj); err != nil {
		return nil, corrupt("read", what, err)
	}
	if n := len(tree.Entries); n > limit {
		return nil, &Error{Op: "read", What: what, Kind: ErrTooLarge, Why: fmt.Sprintf("%d entries, and at most %d are read", n, limit)}
	}
	d = &directory{entries: make([]entry, len(tree.Entries))}
	for i, e := range tree.Entries {
		switch {
		case !utf8.ValidString(e.Name):
			return nil, &Error{Op: "read", What: what, Kind: ErrUnsupported,
				Why: fmt.Sprintf("the name %q is not valid UTF-8", e.Name), Hint: "rename it"}
		case e.Name == "." || e.Name == ".." || strings.Contains(e.Name, "/"):
			return nil, corrupt("read", what, fmt.Errorf("an entry is called %q", e.Name))
		}
		d.entries[i] = entry{name: e.Name, mode: fileMode(e.Mode), hash: e.Hash}
	}
	slices.SortFunc(d.entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(d.entries); i++ {
		if d.entries[i-1].name == d.entries[i].name {
			return nil, corrupt("read", what, fmt.Errorf("two entries are called %q", d.entries[i].name))
		}
	}
	d.id = sync.OnceValue(func() string {
		sum := sha256.New()
		for _, e := range d.entries {
			io.WriteString(sum, e.kind()+" "+e.name+"\x00")
		}
		return "dir:" + hex.EncodeToString(sum.Sum(nil))
	})
	return d, nil
}

func fileMode(m filemode.FileMode) fs.FileMode {
	switch m {
	case filemode.Regular, filemode.Deprecated:
		return 0o444
	case filemode.Executable:
		return 0o555
	case filemode.Dir:
		return fs.ModeDir | 0o555
	case filemode.Symlink:
		return fs.ModeSymlink | 0o777
	}
	return fs.ModeIrregular // a submodule
}

func (e entry) kind() string {
	switch {
	case e.mode.IsDir():
		return "dir"
	case e.mode&fs.ModeSymlink != 0:
		return "symlink"
	case e.mode&fs.ModeIrregular != 0:
		return "submodule"
	}
	return "blob"
}

// info describes an entry.
type info struct {
	e entry
	o *objects
}

func (i info) Name() string       { return i.e.name }
func (i info) Mode() fs.FileMode  { return i.e.mode }
func (i info) IsDir() bool        { return i.e.mode.IsDir() }
func (i info) ModTime() time.Time { return time.Time{} } // Git keeps none
func (i info) Sys() any           { return nil }

// Size is looked up when it is asked for, as few do; 0 if the object cannot be read.
func (i info) Size() int64 {
	if i.e.mode.IsDir() || i.e.mode&fs.ModeIrregular != 0 {
		return 0
	}
	n, err := i.o.size(i.e.hash)
	if err != nil {
		return 0
	}
	return n
}

type openFile struct {
	info info
	*bytes.Reader
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *openFile) Close() error               { return nil }

type openDir struct {
	info    info
	mu      sync.Mutex
	entries []entry // not listed yet
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }
func (d *openDir) Read([]byte) (int, error)   { return 0, notRead("read", d.info.e.name, d.info.e) }

// ReadDir lists the next n entries, or all that are left.
func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n <= 0 || n > len(d.entries) {
		if n > 0 && len(d.entries) == 0 {
			return nil, io.EOF
		}
		n = len(d.entries)
	}
	list := (&Tree{objects: d.info.o}).list(d.entries[:n])
	d.entries = d.entries[n:]
	return list, nil
}
