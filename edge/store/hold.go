package store

import (
	"errors"
	"fmt"
	"time"

	"selvedge/internal/atomicfile"
	"selvedge/internal/sealed"
)

// HoldInfo says that a person keeps the node where it is: nothing new is begun.
type HoldInfo struct {
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"` // for people: the clock may be wrong
}

// Hold keeps the node of a store where it is, across restarts. It may be called beside
// the process that has the store open, which sees it by Held.
func Hold(dir string, key sealed.Signer, reason string, now time.Time) error {
	if len(reason) > maxReason {
		return fmt.Errorf("store: hold: a reason of more than %d bytes", maxReason)
	}
	b, err := seal(key, kindHold, HoldInfo{reason, now.UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	return (&disk{dir: dir}).write("hold", b)
}

// Release ends a hold, and asks for a retry of what was rejected; the process that has
// the store open grants it by TakeRetry. It may be called beside that process.
func Release(dir, node string, key sealed.Signer) error {
	d := &disk{dir: dir}
	// by name and ID: put back later, the request fits no later rejection
	var ids []int64
	for _, r := range load(d, node, key.Public()).slots.Rejected {
		ids = append(ids, r.ID)
	}
	if len(ids) > 0 {
		b, err := seal(key, kindRetry, ids)
		if err != nil {
			return err
		}
		if err := d.write("retry", b); err != nil {
			return err
		}
	}
	return d.release()
}

// release removes the hold for good: a power cut must not bring it back.
func (d *disk) release() error {
	if err := d.remove("hold"); err != nil {
		return err
	}
	return atomicfile.SyncDir(d.dir)
}

// Hold keeps the node where it is.
func (s *Store) Hold(reason string) error {
	return Hold(s.cfg.Dir, s.cfg.Key, reason, s.Now())
}

// Release ends a hold and forgets what was rejected.
func (s *Store) Release() error {
	if _, err := s.Retry(""); err != nil {
		return err
	}
	return s.disk.release()
}

// Held returns the hold, if there is one. It reads the file anew.
func (s *Store) Held() (HoldInfo, bool) {
	h := hold(s.disk, s.cfg.Key.Public())
	if h == nil {
		return HoldInfo{}, false
	}
	return *h, true
}

// TakeRetry grants a retry that was asked for by Release, and reports whether one was:
// what was rejected may be pulled again.
func (s *Store) TakeRetry() (bool, error) {
	b, err := s.disk.read("retry", maxSmall)
	if err != nil {
		return false, nil // nearly always: there is none
	}
	var ids []int64
	var granted bool
	if err = open(s.cfg.Key.Public(), kindRetry, b, &ids); err == nil {
		asked := map[int64]bool{}
		for _, id := range ids {
			asked[id] = true
		}
		s.mu.Lock()
		granted, err = s.retry(func(r Rejection) bool { return asked[r.ID] })
		s.mu.Unlock()
		if err != nil {
			return false, err // the request stays
		}
	}
	return granted, errors.Join(err, s.disk.remove("retry"))
}

func hold(d *disk, publicKey string) *HoldInfo {
	b, err := d.read("hold", maxSmall)
	if err != nil {
		return nil
	}
	var h HoldInfo
	if open(publicKey, kindHold, b, &h) != nil {
		return nil // planted
	}
	return &h
}
