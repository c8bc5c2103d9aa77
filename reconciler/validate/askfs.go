package validate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"
)

// askFS is a child's only view of files: each one is asked of the parent, once a unit.
type askFS struct {
	r io.Reader
	w io.Writer

	dirs  map[string][]entry // nil: missing
	cue   map[string][]entry // the CUE files alone; nil: missing
	files map[string]*file
	order []string // files in the order of their first reading
}

// file is what was read of one file.
type file struct {
	data []byte
	err  error
}

func newAskFS(r io.Reader, w io.Writer) *askFS {
	return &askFS{r: r, w: w, dirs: map[string][]entry{}, cue: map[string][]entry{}, files: map[string]*file{}}
}

func (a *askFS) ask(kind frameKind, name string) (byte, []byte, error) {
	if len(name) > maxPath {
		return answerMissing, nil, nil
	}
	if err := writeFrame(a.w, kind, []byte(name)); err != nil {
		return 0, nil, err
	}
	k, body, err := readFrame(a.r, 64<<20)
	if err != nil {
		return 0, nil, err
	}
	if k != frameAnswer || len(body) == 0 {
		return 0, nil, fmt.Errorf("frame of kind %d instead of an answer", k)
	}
	return body[0], body[1:], nil
}

func (a *askFS) list(dir string) ([]entry, error) { return a.listing(frameList, a.dirs, dir) }

// listCUE lists a directory's CUE files: other files may come and go.
func (a *askFS) listCUE(dir string) ([]entry, error) { return a.listing(frameCUE, a.cue, dir) }

func (a *askFS) listing(kind frameKind, known map[string][]entry, dir string) ([]entry, error) {
	if es, ok := known[dir]; ok {
		if es == nil {
			return nil, fs.ErrNotExist
		}
		return es, nil
	}
	status, body, err := a.ask(kind, dir)
	if err != nil {
		panic(err) // the parent is gone, and so is the reason to go on
	}
	if status != answerOK {
		known[dir] = nil
		return nil, fs.ErrNotExist
	}
	es := []entry{}
	if err := json.Unmarshal(body, &es); err != nil {
		panic(err)
	}
	known[dir] = es
	return es, nil
}

func (a *askFS) read(name string) ([]byte, error) {
	f, ok := a.files[name]
	if !ok {
		f = new(file)
		status, body, err := a.ask(frameRead, name)
		if err != nil {
			panic(err)
		}
		switch status {
		case answerOK:
			f.data = body
		case answerMissing:
			f.err = fs.ErrNotExist
		default:
			f.err = fmt.Errorf("%s", body)
		}
		a.files[name] = f
		a.order = append(a.order, name)
	}
	return f.data, f.err
}

// refusedAny tells whether a file is there but was not given.
func (a *askFS) refusedAny() bool {
	for _, f := range a.files {
		if f.err != nil && !errors.Is(f.err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

func (a *askFS) find(name string) (entry, error) {
	if name == "." {
		return entry{".", isDir}, nil
	}
	es, err := a.list(path.Dir(name))
	if err != nil {
		return entry{}, err
	}
	base := path.Base(name)
	for _, e := range es {
		if e.Name == base {
			return e, nil
		}
	}
	return entry{}, fs.ErrNotExist
}

// Open is for directories and files alike.
func (a *askFS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	e, err := a.find(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	switch e.Kind {
	case isDir:
		return &openDir{a: a, name: name, info: info{e, 0}}, nil
	case isFile:
		b, err := a.read(name)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return &openFile{Reader: bytes.NewReader(b), info: info{e, int64(len(b))}}, nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}

func (a *askFS) Stat(name string) (fs.FileInfo, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrInvalid}
	}
	e, err := a.find(name)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return info{e, 0}, nil
}

func (a *askFS) ReadFile(name string) ([]byte, error) {
	f, err := a.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	of, ok := f.(*openFile)
	if !ok {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrInvalid}
	}
	return io.ReadAll(of)
}

func (a *askFS) ReadDir(name string) ([]fs.DirEntry, error) {
	es, err := a.list(name)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	out := make([]fs.DirEntry, 0, len(es))
	for _, e := range es {
		out = append(out, fs.FileInfoToDirEntry(info{e, 0}))
	}
	return out, nil
}

type info struct {
	e    entry
	size int64
}

func (i info) Name() string       { return i.e.Name }
func (i info) Size() int64        { return i.size }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.e.Kind == isDir }
func (i info) Sys() any           { return nil }
func (i info) Mode() fs.FileMode {
	switch i.e.Kind {
	case isDir:
		return fs.ModeDir | 0o555
	case isFile:
		return 0o444
	}
	return fs.ModeIrregular
}

type openFile struct {
	*bytes.Reader
	info info
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *openFile) Close() error               { return nil }

type openDir struct {
	a    *askFS
	name string
	info info
	read bool
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }
func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: fs.ErrInvalid}
}

// ReadDir returns all entries at once, whatever n is.
func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if d.read && n > 0 {
		return nil, io.EOF
	}
	d.read = true
	return d.a.ReadDir(d.name)
}
