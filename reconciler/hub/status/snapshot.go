package status

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

var (
	bucketNodes   = []byte("nodes")   // name → row
	bucketHistory = []byte("history") // name → history
	bucketEvents  = []byte("events")  // ID, big-endian → hubapi.Event
	bucketChanges = []byte("changes") // hash → roster.Change
	bucketMeta    = []byte("meta")
	keyAlive      = []byte("alive") // when it was last written, and when each node was last heard
	buckets       = [][]byte{bucketNodes, bucketHistory, bucketEvents, bucketChanges, bucketMeta}
)

// nodeRow is a record in the file.
type nodeRow struct {
	Generation int64        `json:"generation,omitempty"` // wanted, since:
	Since      time.Time    `json:"since,omitzero"`
	PublicKey  string       `json:"publicKey,omitempty"` // the report is of who has it
	Heard      time.Time    `json:"heard,omitzero"`
	Online     time.Time    `json:"online,omitzero"`
	Former     string       `json:"former,omitempty"`
	Announced  bool         `json:"announced,omitempty"`
	Known      [2]known     `json:"known"`
	Report     *wire.Status `json:"report,omitempty"`
}

// snapshot is the file.
type snapshot struct {
	path string
	log  *slog.Logger
	mu   sync.Mutex
	db   *bbolt.DB

	closed bool
}

func openSnapshot(path string, log *slog.Logger) (*snapshot, error) {
	f := &snapshot{path: path, log: log}
	if err := f.open(); !errors.Is(err, errDamaged) {
		return f, err
	}
	if err := f.aside(); err != nil {
		return nil, err
	}
	return f, nil
}

var errDamaged = errors.New("the file is damaged")

// guard makes an error of what bbolt does with a damaged file: it panics, or faults past the
// end of a file that was cut.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w (%v)", errDamaged, r)
		}
	}()
	err = f()
	if errors.Is(err, bbolterrors.ErrInvalid) || errors.Is(err, bbolterrors.ErrChecksum) || errors.Is(err, bbolterrors.ErrVersionMismatch) ||
		err != nil && strings.Contains(err.Error(), "file size too small") {
		err = fmt.Errorf("%w (%w)", errDamaged, err)
	}
	return err
}

func (f *snapshot) open() error {
	err := guard(func() (err error) {
		if f.db, err = bbolt.Open(f.path, 0o600, &bbolt.Options{Timeout: 3 * time.Second, FreelistType: bbolt.FreelistMapType}); err != nil {
			return err
		}
		return f.db.Update(func(tx *bbolt.Tx) error {
			for _, b := range buckets {
				if _, err := tx.CreateBucketIfNotExists(b); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return fmt.Errorf("open %s: another process has it open", f.path)
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", f.path, err)
	}
	return nil
}

// aside moves a damaged file away and begins a new one. What is in memory is written again. The
// old handle is left open: closing it may wait for ever.
func (f *snapshot) aside() error {
	to := fmt.Sprintf("%s.damaged-%d", f.path, time.Now().Unix())
	if err := os.Rename(f.path, to); err != nil {
		return fmt.Errorf("move the damaged %s aside: %w", filepath.Base(f.path), err)
	}
	f.log.Error("the file of statuses is damaged: it was moved aside, and statuses are gathered anew", "file", f.path, "moved", to)
	return f.open()
}

func (f *snapshot) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.db == nil {
		return nil
	}
	err := f.db.Close()
	f.db = nil
	return err
}

// view reads. A damaged row is none; a damaged file is found when it is written.
func (f *snapshot) view(do func(*bbolt.Tx) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.db == nil {
		return
	}
	if err := guard(func() error { return f.db.View(do) }); err != nil {
		f.log.Error("the file of statuses cannot be read", "file", f.path, "error", err)
	}
}

type stored struct {
	row     *nodeRow
	history []byte
}

// rows reads nodes. A row that cannot be read is none.
func (f *snapshot) rows(names []string) map[string]stored {
	out := map[string]stored{}
	if len(names) == 0 {
		return out
	}
	f.view(func(tx *bbolt.Tx) error {
		nodes, history := tx.Bucket(bucketNodes), tx.Bucket(bucketHistory)
		for _, n := range names {
			b := nodes.Get([]byte(n))
			if b == nil {
				continue
			}
			row := &nodeRow{}
			if err := json.Unmarshal(b, row); err != nil || row.Report != nil && (row.Report.Node != n || cleanStatus(row.Report) != nil) {
				f.log.Warn("a node's row in the file of statuses is damaged and left out", "node", n)
				continue
			}
			out[n] = stored{row, slices.Clone(history.Get([]byte(n)))}
		}
		return nil
	})
	return out
}

// others lists the nodes in the file that are not among these.
func (f *snapshot) others(nodes map[string]roster.Node) (out []string) {
	f.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketNodes).ForEach(func(k, _ []byte) error {
			if _, ok := nodes[string(k)]; !ok {
				out = append(out, string(k))
			}
			return nil
		})
	})
	return out
}

// load reads what does not wait for the roster: events, changes, and when nodes were heard.
func (s *Store) load() error {
	s.file.view(func(tx *bbolt.Tx) error {
		err := tx.Bucket(bucketEvents).ForEach(func(k, v []byte) error {
			e := &entry{}
			if len(k) != 8 || json.Unmarshal(v, &e.Event) != nil {
				return nil
			}
			e.id = binary.BigEndian.Uint64(k)
			e.Node, e.Workspace = name(e.Node), name(e.Workspace)
			cleanEvent(&e.Event.Event)
			s.journal.insert(e)
			s.journal.last = max(s.journal.last, e.id)
			return nil
		})
		if err != nil {
			return err
		}
		var changes []roster.Change
		err = tx.Bucket(bucketChanges).ForEach(func(_, v []byte) error {
			var c roster.Change
			if json.Unmarshal(v, &c) == nil {
				changes = append(changes, c)
			}
			return nil
		})
		slices.SortFunc(changes, func(a, b roster.Change) int { return a.At.Compare(b.At) })
		for _, c := range changes {
			s.change(c).dirty = false
		}
		s.bound()
		s.lived, s.lastHeard = decodeAlive(tx.Bucket(bucketMeta).Get(keyAlive))
		return err
	})
	return nil
}

// recall makes the record of a node that Git has, from what the file knows of it.
func (s *Store) recall(n string, st stored) *record {
	r := &record{name: n, saved: s.now().Add(-time.Duration(len(s.nodes)%60) * time.Second)} // so that not all are written at once
	row := st.row
	if row == nil {
		return r
	}
	now := s.now() // the file may have been written before the clock was set back
	r.want.Generation, r.wantSince, r.want.PublicKey = row.Generation, sooner(row.Since, now), row.PublicKey
	r.heard, r.online, r.former, r.announced, r.known = sooner(row.Heard, now), sooner(row.Online, now), row.Former, row.Announced, row.Known
	if r.report = row.Report; r.report != nil {
		r.epoch, r.seq, r.size = r.report.Epoch, r.report.Seq, weigh(r.report, 0)
		s.size += r.size
	}
	if at, ok := s.lastHeard[n]; ok {
		r.heard = later(r.heard, sooner(at, now))
	}
	if r.deadline = r.heard.Add(wire.UnknownAfter); r.deadline.After(sooner(s.lived, now)) {
		// it was known when the hub stopped; it is not the node's fault that nobody listened
		r.deadline = later(r.deadline, s.opened.Add(wire.UnknownAfter))
	}
	if r.announced {
		r.announceAt = later(s.opened, s.now()).Add(time.Minute) // unless it connects until then
	}
	if h, err := decodeHistory(st.history); err == nil {
		r.history = h
	}
	return r
}

func sooner(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

const (
	refreshAfter = time.Minute // figures of usage are written that seldom
	refreshMost  = 1000        // rows at once for that reason
)

// batch is what save writes.
type batch struct {
	names   []string
	rows    []nodeRow
	history map[string][]byte
	gone    []string
	fresh   []*entry
	dead    []uint64
	changes []roster.Change
	lost    []string // hashes of changes that are no longer kept
	alive   []byte
}

// save writes what changed. With all, everything.
func (s *Store) save(all bool) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	b := s.collect(all)
	err := s.file.update(b.write)
	if err != nil {
		s.restore(b, errors.Is(err, errDamaged)) // not while the file is locked: who has the store's lock may wait for it
	}
	return err
}

// update writes. After damage there is an empty file, or none until the next update finds
// where to put one.
func (f *snapshot) update(do func(*bbolt.Tx) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errors.New("the file of statuses is closed")
	}
	var err error
	if f.db == nil {
		err = f.open()
	}
	if err == nil {
		err = guard(func() error { return f.db.Update(do) })
	}
	if errors.Is(err, errDamaged) {
		f.db = nil
		err = errors.Join(err, f.aside())
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	return nil
}

func (s *Store) collect(all bool) *batch {
	b := &batch{history: map[string][]byte{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	minute, refreshed := now.Unix()/60, 0
	for _, r := range s.order {
		old := now.Sub(r.saved) > refreshAfter && r.heard.After(r.saved)
		if old && refreshed == max(refreshMost, len(s.order)/10) {
			old = false
		}
		if !r.dirty && !old && !all {
			continue
		}
		if !r.dirty {
			refreshed++
		}
		if r.history.coarse > 0 && (all || r.minute != minute && old) {
			b.history[r.name] = r.history.encode(all)
			r.minute = minute
		}
		if old || all || r.saved.IsZero() {
			r.saved = now
		}
		r.dirty = false
		b.names = append(b.names, r.name)
		b.rows = append(b.rows, nodeRow{Generation: r.want.Generation, Since: r.wantSince, PublicKey: r.want.PublicKey, Heard: r.heard, Online: r.online, Former: r.former,
			Announced: r.announced, Known: r.known, Report: r.report})
	}
	for _, n := range s.gone {
		if s.nodes[n] == nil {
			b.gone = append(b.gone, n)
		}
	}
	s.gone = nil
	for _, e := range s.journal.fresh {
		if !e.dead {
			b.fresh = append(b.fresh, e)
		}
	}
	b.dead, s.journal.fresh, s.journal.dead = s.journal.dead, nil, nil
	for _, c := range s.changes {
		if c.dirty {
			c.dirty = false
			b.changes = append(b.changes, c.roster())
		}
	}
	b.lost, s.lost = s.lost, nil
	if s.ready {
		b.alive = s.encodeAlive(now)
	}
	return b
}

// restore takes back what was not written; after the loss of the file, everything.
func (s *Store) restore(b *batch, everything bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range b.names {
		if r := s.nodes[n]; r != nil {
			r.dirty, r.minute = true, 0
		}
	}
	s.gone, s.lost = append(s.gone, b.gone...), append(s.lost, b.lost...)
	s.journal.fresh, s.journal.dead = append(b.fresh, s.journal.fresh...), append(b.dead, s.journal.dead...)
	for _, c := range b.changes {
		for _, o := range s.changes {
			o.dirty = o.dirty || o.Hash == c.Hash
		}
	}
	if !everything {
		return
	}
	s.journal.fresh = nil
	for _, e := range s.journal.all {
		if !e.dead {
			s.journal.fresh = append(s.journal.fresh, e)
		}
	}
	for _, r := range s.order {
		r.dirty, r.saved = true, time.Time{}
	}
	for _, c := range s.changes {
		c.dirty = true
	}
}

func (b *batch) write(tx *bbolt.Tx) error {
	nodes, history, events, changes := tx.Bucket(bucketNodes), tx.Bucket(bucketHistory), tx.Bucket(bucketEvents), tx.Bucket(bucketChanges)
	put := func(to *bbolt.Bucket, k []byte, v any) error {
		j, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
		return to.Put(k, j)
	}
	var err error
	for i, n := range b.names {
		err = errors.Join(err, put(nodes, []byte(n), &b.rows[i]))
		if h := b.history[n]; h != nil {
			err = errors.Join(err, history.Put([]byte(n), h))
		}
	}
	for _, n := range b.gone {
		err = errors.Join(err, nodes.Delete([]byte(n)), history.Delete([]byte(n)))
	}
	for _, e := range b.fresh {
		err = errors.Join(err, put(events, binary.BigEndian.AppendUint64(nil, e.id), (*hubapi.Event)(&e.Event)))
	}
	for _, id := range b.dead {
		err = errors.Join(err, events.Delete(binary.BigEndian.AppendUint64(nil, id)))
	}
	for _, c := range b.changes {
		err = errors.Join(err, put(changes, []byte(c.Hash), c))
	}
	for _, h := range b.lost {
		err = errors.Join(err, changes.Delete([]byte(h)))
	}
	if b.alive != nil {
		err = errors.Join(err, tx.Bucket(bucketMeta).Put(keyAlive, b.alive))
	}
	return err
}

// encodeAlive tells when it is, and when each node was heard: small enough for every time.
func (s *Store) encodeAlive(now time.Time) []byte {
	b := binary.AppendVarint(make([]byte, 0, 24*len(s.order)), now.Unix())
	for _, r := range s.order {
		if !r.heard.IsZero() {
			b = append(binary.AppendUvarint(b, uint64(len(r.name))), r.name...)
			b = binary.AppendVarint(b, now.Unix()-r.heard.Unix())
		}
	}
	return b
}

func decodeAlive(b []byte) (at time.Time, heard map[string]time.Time) {
	heard = map[string]time.Time{}
	now, n := binary.Varint(b)
	if n <= 0 {
		return at, heard
	}
	b = b[n:]
	for len(b) > 0 {
		l, n := binary.Uvarint(b)
		if n <= 0 || l > uint64(len(b)-n) {
			break
		}
		node := string(b[n : n+int(l)])
		b = b[n+int(l):]
		ago, n := binary.Varint(b)
		if n <= 0 {
			break
		}
		b = b[n:]
		heard[node] = time.Unix(now-ago, 0).UTC()
	}
	return time.Unix(now, 0).UTC(), heard
}
