package verify

import (
	"bytes"
	"encoding/json"
	"errors"

	"selvedge/internal/sealed"
	"selvedge/schema/nodestate"
)

// recordKind is what the node's key seals an acceptance as.
const recordKind = "selvedge accepted state v1"

// acceptance is this node's own statement that it verified a state. It is one line of
// JSON, sealed, and the signed manifest follows it.
type acceptance struct {
	Node       string `json:"node"`
	PublicKey  string `json:"publicKey"`
	Generation int64  `json:"generation"`
	Digest     string `json:"digest"` // of the state's manifest
	Signed     string `json:"signed"` // digest of the signed manifest that follows
	Signer     string `json:"signer"`
}

// Record returns the state with this node's sealed acceptance of it, for FromRecord.
func (s State) Record(key sealed.Signer) ([]byte, error) {
	if s.IsZero() {
		return nil, errors.New("record state: there is none")
	}
	a := acceptance{s.Desired().Node, key.Public(), s.Generation(), s.Digest(), nodestate.Digest(s.Raw()), s.Signer()}
	if a.PublicKey != s.Desired().Identity.PublicKey {
		return nil, errors.New("record state: it is for another node's key")
	}
	line, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	rec, err := sealed.Seal(key, recordKind, line)
	if err != nil {
		return nil, err
	}
	rec = append(rec, '\n')
	return append(rec, s.Raw()...), nil
}

// FromRecord returns the state of a record that the node's own key sealed. Everything
// is checked again but for the signature, which the record stands for, and for floor and
// rejections, which the caller keeps: the signer may have been revoked since.
func FromRecord(record []byte, node, publicKey string) (State, error) {
	s, err := fromRecord(record, node, publicKey)
	if err != nil {
		return State{}, err
	}
	return State{s}, nil
}

func fromRecord(record []byte, node, publicKey string) (*state, *Error) {
	seal, rest, _ := bytes.Cut(record, []byte{'\n'})
	line, signed, ok := bytes.Cut(rest, []byte{'\n'})
	if !ok {
		return nil, refuse(Forged, "record: cut short")
	}
	if _, err := sealed.Open(publicKey, recordKind, record[:len(seal)+1+len(line)]); err != nil {
		return nil, refuse(Forged, "record: %w", err)
	}
	var a acceptance
	if err := unmarshal(line, &a); err != nil {
		return nil, refuse(Malformed, "record: %w", err)
	}
	if a.Node != node || a.PublicKey != publicKey {
		return nil, refuse(OtherNode, "record: accepted as node %.80q; this is %q", a.Node, node)
	}
	about := func(e *Error) (*state, *Error) {
		e.Generation, e.Digest = a.Generation, a.Digest
		return nil, e
	}
	if nodestate.Digest(signed) != a.Signed {
		return about(refuse(Tampered, "record: the state after it is not the one that was accepted"))
	}
	u, bad := unpack(signed)
	if bad != nil {
		return about(bad)
	}
	if u.ManifestDigest != a.Digest {
		return about(refuse(Tampered, "record: another manifest than the accepted one"))
	}
	s, bad := Verifier{Node: node, PublicKey: publicKey}.open(u, claim{a.Digest, a.Node, a.Generation, a.Signer})
	if bad != nil {
		return about(bad)
	}
	s.raw = signed
	return s, nil
}
