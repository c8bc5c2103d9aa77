package store

import (
	"fmt"
	"os"
	"slices"
	"time"

	"selvedge/edge/verify"
)

// Status is what the store holds, for people and for the hub.
type Status struct {
	Node         string       `json:"node"`
	Current      *Slot        `json:"current,omitempty"`
	Pending      *Slot        `json:"pending,omitempty"`
	LastGood     *Slot        `json:"lastGood,omitempty"`
	Trials       int          `json:"trials,omitempty"`
	Floor        verify.Floor `json:"floor"` // newest seen: above Current, the node does not run what is wanted
	Rejected     []Rejection  `json:"rejected,omitempty"`
	Hold         *HoldInfo    `json:"hold,omitempty"`
	TrustVersion int64        `json:"trustVersion,omitempty"`
	LastContact  time.Time    `json:"lastContact,omitzero"` // long ago: a freeze, or the link is gone
	Problems     []string     `json:"problems,omitempty"`   // damage that was found, and what was done about it
}

// Slot is one state, in short.
type Slot struct {
	Generation    int64  `json:"generation"`
	Digest        string `json:"digest"`
	ContentDigest string `json:"contentDigest"`
	Commit        string `json:"commit,omitempty"`
}

// maxProblems bounds what a long-lived process says of its disk.
const maxProblems = 32

// Status returns what the store holds.
func (s *Store) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status(s.cfg.Node)
	st.Hold = hold(s.disk, s.cfg.Key.Public())
	return st
}

func (m *image) status(node string) Status {
	slot := func(digest string) *Slot {
		s, ok := m.states[digest]
		if !ok {
			return nil
		}
		return &Slot{s.Generation(), s.Digest(), s.ContentDigest(), s.Commit()}
	}
	if n := len(m.problems) - maxProblems; n > 0 {
		m.problems = append([]string{fmt.Sprintf("%d more", n)}, m.problems[n:]...)
	}
	return Status{
		Node: node, Current: slot(m.slots.Current), Pending: slot(m.slots.Pending), LastGood: slot(m.slots.LastGood),
		Trials: m.slots.Trials, Floor: m.floor.Floor, Rejected: slices.Clone(m.slots.Rejected),
		TrustVersion: m.floor.TrustVersion, LastContact: m.seen, Problems: slices.Clone(m.problems),
	}
}

// Read returns what the store of a directory holds, without opening it: another process
// may have it open. It changes nothing.
func Read(dir, node, publicKey string) (Status, error) {
	if _, err := os.Stat(dir); err != nil {
		return Status{}, fmt.Errorf("store: %w", err)
	}
	d := &disk{dir: dir}
	m := load(d, node, publicKey)
	// a transition in between makes contents disappear; damage stays
	for try := 0; try < 3 && len(m.problems) > 0; try++ {
		m = load(d, node, publicKey)
	}
	st := m.status(node)
	st.Hold = hold(d, publicKey)
	return st, nil
}
