package validate

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// cache keeps one verdict a directory on disk. What it holds can be lost at any time:
// a file that cannot be read is set aside.
type cache struct {
	file string
	made string // engine and limits that its results depend on
	db   *bolt.DB
	bad  bool
}

// mapped is address space, not memory: a file that outgrows it has what was read copied to the heap.
const mapped = 256 << 20

var (
	verdictsBucket = []byte("verdicts")
	metaBucket     = []byte("meta")
	engineKey      = []byte("engine")
)

// open opens the cache once. A cache in use by another process is gone without.
func (v *Validator) open() error {
	if v.cfg.CacheFile == "" || v.store != nil {
		return nil
	}
	c := &cache{file: v.cfg.CacheFile, made: fmt.Sprintf("%s file=%d problems=%d", engine(), v.cfg.Limits.File, v.cfg.Limits.Problems)}
	err := c.open()
	if err != nil && !errors.Is(err, bolterrors.ErrTimeout) && !errors.Is(err, os.ErrPermission) && !full(err) {
		aside := c.file + ".corrupt"
		v.cfg.Log.Warn("the cache is unreadable: it is set aside and begun anew", "file", c.file, "aside", aside, "error", err)
		if err := os.Rename(c.file, aside); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("set aside %s: %w", c.file, err)
		}
		err = c.open()
	}
	if err != nil {
		v.cfg.Log.Warn("working without the cache", "file", c.file, "error", err)
		return nil
	}
	v.store = c
	return nil
}

func (c *cache) open() error {
	if err := os.MkdirAll(filepath.Dir(c.file), 0o750); err != nil {
		return err
	}
	return guard(func() error {
		db, err := bolt.Open(c.file, 0o600, &bolt.Options{Timeout: time.Second, InitialMmapSize: mapped})
		if err != nil {
			return err
		}
		err = db.Update(func(tx *bolt.Tx) error {
			meta, err := tx.CreateBucketIfNotExists(metaBucket)
			if err != nil {
				return err
			}
			if string(meta.Get(engineKey)) != c.made {
				if err := tx.DeleteBucket(verdictsBucket); err != nil && !errors.Is(err, bolterrors.ErrBucketNotFound) {
					return err
				}
				if err := meta.Put(engineKey, []byte(c.made)); err != nil {
					return err
				}
			}
			_, err = tx.CreateBucketIfNotExists(verdictsBucket)
			return err
		})
		if err != nil {
			return errors.Join(err, db.Close())
		}
		c.db = db
		return nil
	})
}

// guard makes an error of what bbolt does with a damaged file: it panics, or faults
// past the end of a file that was cut.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("damaged: %v", r)
		}
	}()
	return f()
}

func (c *cache) get(dir string) *verdict {
	if c == nil || c.bad {
		return nil
	}
	var vd *verdict
	err := guard(func() error {
		return c.db.View(func(tx *bolt.Tx) error {
			b := tx.Bucket(verdictsBucket).Get([]byte(dir))
			if b == nil {
				return nil
			}
			vd = new(verdict)
			return json.Unmarshal(b, vd)
		})
	})
	if err != nil || vd == nil || vd.Result == nil {
		c.bad = c.bad || err != nil
		return nil
	}
	vd.name()
	return vd
}

// save writes the new verdicts and forgets directories that are gone.
func (v *Validator) save(r *round, dirs []string) error {
	defer func() { // the decoded form is kept, or the directory is none of a workspace
		for _, vd := range r.verdicts {
			if vd.unit != nil {
				vd.Result.Unit = nil
			}
		}
	}()
	c := v.store
	if c == nil {
		return nil
	}
	if c.bad {
		v.store = nil
		return errors.Join(errors.New("the cache is damaged: it is begun anew"), guard(c.db.Close), os.Rename(c.file, c.file+".corrupt"))
	}
	gone := false
	keep := make(map[string]bool, len(dirs))
	for _, d := range dirs {
		keep[d] = true
	}
	err := guard(func() error {
		return c.db.View(func(tx *bolt.Tx) error {
			return tx.Bucket(verdictsBucket).ForEach(func(k, _ []byte) error {
				gone = gone || !keep[string(k)]
				return nil
			})
		})
	})
	if err == nil && (gone || len(r.fresh) > 0) {
		err = guard(func() error { return c.db.Update(func(tx *bolt.Tx) error { return r.write(tx, keep) }) })
	}
	if err != nil && !full(err) {
		c.bad = true
	}
	return err
}

// full tells an error of a disk without room: the file is as good as it was, and a copy
// set aside would take the room of states.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

func (r *round) write(tx *bolt.Tx, keep map[string]bool) error {
	b := tx.Bucket(verdictsBucket)
	var drop [][]byte
	if err := b.ForEach(func(k, _ []byte) error {
		if !keep[string(k)] {
			drop = append(drop, append([]byte(nil), k...))
		}
		return nil
	}); err != nil {
		return err
	}
	for _, k := range drop {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	for _, dir := range r.fresh {
		vd := r.verdicts[dir]
		if vd.Result.Killed { // next time may be better
			continue
		}
		p, err := json.Marshal(vd)
		if err != nil {
			return err
		}
		if err := b.Put([]byte(dir), p); err != nil {
			return err
		}
	}
	return nil
}

func (c *cache) close() error { return guard(c.db.Close) }
