package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"selvedge/schema/nodestate"
)

// Bounds of what is read.
const (
	MaxSize      = 256 << 10 // bytes of one document
	MaxKeys      = 64        // keys of one document, and signatures on it
	MaxDocuments = 1024      // documents in one walk
	maxVersion   = 1 << 31
)

// Errors that callers tell apart.
var (
	ErrMalformed = errors.New("malformed root document")
	ErrUnsigned  = errors.New("not enough valid signatures")
	ErrVersion   = errors.New("wrong version")
)

// Root is a root document whose signatures were checked. It never changes.
type Root struct {
	meta *metadata.Metadata[metadata.RootType]
	doc  []byte
}

// Signer is a public key as a document lists it.
type Signer struct {
	Public *ecdsa.PublicKey
	Hint   string // base64 of the SHA-256 of the key's SPKI DER, as sigstore bundles carry it
	ID     string // TUF's key ID: hex of the SHA-256 of the key's canonical JSON
}

// Parse checks a document and the signatures of its own root keys. Whether to
// believe those keys is not decided here: compare the fingerprint with a pinned
// one, or come from an earlier document by [Root.Next].
func Parse(doc []byte) (*Root, error) {
	m, err := decode(doc)
	if err != nil {
		return nil, err
	}
	if err := m.VerifyDelegate(metadata.ROOT, m); err != nil {
		return nil, fmt.Errorf("root document %d: %w of its own root keys: %d valid, %d needed",
			m.Signed.Version, ErrUnsigned, valid(m, m), m.Signed.Roles[metadata.ROOT].Threshold)
	}
	return &Root{meta: m, doc: bytes.Clone(doc)}, nil
}

// Version returns the number of the document; the first is 1.
func (r *Root) Version() int64 { return r.meta.Signed.Version }

// Bytes returns the document.
func (r *Root) Bytes() []byte { return bytes.Clone(r.doc) }

// Fingerprint returns the digest of the document's bytes: "sha256:" and 64 hex digits.
func (r *Root) Fingerprint() string { return nodestate.Digest(r.doc) }

// Threshold returns how many root keys must sign a change of trust.
func (r *Root) Threshold() int { return r.meta.Signed.Roles[metadata.ROOT].Threshold }

// Signers returns the keys that may sign states now.
func (r *Root) Signers() []Signer { return r.keys(metadata.TARGETS) }

// RootKeys returns the keys that may change trust.
func (r *Root) RootKeys() []Signer { return r.keys(metadata.ROOT) }

func (r *Root) keys(role string) []Signer {
	var out []Signer
	for _, id := range r.meta.Signed.Roles[role].KeyIDs {
		pub, der, err := publicKey(r.meta.Signed.Keys[id])
		if err != nil { // decode has read the same key
			continue
		}
		out = append(out, Signer{Public: pub, Hint: hint(der), ID: id})
	}
	return out
}

// Next returns the document that follows r: its version is one higher, and it is
// signed by enough of r's root keys and by enough of its own.
func (r *Root) Next(doc []byte) (*Root, error) {
	n, err := Parse(doc)
	if err != nil {
		return nil, err
	}
	if n.Version() != r.Version()+1 {
		return nil, fmt.Errorf("root document %d after %d: %w", n.Version(), r.Version(), ErrVersion)
	}
	if err := r.meta.VerifyDelegate(metadata.ROOT, n.meta); err != nil {
		return nil, fmt.Errorf("root document %d: %w of the root keys of version %d: %d valid, %d needed",
			n.Version(), ErrUnsigned, r.Version(), valid(r.meta, n.meta), r.Threshold())
	}
	return n, nil
}

// Walk follows documents, oldest first, from a trusted one. Documents older than
// first are skipped; one of first's own version must be first itself; from there on
// none may be missing. It never goes back. With an error it also returns the
// newest document that it reached, which is as trustworthy as without the error.
func Walk(first *Root, docs [][]byte) (*Root, error) {
	if len(docs) > MaxDocuments {
		return first, fmt.Errorf("trust: %d root documents, more than %d", len(docs), MaxDocuments)
	}
	cur := first
	for i, doc := range docs {
		m, err := decode(doc)
		if err != nil {
			return cur, fmt.Errorf("trust: document %d of %d: %w", i+1, len(docs), err)
		}
		switch v := m.Signed.Version; {
		case v < first.Version():
			continue
		case v == cur.Version():
			if !bytes.Equal(doc, cur.doc) {
				return cur, fmt.Errorf("trust: another document of version %d: %w", v, ErrVersion)
			}
		default:
			next, err := cur.Next(doc)
			if err != nil {
				return cur, fmt.Errorf("trust: %w", err)
			}
			cur = next
		}
	}
	return cur, nil
}

// decode reads a document strictly; it checks everything but signatures.
func decode(doc []byte) (*metadata.Metadata[metadata.RootType], error) {
	if len(doc) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrMalformed, len(doc), MaxSize)
	}
	if err := form(doc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	m, err := new(metadata.Metadata[metadata.RootType]).FromBytes(doc)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if err := check(m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	canonical, err := encode(m)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if !bytes.Equal(canonical, doc) {
		return nil, fmt.Errorf("%w: not in its canonical form (edited, or written by another program)", ErrMalformed)
	}
	return m, nil
}

// form checks what the library takes for granted: it panics without it. Fields are
// looked up by their exact names; decoding into a struct would also find "Signed".
func form(doc []byte) error {
	var outer, signed, keys map[string]json.RawMessage
	var signatures []json.RawMessage
	if err := json.Unmarshal(doc, &outer); err != nil {
		return err
	}
	if err := json.Unmarshal(outer["signed"], &signed); err != nil {
		return fmt.Errorf("signed: %w", err)
	}
	if string(signed["_type"]) != `"`+metadata.ROOT+`"` {
		return fmt.Errorf("signed._type is not %q", metadata.ROOT)
	}
	if err := json.Unmarshal(signed["keys"], &keys); err != nil {
		return fmt.Errorf("signed.keys: %w", err)
	}
	if err := json.Unmarshal(outer["signatures"], &signatures); err != nil {
		return fmt.Errorf("signatures: %w", err)
	}
	if len(keys) > MaxKeys || len(signatures) > MaxKeys {
		return fmt.Errorf("more than %d keys or signatures", MaxKeys)
	}
	return nil
}

// check holds the content against what the package doc promises.
func check(m *metadata.Metadata[metadata.RootType]) error {
	s := &m.Signed
	if s.Version < 1 || s.Version > maxVersion {
		return fmt.Errorf("version %d", s.Version)
	}
	if len(m.UnrecognizedFields) > 0 {
		return errors.New("unknown fields outside of the signed part")
	}
	for id, k := range s.Keys {
		if k == nil {
			return fmt.Errorf("key %.16s: null", id)
		}
		if k.ID() != id {
			return fmt.Errorf("key %.16s: the ID is not the key's", id)
		}
		if _, _, err := publicKey(k); err != nil {
			return fmt.Errorf("key %.16s: %w", id, err)
		}
	}
	if len(s.Roles) != len(metadata.TOP_LEVEL_ROLE_NAMES) {
		return errors.New("roles are not exactly root, targets, snapshot and timestamp")
	}
	for _, name := range metadata.TOP_LEVEL_ROLE_NAMES {
		role := s.Roles[name]
		if role == nil {
			return fmt.Errorf("role %s is missing", name)
		}
		if err := checkRole(role, s.Keys); err != nil {
			return fmt.Errorf("role %s: %w", name, err)
		}
	}
	root, targets := s.Roles[metadata.ROOT], s.Roles[metadata.TARGETS]
	if targets.Threshold != 1 {
		return fmt.Errorf("role targets: threshold %d; a state has one signature", targets.Threshold)
	}
	for _, id := range targets.KeyIDs {
		// a signing key is online; were it a root key too, its thief could change trust
		if slices.Contains(root.KeyIDs, id) {
			return fmt.Errorf("key %.16s is both a root and a signing key", id)
		}
	}
	for _, name := range []string{metadata.SNAPSHOT, metadata.TIMESTAMP} {
		if r := s.Roles[name]; r.Threshold != root.Threshold || !slices.Equal(r.KeyIDs, root.KeyIDs) {
			return fmt.Errorf("role %s differs from role root", name)
		}
	}
	if len(s.Keys) != len(root.KeyIDs)+len(targets.KeyIDs) {
		return errors.New("a key has no role")
	}
	return nil
}

func checkRole(r *metadata.Role, keys map[string]*metadata.Key) error {
	if len(r.UnrecognizedFields) > 0 {
		return errors.New("unknown fields")
	}
	// sorted: hence unique, and one form
	if !slices.IsSorted(r.KeyIDs) || len(slices.Compact(slices.Clone(r.KeyIDs))) != len(r.KeyIDs) {
		return errors.New("key IDs are not sorted, or repeated")
	}
	if r.Threshold < 1 || r.Threshold > len(r.KeyIDs) {
		return fmt.Errorf("threshold %d of %d keys", r.Threshold, len(r.KeyIDs))
	}
	for _, id := range r.KeyIDs {
		if keys[id] == nil {
			return fmt.Errorf("unknown key %.16s", id)
		}
	}
	return nil
}

// publicKey reads a key and refuses every spelling but one: otherwise one key
// could be listed under several IDs and reach a threshold alone.
func publicKey(k *metadata.Key) (*ecdsa.PublicKey, []byte, error) {
	if k.Type != metadata.KeyTypeECDSA_SHA2_P256 || k.Scheme != metadata.KeySchemeECDSA_SHA2_P256 {
		return nil, nil, fmt.Errorf("type %.32q, scheme %.32q: only ECDSA P-256 is supported", k.Type, k.Scheme)
	}
	if len(k.UnrecognizedFields) > 0 || len(k.Value.UnrecognizedFields) > 0 {
		return nil, nil, errors.New("unknown fields")
	}
	pub, err := k.ToPublicKey()
	if err != nil {
		return nil, nil, err
	}
	ec, err := p256(pub)
	if err != nil {
		return nil, nil, err
	}
	pem, err := cryptoutils.MarshalPublicKeyToPEM(ec)
	if err != nil {
		return nil, nil, err
	}
	if string(pem) != k.Value.PublicKey {
		return nil, nil, errors.New("the PEM block is not in its canonical form")
	}
	der, err := x509.MarshalPKIXPublicKey(ec)
	return ec, der, err
}

func p256(pub crypto.PublicKey) (*ecdsa.PublicKey, error) {
	ec, ok := pub.(*ecdsa.PublicKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, errors.New("not an ECDSA P-256 key")
	}
	return ec, nil
}

func hint(der []byte) string {
	sum := sha256.Sum256(der)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func encode(m *metadata.Metadata[metadata.RootType]) ([]byte, error) {
	b, err := m.ToBytes(true)
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}
