package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"selvedge/edge/verify"
	"selvedge/internal/sealed"
	"selvedge/schema/nodestate"
)

// Kinds that texts are sealed as.
const (
	kindSlots = "selvedge store slots v1"
	kindFloor = "selvedge store floor v1"
	kindHold  = "selvedge store hold v1"
	kindRetry = "selvedge store retry v1"
	kindSeen  = "selvedge store seen v1"
)

// slots is what one rename replaces. States and root documents are named by digest.
type slots struct {
	Node         string       `json:"node"`
	Sequence     int64        `json:"sequence"` // one higher with every transition
	Current      string       `json:"current,omitempty"`
	Pending      string       `json:"pending,omitempty"`
	LastGood     string       `json:"lastGood,omitempty"`
	Trials       int          `json:"trials,omitempty"` // how often current was begun before it was good
	Floor        verify.Floor `json:"floor"`
	Rejected     []Rejection  `json:"rejected,omitempty"` // oldest first
	Trust        string       `json:"trust,omitempty"`
	TrustVersion int64        `json:"trustVersion,omitempty"`
}

// floorFile is what the file floor holds. It follows each slots file, so it may lag
// behind, but slots that lag behind it by more than one were put back.
type floorFile struct {
	Node         string       `json:"node"`
	Floor        verify.Floor `json:"floor"`
	Sequence     int64        `json:"sequence"`
	Oldest       int64        `json:"oldest"` // generation below which no slot pointed anywhere
	TrustVersion int64        `json:"trustVersion,omitempty"`
}

// Rejection is a state that failed here.
type Rejection struct {
	Digest     string    `json:"digest"` // of the state's manifest
	Generation int64     `json:"generation,omitempty"`
	Reason     string    `json:"reason"`
	At         time.Time `json:"at"` // for people: the clock may be wrong
	ID         int64     `json:"id"` // the sequence of the transition that rejected it
}

// Bounds of what is kept of rejections. Older ones are dropped, which loses nothing: their
// generations are below the floor.
const (
	maxRejected = 32
	maxReason   = 1 << 10
)

var digestRE = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// seal returns v as a sealed text.
func seal(key sealed.Signer, kind string, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return sealed.Seal(key, kind, append(b, '\n'))
}

// open reads a sealed text that seal made. Its own key made it, so a lenient decoder
// does; unknown fields are those of a newer version, which may be back at its older one.
func open(publicKey, kind string, data []byte, v any) error {
	text, err := sealed.Open(publicKey, kind, data)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("open %s: %w", kind, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("open %s: more follows", kind)
	}
	return nil
}

func openSlots(publicKey, node string, data []byte) (slots, error) {
	var s slots
	if err := open(publicKey, kindSlots, data, &s); err != nil {
		return slots{}, err
	}
	if s.Node != node {
		return slots{}, fmt.Errorf("slots of node %.80q; this is %q", s.Node, node)
	}
	for _, d := range []string{s.Current, s.Pending, s.LastGood, s.Trust} {
		if d != "" && !digestRE.MatchString(d) {
			return slots{}, errors.New("slots: not a digest")
		}
	}
	if len(s.Rejected) > maxRejected {
		s.Rejected = s.Rejected[len(s.Rejected)-maxRejected:]
	}
	return s, nil
}

func openFloor(publicKey, node string, data []byte) (floorFile, error) {
	var f floorFile
	if err := open(publicKey, kindFloor, data, &f); err != nil {
		return floorFile{}, err
	}
	if f.Node != node {
		return floorFile{}, fmt.Errorf("floor of node %.80q; this is %q", f.Node, node)
	}
	return f, nil
}

// higher returns the higher floor; of equal ones the first that knows its digest, and of those
// of one digest the one that knows what it grants: older agents did not note it.
func higher(a, b verify.Floor) verify.Floor {
	if b.Generation > a.Generation || b.Generation == a.Generation && (a.Digest == "" || b.Digest == a.Digest && a.Remote == nodestate.Remote{}) {
		return b
	}
	return a
}
