package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"selvedge/edge/verify"
	"selvedge/internal/sealed"
	"selvedge/schema/nodestate"
	"selvedge/schema/trust"
)

// Errors that callers tell apart.
var (
	ErrLocked   = errors.New("in use by another process")
	ErrFloor    = errors.New("below the floor")
	ErrRejected = errors.New("rejected before")
	ErrEmpty    = errors.New("no such state") // of a transition whose slot is empty
)

// Config says whose store it is.
type Config struct {
	Dir  string
	Node string
	Key  sealed.Signer    // the node's own key
	Now  func() time.Time // nil means time.Now

	step func(op, name string) error // crash tests
}

// Store is the open store. It is safe for concurrent use.
type Store struct {
	cfg  Config
	disk *disk
	lock *os.File

	mu sync.Mutex
	*image
	savedSeen time.Time
}

// Open reads the store, and makes it if there is none. Damage is no error: see Status.
func Open(cfg Config) (*Store, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if !nodestate.ValidNode(cfg.Node) {
		return nil, fmt.Errorf("store: %q is not the name of a node", cfg.Node)
	}
	d := &disk{cfg.Dir, cfg.step}
	if err := d.make(); err != nil {
		return nil, err
	}
	lock, err := d.lock()
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, disk: d, lock: lock}
	if err := d.clean(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	s.image = load(d, cfg.Node, cfg.Key.Public())
	s.slots.Node, s.savedSeen = cfg.Node, s.seen
	if !s.recovered && len(s.problems) == 0 {
		s.sweep() // a crash may have left contents that no slot ever named
	}
	return s, nil
}

// Close lets other processes open the store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lock.Close()
}

// Current returns the state that the node runs, or tries to.
func (s *Store) Current() (verify.State, bool) {
	return s.state(func(t *slots) string { return t.Current })
}

// Pending returns the state that was verified and is not begun yet.
func (s *Store) Pending() (verify.State, bool) {
	return s.state(func(t *slots) string { return t.Pending })
}

// LastGood returns the state that was healthy last.
func (s *Store) LastGood() (verify.State, bool) {
	return s.state(func(t *slots) string { return t.LastGood })
}

func (s *Store) state(slot func(*slots) string) (verify.State, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.states[slot(&s.slots)]
	return st, !st.IsZero()
}

// Good reports whether current was healthy before: it is last-good.
func (s *Store) Good() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slots.Current != "" && s.slots.Current == s.slots.LastGood
}

// Floor returns the highest generation that was ever accepted here.
func (s *Store) Floor() verify.Floor {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.floor.Floor
}

// Rejected reports whether the state of that digest failed here.
func (s *Store) Rejected(digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slots.rejects(digest)
}

// SetPending keeps a verified state to be begun, in place of another one that waits,
// and raises the floor to it. It does nothing if the state is in current or pending already.
func (s *Store) SetPending(st verify.State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.IsZero() || st.Desired().Node != s.cfg.Node {
		return fmt.Errorf("store: keep state: not one of node %s", s.cfg.Node)
	}
	d, f := st.Digest(), s.floor.Floor
	switch {
	case d == s.slots.Current || d == s.slots.Pending:
		return nil
	case st.Generation() < f.Generation || st.Generation() == f.Generation && f.Digest != "" && f.Digest != d:
		return fmt.Errorf("store: keep generation %d: %w, %d", st.Generation(), ErrFloor, f.Generation)
	case s.slots.rejects(d):
		return fmt.Errorf("store: keep generation %d: %w", st.Generation(), ErrRejected)
	}
	s.floor.Floor = higher(f, st.Floor()) // whatever the disk takes of it
	rec, err := st.Record(s.cfg.Key)
	if err != nil {
		return fmt.Errorf("store: keep generation %d: %w", st.Generation(), err)
	}
	if err := s.disk.write(file(statesDir, d), rec); err != nil {
		return err
	}
	next := s.next()
	next.Pending = d
	s.states[d] = st
	return s.commit(next)
}

// Activate makes pending current: its apps are about to be started. Last-good stays.
func (s *Store) Activate() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slots.Pending == "" {
		return fmt.Errorf("store: activate pending: %w", ErrEmpty)
	}
	next := s.next()
	next.Current, next.Pending, next.Trials = next.Pending, "", 0
	return s.commit(next)
}

// Trial counts that current is begun once more before it is good, and returns how often it
// was. A state that takes the whole machine down is so found out after it.
func (s *Store) Trial() (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slots.Current == "" || s.slots.Current == s.slots.LastGood {
		return 0, nil
	}
	next := s.next()
	next.Trials++
	return next.Trials, s.commit(next)
}

// Commit makes current last-good: it is healthy.
func (s *Store) Commit() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.slots.Current {
	case "":
		return fmt.Errorf("store: commit current: %w", ErrEmpty)
	case s.slots.LastGood:
		return nil
	}
	next := s.next()
	next.LastGood, next.Trials = next.Current, 0
	return s.commit(next)
}

// Reject remembers that a state failed here. If it is pending it is dropped; if it is
// current, last-good becomes current, or nothing where there is none. Should the disk not take
// it, there is an error and it is so all the same, until the process ends or the next
// transition makes it durable: a full disk must not keep a node in a state that failed.
func (s *Store) Reject(digest, reason string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !digestRE.MatchString(digest) {
		return fmt.Errorf("store: reject %.80q: not a digest", digest)
	}
	if digest == s.slots.LastGood {
		return fmt.Errorf("store: reject %s: it is last-good, there is nothing to go back to", digest)
	}
	if s.slots.rejects(digest) {
		return nil
	}
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "…"
	}
	next := s.next()
	r := Rejection{Digest: digest, Generation: s.states[digest].Generation(), Reason: reason, At: s.now().UTC().Truncate(time.Second), ID: next.Sequence}
	next.Rejected = append(slices.Clone(next.Rejected), r)
	if n := len(next.Rejected) - maxRejected; n > 0 {
		next.Rejected = next.Rejected[n:]
	}
	if next.Pending == digest {
		next.Pending = ""
	}
	if next.Current == digest {
		next.Current, next.Trials = next.LastGood, 0
	}
	err := s.commit(next)
	if err != nil {
		next.Sequence = s.slots.Sequence // the next transition writes it with its own
		s.slots = next
	}
	return err
}

// Retry forgets that a state was rejected, or with "" that any was: it may be pulled again,
// which takes a request without a validator. It reports whether there was one.
func (s *Store) Retry(digest string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.retry(func(r Rejection) bool { return digest == "" || r.Digest == digest })
}

func (s *Store) retry(which func(Rejection) bool) (bool, error) {
	if !slices.ContainsFunc(s.slots.Rejected, which) {
		return false, nil
	}
	next := s.next()
	next.Rejected = slices.DeleteFunc(slices.Clone(next.Rejected), which)
	return true, s.commit(next)
}

// SaveRoot keeps root documents, oldest first, after the chain was walked to the last.
// The version never falls.
func (s *Store) SaveRoot(docs [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(docs) == 0 || len(docs) > trust.MaxDocuments {
		return fmt.Errorf("store: keep root documents: %d of them", len(docs))
	}
	last, err := trust.Parse(docs[len(docs)-1])
	if err != nil {
		return fmt.Errorf("store: keep root documents: %w", err)
	}
	if last.Version() < s.floor.TrustVersion {
		return fmt.Errorf("store: keep root document %d: %w, %d", last.Version(), ErrFloor, s.floor.TrustVersion)
	}
	b, err := json.Marshal(docs)
	if err != nil {
		return fmt.Errorf("store: keep root documents: %w", err)
	}
	d := nodestate.Digest(b)
	if d == s.slots.Trust {
		return nil
	}
	if err := s.disk.write(file(trustDir, d), b); err != nil {
		return err
	}
	next := s.next()
	next.Trust, next.TrustVersion = d, last.Version()
	if err := s.commit(next); err != nil {
		return err
	}
	s.trust = slices.Clone(docs)
	return nil
}

// Root returns the root documents, oldest first. They may be lost while the version
// that was reached is still known: then only documents from that version on may be saved.
func (s *Store) Root() (docs [][]byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.trust), len(s.trust) > 0
}

// next returns the slots of the next transition.
func (s *Store) next() slots {
	n := s.slots
	n.Sequence = max(n.Sequence, s.before.Sequence, s.floor.Sequence) + 1
	n.Floor = s.floor.Floor
	n.TrustVersion = max(n.TrustVersion, s.floor.TrustVersion)
	return n
}

// commit makes a transition: one rename, after which it has happened. The floor file
// and the sweep come later and may fail without harm: the next transition makes up for them.
func (s *Store) commit(next slots) error {
	b, err := seal(s.cfg.Key, kindSlots, next)
	if err != nil {
		return err
	}
	if err := s.disk.write(slotsFile(next.Sequence), b); err != nil {
		return err
	}
	s.before, s.slots, s.recovered = s.slots, next, false
	s.floor = floorFile{s.cfg.Node, higher(s.floor.Floor, next.Floor), next.Sequence, s.oldest(), max(s.floor.TrustVersion, next.TrustVersion)}
	if b, err = seal(s.cfg.Key, kindFloor, s.floor); err == nil {
		err = s.disk.write("floor", b)
	}
	if err != nil {
		s.problem("%v", err)
		return nil
	}
	s.sweep()
	return nil
}

// oldest returns the lowest generation that a slot of either file points to.
func (s *Store) oldest() int64 {
	oldest := int64(0)
	for d := range s.kept() {
		if g := s.states[d].Generation(); g > 0 && (oldest == 0 || g < oldest) {
			oldest = g
		}
	}
	return oldest
}

// kept names the contents that either slots file points to.
func (s *Store) kept() map[string]bool {
	kept := map[string]bool{}
	for _, t := range []*slots{&s.slots, &s.before} {
		for _, d := range []string{t.Current, t.Pending, t.LastGood, t.Trust} {
			kept[d] = d != ""
		}
	}
	delete(kept, "")
	return kept
}

// sweep removes contents that no slots file points to.
func (s *Store) sweep() {
	kept := s.kept()
	for _, folder := range []string{statesDir, trustDir} {
		for _, name := range s.disk.list(folder) {
			if !kept["sha256:"+name] {
				if err := s.disk.remove(file(folder, name)); err != nil {
					s.problem("%v", err)
				}
			}
		}
	}
	for d := range s.states {
		if !kept[d] {
			delete(s.states, d)
		}
	}
}
