package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"selvedge/schema/nodestate"
)

// Config configures a Store.
type Config struct {
	Path       string // of the file; its folder must exist
	Prefix     string // of the repositories' names, such as "plants/eu"; empty: none
	MaxWaiters int    // requests that wait for a change at once; 0 means 20,000
}

// Store keeps published states in one bbolt file, one row a node: overwriting is the
// garbage collection. One process at a time has it open. It is safe for concurrent use.
type Store struct {
	db      *bbolt.DB
	prefix  string
	waiters waiters
	damaged atomic.Bool // seen while writing

	mu    sync.Mutex
	heads map[string]nodestate.Head // of all rows; nil: to be read
}

// mapped is address space, not memory: about 50,000 nodes.
const mapped = 256 << 20

var (
	bucketNodes = []byte("nodes") // node → row
	bucketTrust = []byte("trust") // "current", "previous" → manifest with all documents inlined
	keyCurrent  = []byte("current")
	keyPrevious = []byte("previous")
)

// Open opens the file, or makes it.
func Open(c Config) (*Store, error) {
	if c.Prefix != "" && !validName(c.Prefix) {
		return nil, fmt.Errorf("open store: prefix %q is not a repository name by OCI's grammar", c.Prefix)
	}
	db, err := openDB(c.Path)
	if err != nil {
		return nil, err
	}
	err = guard(func() error {
		return db.Update(func(tx *bbolt.Tx) error {
			for _, b := range [][]byte{bucketNodes, bucketTrust} {
				if _, err := tx.CreateBucketIfNotExists(b); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", c.Path, err) // closing a damaged one may wait for ever
	}
	if c.MaxWaiters <= 0 {
		c.MaxWaiters = 20000
	}
	return &Store{db: db, prefix: c.Prefix, waiters: waiters{max: c.MaxWaiters}}, nil
}

func openDB(path string) (*bbolt.DB, error) {
	// the freelist is synced: without it, opening a large file takes seconds; a file that outgrows
	// its mapping has what was read copied to the heap
	var db *bbolt.DB
	err := guard(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 3 * time.Second, FreelistType: bbolt.FreelistMapType, InitialMmapSize: mapped})
		return err
	})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open store %s: another process has it open", path)
	}
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return db, nil
}

// ErrDamaged marks a file that cannot be read. Nothing is lost but what can be made again:
// states are signed anew, with generations above those of before.
var ErrDamaged = errors.New("the file is damaged; move it away and start again: every state is then signed anew")

// guard makes an error of what bbolt does with a damaged file: it panics, or faults past
// the end of a file that was cut.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w (%v)", ErrDamaged, r)
		}
	}()
	err = f()
	if errors.Is(err, bbolterrors.ErrInvalid) || errors.Is(err, bbolterrors.ErrChecksum) || errors.Is(err, bbolterrors.ErrVersionMismatch) ||
		err != nil && strings.Contains(err.Error(), "file size too small") {
		err = fmt.Errorf("%w (%w)", ErrDamaged, err)
	}
	return err
}

// update and read run a transaction; a damaged file is an error.
func (s *Store) update(f func(*bbolt.Tx) error) error {
	if s.damaged.Load() { // the transaction that found it may hold bbolt's lock for good
		return fmt.Errorf("%s: %w", s.db.Path(), ErrDamaged)
	}
	err := guard(func() error { return s.db.Update(f) })
	if errors.Is(err, ErrDamaged) {
		s.damaged.Store(true)
		return fmt.Errorf("%s: %w", s.db.Path(), err)
	}
	return err
}

func (s *Store) read(f func(*bbolt.Tx) error) error {
	err := guard(func() error { return s.db.View(f) })
	if errors.Is(err, ErrDamaged) {
		return fmt.Errorf("%s: %w", s.db.Path(), err)
	}
	return err
}

// Close closes the file and lets waiting requests go.
func (s *Store) Close() error {
	s.waiters.close()
	if s.damaged.Load() {
		return nil // closing may wait for ever
	}
	return s.db.Close()
}

// Heads returns what is published, by node, with the generations of removed ones.
func (s *Store) Heads() (map[string]nodestate.Head, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heads == nil {
		heads, err := s.readHeads()
		if err != nil {
			return nil, err
		}
		s.heads = heads
	}
	return maps.Clone(s.heads), nil
}

// change runs a transaction and notes the heads that it wrote. What a failed one left is read anew.
func (s *Store) change(f func(*bbolt.Bucket, map[string]nodestate.Head) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	wrote := map[string]nodestate.Head{}
	if err := s.update(func(tx *bbolt.Tx) error { return f(tx.Bucket(bucketNodes), wrote) }); err != nil {
		s.heads = nil
		return err
	}
	if s.heads != nil {
		maps.Copy(s.heads, wrote)
	}
	return nil
}

func (s *Store) readHeads() (map[string]nodestate.Head, error) {
	heads := map[string]nodestate.Head{}
	err := s.read(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketNodes).ForEach(func(k, v []byte) error {
			r, err := decodeRow(v)
			if err != nil {
				return fmt.Errorf("node %s: %w", k, err)
			}
			heads[string(k)] = r.head()
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	return heads, nil
}

// Put publishes a batch in one transaction, all of it or nothing. A generation that
// is not above the published one is refused with ErrGeneration.
func (s *Store) Put(ctx context.Context, artifacts []nodestate.Artifact) error {
	if len(artifacts) == 0 {
		return nil
	}
	items, err := check(ctx, artifacts)
	if err != nil {
		return fmt.Errorf("publish %d states: %w", len(artifacts), err)
	}
	// in the order of keys: bbolt then writes each page once
	slices.SortStableFunc(items, func(a, b item) int { return strings.Compare(a.Node, b.Node) })
	err = s.change(func(b *bbolt.Bucket, wrote map[string]nodestate.Head) error {
		for i := range items {
			if err := ctx.Err(); err != nil {
				return err
			}
			head, err := putOne(b, &items[i])
			if err != nil {
				return err
			}
			wrote[items[i].Node] = head
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("publish %d states: %w", len(artifacts), err)
	}
	for i := range items {
		s.waiters.wake(items[i].Node)
	}
	return nil
}

func putOne(b *bbolt.Bucket, it *item) (nodestate.Head, error) {
	next, err := it.slot()
	if err != nil {
		return nodestate.Head{}, err
	}
	r := row{generation: it.Generation, content: it.content, slots: []slot{next}}
	if v := b.Get([]byte(it.Node)); v != nil {
		old, err := decodeRow(v)
		if err != nil {
			return nodestate.Head{}, fmt.Errorf("node %s: %w", it.Node, err)
		}
		if it.Generation <= old.generation {
			return nodestate.Head{}, fmt.Errorf("node %s: %w: %d, published is %d", it.Node, ErrGeneration, it.Generation, old.generation)
		}
		if len(old.slots) > 0 {
			r.slots = append(r.slots, old.slots[0])
		}
	}
	return r.head(), b.Put([]byte(it.Node), r.encode())
}

// Remove takes states of nodes away; their generations are remembered. Nodes that are
// not published are skipped.
func (s *Store) Remove(ctx context.Context, nodes []string) error {
	if len(nodes) == 0 {
		return nil
	}
	err := s.change(func(b *bbolt.Bucket, wrote map[string]nodestate.Head) error {
		for _, node := range nodes {
			if err := ctx.Err(); err != nil {
				return err
			}
			v := b.Get([]byte(node))
			if v == nil {
				continue
			}
			r, err := decodeRow(v)
			if err != nil {
				return fmt.Errorf("node %s: %w", node, err)
			}
			gone := row{generation: r.generation}
			if err := b.Put([]byte(node), gone.encode()); err != nil {
				return err
			}
			wrote[node] = gone.head()
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove %d states: %w", len(nodes), err)
	}
	for _, node := range nodes {
		s.waiters.wake(node)
	}
	return nil
}

// PutTrust publishes all root documents, oldest first. They must form a chain and
// begin with those that are published already.
func (s *Store) PutTrust(ctx context.Context, roots [][]byte) error {
	manifest, err := trustManifest(roots)
	if err != nil {
		return fmt.Errorf("publish trust: %w", err)
	}
	changed := false
	err = s.update(func(tx *bbolt.Tx) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := tx.Bucket(bucketTrust)
		old := b.Get(keyCurrent)
		if bytes.Equal(old, manifest) {
			return nil
		}
		if old != nil {
			if err := extends(old, roots); err != nil {
				return err
			}
			if err := b.Put(keyPrevious, bytes.Clone(old)); err != nil {
				return err
			}
		}
		changed = true
		return b.Put(keyCurrent, manifest)
	})
	if err != nil {
		return fmt.Errorf("publish trust: %w", err)
	}
	if changed {
		s.waiters.wake(trustKey)
	}
	return nil
}
