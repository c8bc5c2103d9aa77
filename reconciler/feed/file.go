package feed

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"selvedge/schema/roster"
)

// file keeps the roster: a change of one node writes one node.
type file struct {
	path string
	db   *bolt.DB
}

var (
	bucketMeta    = []byte("meta")    // told, fleet, trust
	bucketNodes   = []byte("nodes")   // name → JSON of roster.Node
	bucketChanges = []byte("changes") // big endian number → JSON of roster.Change
	keyTold       = []byte("told")
	keyFleet      = []byte("fleet")
	keyTrust      = []byte("trust")
)

const mapped = 64 << 20 // address space, not memory

func openFile(path string, log *slog.Logger) (*file, state, error) {
	f := &file{path: path}
	now, err := f.open()
	if err == nil || errors.Is(err, bolterrors.ErrTimeout) {
		return f, now, err
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok { // a full disk, for example: the file may be whole
		if f.db != nil {
			err = errors.Join(err, f.db.Close())
		}
		return nil, now, err
	}
	aside := path + ".damaged"
	log.Warn("the roster's file cannot be read: it is set aside, and hubs are told when a commit is in force", "file", path, "aside", aside, "error", err)
	if rerr := os.Rename(path, aside); rerr != nil {
		return nil, now, errors.Join(err, rerr)
	}
	now, err = f.open()
	return f, now, err
}

func (f *file) open() (now state, err error) {
	now.nodes = map[string][]byte{}
	err = guard(func() error {
		db, err := bolt.Open(f.path, 0o600, &bolt.Options{Timeout: 3 * time.Second, FreelistType: bolt.FreelistMapType, InitialMmapSize: mapped})
		if err != nil {
			return err
		}
		f.db = db
		return db.Update(func(tx *bolt.Tx) error {
			for _, b := range [][]byte{bucketMeta, bucketNodes, bucketChanges} {
				if _, err := tx.CreateBucketIfNotExists(b); err != nil {
					return err
				}
			}
			return now.read(tx)
		})
	})
	return now, err
}

func (s *state) read(tx *bolt.Tx) error {
	meta := tx.Bucket(bucketMeta)
	s.told = meta.Get(keyTold) != nil
	s.trust = string(meta.Get(keyTrust))
	if b := meta.Get(keyFleet); b != nil {
		s.fleet = &roster.Fleet{}
		if err := decode(b, s.fleet); err != nil {
			return err
		}
	}
	err := tx.Bucket(bucketNodes).ForEach(func(k, v []byte) error {
		var n roster.Node
		if err := decode(v, &n); err != nil {
			return fmt.Errorf("node %s: %w", k, err)
		}
		s.nodes[string(k)] = append([]byte(nil), v...)
		return nil
	})
	if err != nil {
		return err
	}
	return tx.Bucket(bucketChanges).ForEach(func(k, v []byte) error {
		var c roster.Change
		if err := decode(v, &c); err != nil {
			return fmt.Errorf("change: %w", err)
		}
		s.changes = append(s.changes, c)
		return nil
	})
}

// write makes a change durable.
func (f *file) write(c *change) error {
	return guard(func() error {
		return f.db.Update(func(tx *bolt.Tx) error {
			if c.reset {
				for _, b := range [][]byte{bucketMeta, bucketNodes, bucketChanges} {
					if err := tx.DeleteBucket(b); err != nil && !errors.Is(err, bolterrors.ErrBucketNotFound) {
						return err
					}
					if _, err := tx.CreateBucket(b); err != nil {
						return err
					}
				}
			}
			return c.write(tx)
		})
	})
}

func (c *change) write(tx *bolt.Tx) error {
	meta, nodes, changes := tx.Bucket(bucketMeta), tx.Bucket(bucketNodes), tx.Bucket(bucketChanges)
	if err := meta.Put(keyTold, []byte{1}); err != nil {
		return err
	}
	if c.trust != "" {
		if err := meta.Put(keyTrust, []byte(c.trust)); err != nil {
			return err
		}
	}
	if c.fleet != nil {
		if err := meta.Put(keyFleet, c.written); err != nil {
			return err
		}
	}
	for name, b := range c.nodes {
		if err := nodes.Put([]byte(name), b); err != nil {
			return err
		}
	}
	for _, name := range c.removed {
		if err := nodes.Delete([]byte(name)); err != nil {
			return err
		}
	}
	return writeChanges(changes, c.history, len(c.changes))
}

// writeChanges keeps as many changes as there are in history, the last few of which are new.
// What was forgotten of older ones is forgotten here as well.
func writeChanges(b *bolt.Bucket, history []roster.Change, added int) error {
	if history == nil {
		return nil
	}
	for _, c := range history[max(0, len(history)-added):] {
		seq, err := b.NextSequence()
		if err != nil {
			return err
		}
		v, err := encode(c)
		if err != nil {
			return err
		}
		if err := b.Put(binary.BigEndian.AppendUint64(nil, seq), v); err != nil {
			return err
		}
	}
	cur := b.Cursor()
	i := len(history) - 1
	k, v := cur.Last()
	for ; k != nil && i >= 0; i-- {
		if c := history[i]; c.Count > 0 && c.Nodes == nil && c.Removed == nil && forgettable(v) {
			short, err := encode(history[i])
			if err != nil {
				return err
			}
			if err := b.Put(append([]byte(nil), k...), short); err != nil {
				return err
			}
		}
		k, v = cur.Prev()
	}
	for ; k != nil; k, _ = cur.Prev() {
		if err := cur.Delete(); err != nil {
			return err
		}
	}
	return nil
}

// forgettable tells a change on disk that still names what it touched.
func forgettable(v []byte) bool {
	return bytes.Contains(v, []byte(`,"nodes":{`)) || bytes.Contains(v, []byte(`,"removed":[`))
}

func (f *file) close() error { return f.db.Close() }

// guard makes an error of what bbolt does with a damaged file: it panics, or faults
// past the end of a file that was cut.
func guard(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("damaged: %v", r)
		}
	}()
	return do()
}
