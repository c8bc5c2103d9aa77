package trust

import (
	"crypto"
	"fmt"
	"slices"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// expires is the last second that RFC 3339 can write: TUF demands the field, nothing reads it.
var expires = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// Draft is a root document on its way to enough signatures. Several persons sign
// it one after the other: each reads it with [ParseDraft], signs, and hands on
// [Draft.Bytes]. With enough signatures the same bytes are the document.
type Draft struct {
	meta *metadata.Metadata[metadata.RootType]
}

// New drafts the first document: root keys of which threshold must agree to change
// trust, and the keys that may sign states. Keys are *ecdsa.PublicKey on P-256.
func New(rootKeys []crypto.PublicKey, threshold int, signers []crypto.PublicKey) (*Draft, error) {
	m := metadata.Root(expires)
	return draft(m, Change{AddRoots: rootKeys, AddSigners: signers, Threshold: threshold})
}

// Change is what differs between a document and the next.
type Change struct {
	AddRoots, RemoveRoots     []crypto.PublicKey
	AddSigners, RemoveSigners []crypto.PublicKey
	Threshold                 int // of root keys; 0 keeps it
}

// Rotate drafts the document after r.
func (r *Root) Rotate(c Change) (*Draft, error) {
	m, err := decode(r.doc) // a deep copy
	if err != nil {
		return nil, err
	}
	m.ClearSignatures()
	m.Signed.Version++
	m.Signed.SpecVersion = metadata.SPECIFICATION_VERSION
	return draft(m, c)
}

func draft(m *metadata.Metadata[metadata.RootType], c Change) (*Draft, error) {
	for role, keys := range map[string][]crypto.PublicKey{metadata.ROOT: c.RemoveRoots, metadata.TARGETS: c.RemoveSigners} {
		for _, pub := range keys {
			if err := remove(m, role, pub); err != nil {
				return nil, fmt.Errorf("draft root document: remove a key of role %s: %w", role, err)
			}
		}
	}
	for role, keys := range map[string][]crypto.PublicKey{metadata.ROOT: c.AddRoots, metadata.TARGETS: c.AddSigners} {
		for _, pub := range keys {
			if err := add(m, role, pub); err != nil {
				return nil, fmt.Errorf("draft root document: add a key to role %s: %w", role, err)
			}
		}
	}
	root := m.Signed.Roles[metadata.ROOT]
	if c.Threshold != 0 {
		root.Threshold = c.Threshold
	}
	for _, name := range []string{metadata.SNAPSHOT, metadata.TIMESTAMP} {
		m.Signed.Roles[name] = &metadata.Role{KeyIDs: slices.Clone(root.KeyIDs), Threshold: root.Threshold}
	}
	if err := check(m); err != nil {
		return nil, fmt.Errorf("draft root document: %w", err)
	}
	return &Draft{meta: m}, nil
}

func add(m *metadata.Metadata[metadata.RootType], role string, pub crypto.PublicKey) error {
	key, err := keyOf(pub)
	if err != nil {
		return err
	}
	r := m.Signed.Roles[role]
	i, found := slices.BinarySearch(r.KeyIDs, key.ID())
	if found {
		return fmt.Errorf("key %.16s is there already", key.ID())
	}
	r.KeyIDs = slices.Insert(r.KeyIDs, i, key.ID())
	m.Signed.Keys[key.ID()] = key
	return nil
}

func remove(m *metadata.Metadata[metadata.RootType], role string, pub crypto.PublicKey) error {
	key, err := keyOf(pub)
	if err != nil {
		return err
	}
	r := m.Signed.Roles[role]
	i := slices.Index(r.KeyIDs, key.ID())
	if i < 0 {
		return fmt.Errorf("key %.16s is not there", key.ID())
	}
	r.KeyIDs = slices.Delete(r.KeyIDs, i, i+1)
	delete(m.Signed.Keys, key.ID()) // no key has two roles
	return nil
}

func keyOf(pub crypto.PublicKey) (*metadata.Key, error) {
	ec, err := p256(pub)
	if err != nil {
		return nil, err
	}
	return metadata.KeyFromPublicKey(ec)
}

// ParseDraft reads a draft with as many signatures as it has by now. It proves nothing.
func ParseDraft(doc []byte) (*Draft, error) {
	m, err := decode(doc)
	if err != nil {
		return nil, err
	}
	return &Draft{meta: m}, nil
}

// Version returns the number that the document will have.
func (d *Draft) Version() int64 { return d.meta.Signed.Version }

// Sign adds a signature. A rotation needs those of the predecessor's root keys too,
// so any key may sign but the ones that sign states.
func (d *Draft) Sign(key signature.Signer) error {
	pub, err := key.PublicKey()
	if err != nil {
		return fmt.Errorf("sign root document %d: %w", d.Version(), err)
	}
	k, err := keyOf(pub)
	if err != nil {
		return fmt.Errorf("sign root document %d: %w", d.Version(), err)
	}
	if slices.Contains(d.meta.Signed.Roles[metadata.TARGETS].KeyIDs, k.ID()) {
		return fmt.Errorf("sign root document %d: key %.16s signs states; sign with a root key", d.Version(), k.ID())
	}
	if slices.ContainsFunc(d.meta.Signatures, func(s metadata.Signature) bool { return s.KeyID == k.ID() }) {
		return fmt.Errorf("sign root document %d: key %.16s has signed already", d.Version(), k.ID())
	}
	if _, err := d.meta.Sign(key); err != nil {
		return fmt.Errorf("sign root document %d: %w", d.Version(), err)
	}
	return nil
}

// Bytes returns the draft's bytes, the document itself once it has enough signatures.
func (d *Draft) Bytes() ([]byte, error) { return encode(d.meta) }

// Check says what a draft still lacks; previous is nil for the first document.
// Nil means that Parse, and previous.Next, accept it.
func (d *Draft) Check(previous *Root) error {
	doc, err := d.Bytes()
	if err != nil {
		return err
	}
	if previous == nil {
		_, err = Parse(doc)
	} else {
		_, err = previous.Next(doc)
	}
	return err
}

// valid counts the signatures on m that root keys of by made.
func valid(by, m *metadata.Metadata[metadata.RootType]) int {
	n := 0
	for _, id := range by.Signed.Roles[metadata.ROOT].KeyIDs {
		one := &metadata.Metadata[metadata.RootType]{Signed: metadata.RootType{
			Keys:  map[string]*metadata.Key{id: by.Signed.Keys[id]},
			Roles: map[string]*metadata.Role{metadata.ROOT: {KeyIDs: []string{id}, Threshold: 1}},
		}}
		if one.VerifyDelegate(metadata.ROOT, m) == nil {
			n++
		}
	}
	return n
}
