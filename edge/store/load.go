package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"selvedge/edge/verify"
	"selvedge/schema/nodestate"
)

// image is what the directory holds, as far as it is believed.
type image struct {
	slots  slots
	before slots // the other slots file: its contents stay, should this one be damaged
	floor  floorFile
	states map[string]verify.State // of the slots
	trust  [][]byte
	seen   time.Time

	recovered bool     // the slots do not come from a slots file
	problems  []string // what was found damaged, for people
}

func (m *image) problem(format string, args ...any) {
	m.problems = append(m.problems, fmt.Sprintf(format, args...))
}

// load reads the directory and decides what to believe. It changes nothing.
func load(d *disk, node, publicKey string) *image {
	m := &image{states: map[string]verify.State{}}
	m.loadFloor(d, node, publicKey)
	m.loadSlots(d, node, publicKey)
	m.loadStates(d, node, publicKey)
	m.loadTrust(d)
	var t struct{ At time.Time }
	if b, err := d.read("seen", maxSmall); err == nil && open(publicKey, kindSeen, b, &t) == nil {
		m.seen = t.At
	}
	return m
}

func (m *image) loadFloor(d *disk, node, publicKey string) {
	b, err := d.read("floor", maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		return // of a new store; else the slots tell
	}
	if err == nil {
		m.floor, err = openFloor(publicKey, node, b)
	}
	if err != nil {
		m.problem("file floor is not believed: %v", err)
	}
}

func (m *image) loadSlots(d *disk, node, publicKey string) {
	var found []slots
	for i := range 2 {
		name := slotsFile(int64(i))
		b, err := d.read(name, maxSmall)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var s slots
		if err == nil {
			s, err = openSlots(publicKey, node, b)
		}
		if err != nil {
			m.problem("file %s is not believed: %v", name, err)
			continue
		}
		found = append(found, s)
	}
	slices.SortFunc(found, func(a, b slots) int { return cmp.Compare(b.Sequence, a.Sequence) })
	for _, s := range found {
		// whatever becomes of the slots, none of this may be forgotten
		m.floor.Floor = higher(m.floor.Floor, s.Floor)
		m.floor.TrustVersion = max(m.floor.TrustVersion, s.TrustVersion)
	}
	if len(found) > 0 && found[0].Sequence >= m.floor.Sequence-1 {
		m.slots = found[0]
		if len(found) > 1 {
			m.before = found[1]
		}
		return
	}
	if len(found) == 0 && m.floor.Sequence == 0 && len(m.problems) == 0 {
		return // a new store
	}
	m.recovered = true
	m.slots = slots{Node: node, Sequence: m.floor.Sequence}
	if len(found) == 0 {
		m.problem("no slots file is left")
		return
	}
	m.problem("the slots are of transition %d, and %d was the last: old files were put back", found[0].Sequence, m.floor.Sequence)
	m.slots.Rejected = found[0].Rejected // they only restrict
}

func slotsFile(sequence int64) string { return fmt.Sprintf("slots.%d", sequence%2) }

// loadStates reads the states of the slots; for one that is lost, the next best steps in.
func (m *image) loadStates(d *disk, node, publicKey string) {
	read := func(digest string) bool {
		if digest == "" || !m.states[digest].IsZero() {
			return digest != ""
		}
		b, err := d.read(file(statesDir, digest), maxState)
		if err != nil {
			m.problem("state %s is lost: %v", digest, err)
			return false
		}
		s, err := verify.FromRecord(b, node, publicKey)
		if err == nil && s.Digest() != digest {
			err = errors.New("it is another state's file")
		}
		if err != nil {
			m.problem("state %s is not believed: %v", digest, err)
			return false
		}
		m.states[digest] = s
		m.floor.Floor = higher(m.floor.Floor, s.Floor())
		return true
	}
	s := &m.slots
	if !read(s.Pending) {
		s.Pending = ""
	}
	if !read(s.LastGood) {
		s.LastGood = ""
	}
	lost := s.Current != ""
	if read(s.Current) {
		return
	}
	s.Current, s.Trials = "", 0
	if s.LastGood != "" {
		m.problem("last-good takes the place of current")
		s.Current = s.LastGood
		return
	}
	if !lost && !m.recovered {
		return
	}
	// All that is left are files that this node once accepted.
	var left []verify.State
	for _, name := range d.list(statesDir) {
		digest := "sha256:" + name
		if digestRE.MatchString(digest) && digest != s.Pending && !s.rejects(digest) && read(digest) {
			if st := m.states[digest]; st.Generation() >= m.floor.Oldest {
				left = append(left, st)
			} else {
				m.problem("state %s of generation %d is older than any that may be there", digest, st.Generation())
			}
		}
	}
	slices.SortFunc(left, func(a, b verify.State) int { return cmp.Compare(b.Generation(), a.Generation()) })
	if len(left) > 0 {
		m.problem("generation %d, accepted earlier, takes the place of current", left[0].Generation())
		s.Current = left[0].Digest()
	}
	if len(left) > 1 {
		s.LastGood = left[1].Digest()
	}
}

func (s *slots) rejects(digest string) bool {
	return slices.ContainsFunc(s.Rejected, func(r Rejection) bool { return r.Digest == digest })
}

func (m *image) loadTrust(d *disk) {
	if m.slots.Trust == "" {
		return
	}
	b, err := d.read(file(trustDir, m.slots.Trust), maxTrust)
	if err == nil && nodestate.Digest(b) != m.slots.Trust {
		err = errors.New("its content was changed")
	}
	if err == nil {
		err = json.Unmarshal(b, &m.trust)
	}
	if err != nil {
		m.problem("the root documents are not believed: %v", err)
		m.trust, m.slots.Trust = nil, ""
	}
}
