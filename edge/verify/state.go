package verify

import "selvedge/schema/nodestate"

// State is a state that this node accepts. Only this package makes one; the zero
// value is none. It never changes.
type State struct{ s *state }

type state struct {
	desired       *nodestate.State
	generation    int64
	digest        string // of the state's manifest
	contentDigest string // of the canonical bytes
	commit        string
	created       string
	signer        string // hint of the key that signed
	raw           []byte
}

var none state

func (s State) get() *state {
	if s.s == nil {
		return &none
	}
	return s.s
}

// IsZero reports whether s is no state at all.
func (s State) IsZero() bool { return s.s == nil }

// Desired returns what the node should run. Its lists and maps are shared: read them only.
func (s State) Desired() nodestate.State {
	if d := s.get().desired; d != nil {
		return *d
	}
	return nodestate.State{}
}

// Generation returns the signed generation.
func (s State) Generation() int64 { return s.get().generation }

// Digest returns the digest of the state's manifest, which is what was signed.
func (s State) Digest() string { return s.get().digest }

// ContentDigest returns the digest of the canonical bytes: two states of the same
// content digest ask for the same.
func (s State) ContentDigest() string { return s.get().contentDigest }

// Commit returns the commit of the config repo that the state was rendered from, in hex.
func (s State) Commit() string { return s.get().commit }

// Created returns when the manifest was made, in RFC 3339, as the cloud's clock had it.
func (s State) Created() string { return s.get().created }

// Signer returns the hint of the key that signed: base64 of the SHA-256 of its SPKI DER.
func (s State) Signer() string { return s.get().signer }

// Raw returns the signed manifest as it was verified. Read it only.
func (s State) Raw() []byte { return s.get().raw }

// Floor returns the floor that the state makes.
func (s State) Floor() Floor { return Floor{s.Generation(), s.Digest(), s.Desired().Remote} }

// Floor is the highest generation that this node ever verified, with the digest of its
// manifest and what it grants: more than that no older state may, though it runs. The zero
// value is below every state.
type Floor struct {
	Generation int64            `json:"generation"`
	Digest     string           `json:"digest,omitempty"`
	Remote     nodestate.Remote `json:"remote,omitzero"`
}
