package git

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"
)

const (
	deltaCache      = 32 * cache.MiByte
	openPacks       = 32        // file descriptors kept a repository
	maxAlternates   = 16        // object folders borrowed from other repositories
	maxCachedTrees  = 1_000_000 // entries of decoded directories kept
	maxCachedSizes  = 1_000_000
	maxMetaBytes    = 16 << 20 // a directory, commit or tag object
	maxPackfiles    = 10_000   // packs of a repository
	maxPointerBytes = 64 << 10
	rereads         = 4 // of an object, while packs come and go
	rereadWait      = 10 * time.Millisecond
)

// objects reads a repository's objects, checked against their hashes. Objects never
// change, so what was read once stays true whatever happens to the repository.
type objects struct {
	layout  layout
	limits  Limits
	damaged atomic.Bool // an object was missing or did not match its hash

	mu     sync.Mutex // go-git's storage is not safe for concurrent use
	stores []*filesystem.Storage
	packs  string // names of the packs when stores were opened
	sizes  map[plumbing.Hash]int64

	treeMu sync.Mutex
	trees  map[plumbing.Hash]*directory
	cached int // entries in trees
}

func newObjects(l layout, lim Limits) *objects {
	o := &objects{layout: l, limits: lim.withDefaults()}
	o.reopen()
	return o
}

// reopen forgets what was learnt of packs. Call it with mu held, as readers hold it too.
func (o *objects) reopen() {
	for _, s := range o.stores {
		s.Close() // read only: nothing can be lost
	}
	o.packs = o.packNames()
	opts := filesystem.Options{MaxOpenDescriptors: openPacks, LargeObjectThreshold: max(o.limits.FileBytes, maxMetaBytes)}
	objectCache := cache.NewObjectLRU(deltaCache)
	o.stores = []*filesystem.Storage{ownStore(o.layout, objectCache, opts)}
	// go-git would open each alternate anew for each object and decode its indexes again
	for _, dir := range alternates(o.layout.commonDir) {
		o.stores = append(o.stores, filesystem.NewStorageWithOptions(quietFS{osfs.New(dir)}, objectCache, opts))
	}
}

func ownStore(l layout, objectCache cache.Object, opts filesystem.Options) *filesystem.Storage {
	dirs := dotgit.NewRepositoryFilesystem(quietFS{osfs.New(l.gitDir)}, quietFS{osfs.New(l.commonDir)})
	return filesystem.NewStorageWithOptions(dirs, objectCache, opts)
}

// refsOf is good for reading refs, and for nothing else.
func refsOf(l layout) *objects {
	return &objects{layout: l, stores: []*filesystem.Storage{ownStore(l, nil, filesystem.Options{})}}
}

// packNames fingerprints the packs on disk.
func (o *objects) packNames() string {
	var b strings.Builder
	for _, dir := range append([]string{o.layout.commonDir}, alternates(o.layout.commonDir)...) {
		entries, _ := os.ReadDir(filepath.Join(dir, "objects", "pack"))
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".idx") {
				b.WriteString(e.Name())
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// alternates lists the folders (parents of "objects") that a repository borrows objects from.
func alternates(commonDir string) []string {
	var found []string
	todo := []string{commonDir}
	for len(todo) > 0 && len(found) < maxAlternates {
		at := todo[0]
		todo = todo[1:]
		data, err := readBounded(filepath.Join(at, "objects", "info", "alternates"), maxPointerBytes)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimRight(line, "\r\n")
			if line == "" || line[0] == '#' {
				continue
			}
			if !filepath.IsAbs(line) {
				line = filepath.Join(at, "objects", line)
			}
			dir := filepath.Dir(filepath.Clean(line))
			if filepath.Base(line) != "objects" || dir == commonDir || slices.Contains(found, dir) || len(found) == maxAlternates {
				continue
			}
			found = append(found, dir)
			todo = append(todo, dir)
		}
	}
	return found
}

// read returns the contents of an object of that type and of at most limit bytes.
func (o *objects) read(t plumbing.ObjectType, h plumbing.Hash, limit int64) (data []byte, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	err = o.retry(func(s *filesystem.Storage) error {
		data, err = readObject(s, t, h, limit)
		return err
	})
	if err == nil || errors.Is(err, ErrTooLarge) {
		return data, err
	}
	o.damaged.Store(true)
	return nil, corrupt("read", t.String()+" "+h.String(), notFound(err, h))
}

// size returns the size of an object without reading it all.
func (o *objects) size(h plumbing.Hash) (n int64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n, ok := o.sizes[h]; ok {
		return n, nil
	}
	err = o.retry(func(s *filesystem.Storage) (err error) {
		defer guard("read", h.String(), &err)
		n, err = s.EncodedObjectSize(h)
		return err
	})
	if err != nil {
		o.damaged.Store(true)
		return 0, corrupt("read", h.String(), notFound(err, h))
	}
	if o.sizes == nil || len(o.sizes) >= maxCachedSizes {
		o.sizes = make(map[plumbing.Hash]int64)
	}
	o.sizes[h] = n
	return n, nil
}

// retry asks each store in turn, and all of them again if packs came or went meanwhile: a
// push adds packs, git gc replaces them. Call it with mu held.
func (o *objects) retry(ask func(*filesystem.Storage) error) error {
	for attempt := 0; ; attempt++ {
		var first error
		for _, s := range o.stores {
			err := ask(s)
			if err == nil || errors.Is(err, ErrTooLarge) {
				return err
			}
			if first == nil || errors.Is(first, plumbing.ErrObjectNotFound) {
				first = err // damage says more than absence
			}
		}
		if attempt == rereads {
			return first
		}
		// go-git caches what it could read of a damaged loose object, so its second
		// answer differs from its first: start clean after any other error too
		if (attempt > 0 || errors.Is(first, plumbing.ErrObjectNotFound)) && o.packNames() == o.packs {
			return first
		}
		if attempt > 0 { // packs are being replaced one after the other
			time.Sleep(time.Duration(attempt) * rereadWait)
		}
		o.reopen()
	}
}

func readObject(s *filesystem.Storage, t plumbing.ObjectType, h plumbing.Hash, limit int64) (data []byte, err error) {
	defer guard("read", h.String(), &err)
	obj, err := s.EncodedObject(t, h)
	if err != nil {
		return nil, err
	}
	if obj.Size() > limit { // beyond the storage's threshold nothing but the header was read yet
		return nil, &Error{Op: "read", What: t.String() + " " + h.String(), Kind: ErrTooLarge,
			Why: fmt.Sprintf("%d bytes, and at most %d are read", obj.Size(), limit)}
	}
	r, err := obj.Reader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data = make([]byte, obj.Size())
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, err
	}
	if got := plumbing.ComputeHash(t, data); got != h {
		return nil, fmt.Errorf("contents have the hash %s", got)
	}
	return data, nil
}

// kindOf tells what an object is.
func (o *objects) kindOf(h plumbing.Hash) (t plumbing.ObjectType, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	err = o.retry(func(s *filesystem.Storage) (err error) {
		defer guard("read", h.String(), &err)
		obj, err := s.EncodedObject(plumbing.AnyObject, h)
		if err == nil {
			t = obj.Type()
		}
		return err
	})
	if err != nil {
		return t, corrupt("read", h.String(), notFound(err, h))
	}
	return t, nil
}

// has reports whether an object is there, by its name alone.
func (o *objects) has(h plumbing.Hash) (ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.retry(func(s *filesystem.Storage) (err error) {
		defer guard("look up", h.String(), &err)
		return s.HasEncodedObject(h)
	}) == nil
}

func notFound(err error, h plumbing.Hash) error {
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return missing(h)
	}
	return err
}

// quietFS hides from go-git what objects looks after itself.
type quietFS struct{ billy.Filesystem }

// Open hides the alternates.
func (q quietFS) Open(name string) (billy.File, error) {
	if filepath.ToSlash(filepath.Clean(name)) == "objects/info/alternates" {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return q.Filesystem.Open(name)
}

// ReadDir leaves out what vanishes while it lists: billy makes an error of it, and go-git
// takes that for a repository without packs. It hides packs without an index: they are
// being written, or were never finished, and go-git would give up the whole repository.
func (q quietFS) ReadDir(name string) ([]os.FileInfo, error) {
	entries, err := os.ReadDir(filepath.Join(q.Root(), name))
	if err != nil {
		return nil, err
	}
	list := make([]os.FileInfo, 0, len(entries))
	for _, e := range entries {
		switch st, err := e.Info(); {
		case err == nil:
			list = append(list, st)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	if filepath.ToSlash(filepath.Clean(name)) != "objects/pack" {
		return list, nil
	}
	indexed := make(map[string]bool, len(list)/2)
	for _, e := range list {
		if base, ok := strings.CutSuffix(e.Name(), ".idx"); ok {
			indexed[base] = true
		}
	}
	if len(indexed) > maxPackfiles {
		return nil, fmt.Errorf("%d packs, and at most %d are read: run git gc there", len(indexed), maxPackfiles)
	}
	return slices.DeleteFunc(list, func(e os.FileInfo) bool {
		base, ok := strings.CutSuffix(e.Name(), ".pack")
		return ok && !indexed[base]
	}), nil
}

// notDir reports that an element of a path is a file.
func notDir(err error) bool { return errors.Is(err, syscall.ENOTDIR) }

// readBounded reads a small file; a longer one is an error.
func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("read %s: %w: more than %d bytes", name, ErrTooLarge, limit)
	}
	return data, err
}
