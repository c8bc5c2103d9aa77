package verify

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"selvedge/schema/nodestate"
	"selvedge/schema/trust"
)

// bundle is a sigstore bundle v0.3 as cosign makes it with a key pair and without a log
// (https://docs.sigstore.dev/about/bundle/).
type bundle struct {
	MediaType            string `json:"mediaType"`
	VerificationMaterial struct {
		PublicKey struct {
			Hint string `json:"hint"`
		} `json:"publicKey"`
	} `json:"verificationMaterial"`
	Envelope struct { // DSSE v1
		Payload     []byte `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			Sig   []byte `json:"sig"`
			KeyID string `json:"keyid,omitempty"` // a hint that DSSE does not sign, and nothing reads
		} `json:"signatures"`
	} `json:"dsseEnvelope"`
}

// statement is an in-toto statement v1.
type statement struct {
	Type          string          `json:"_type"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
	Subject       []struct {
		Name        string            `json:"name,omitempty"`
		Digest      map[string]string `json:"digest"`
		Annotations map[string]string `json:"annotations"`
	} `json:"subject"`
}

// claim is what a listed key signed.
type claim struct {
	digest     string // of the state's manifest
	node       string
	generation int64
	signer     string
}

// maxBundle bounds a bundle and the statement in it; ours have 1 KB.
const maxBundle = 64 << 10

// signedBy returns the claim of a bundle if a key that root lists signed it.
func signedBy(root *trust.Root, raw []byte) (claim, *Error) {
	var c claim
	if root == nil {
		return c, refuse(NoRoot, "this node has no root of trust")
	}
	if len(raw) > maxBundle {
		return c, refuse(Malformed, "bundle: %d bytes, more than %d", len(raw), maxBundle)
	}
	var b bundle
	if err := unmarshal(raw, &b); err != nil {
		return c, refuse(Malformed, "bundle: %w", err)
	}
	if b.MediaType != nodestate.MediaTypeBundle {
		return c, refuse(Malformed, "bundle: media type %.80q, want %q", b.MediaType, nodestate.MediaTypeBundle)
	}
	if n := len(b.Envelope.Signatures); n != 1 {
		return c, refuse(Malformed, "bundle: %d signatures, want one", n)
	}
	c.signer = b.VerificationMaterial.PublicKey.Hint
	var key *ecdsa.PublicKey
	for _, s := range root.Signers() {
		if s.Hint == c.signer {
			key = s.Public
		}
	}
	if key == nil {
		return c, refuse(WrongKey, "key %.44q may not sign states by root document %d", c.signer, root.Version())
	}
	e := &b.Envelope
	if e.PayloadType != nodestate.PayloadTypeInToto {
		return c, refuse(Malformed, "bundle: payload type %.80q, want %q", e.PayloadType, nodestate.PayloadTypeInToto)
	}
	sum := sha256.Sum256(pae(e.PayloadType, e.Payload))
	if !ecdsa.VerifyASN1(key, sum[:], e.Signatures[0].Sig) {
		return c, refuse(Tampered, "the signature in the bundle is not one of key %s over its statement", c.signer)
	}
	bad := c.read(e.Payload)
	return c, bad
}

// pae is DSSE's pre-authentication encoding, so that a signature over a payload of one
// type is none over the same bytes as another (https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md).
func pae(payloadType string, payload []byte) []byte {
	b := fmt.Appendf(make([]byte, 0, len(payload)+64), "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload))
	return append(b, payload...)
}

// read takes the claim from a statement whose signature was checked.
func (c *claim) read(payload []byte) *Error {
	var st statement
	if err := unmarshal(payload, &st); err != nil {
		return refuse(Malformed, "statement: %w", err)
	}
	if st.Type != nodestate.StatementType || st.PredicateType != nodestate.PredicateType {
		return refuse(Malformed, "statement: type %.80q, predicate type %.80q: the key signed something else", st.Type, st.PredicateType)
	}
	if n := len(st.Subject); n != 1 {
		return refuse(Malformed, "statement: %d subjects, want one", n)
	}
	sub := st.Subject[0]
	if len(sub.Digest) != 1 || len(sub.Digest["sha256"]) != 64 {
		return refuse(Malformed, "statement: the subject's digest is not one SHA-256")
	}
	c.digest = "sha256:" + sub.Digest["sha256"]
	c.node = sub.Annotations[nodestate.SubjectNode]
	if c.node == "" {
		return refuse(Malformed, "statement: the subject names no node: an image's signature, not a state's")
	}
	var err error
	if c.generation, err = nodestate.ParseGeneration(sub.Annotations[nodestate.SubjectGeneration]); err != nil {
		return refuse(Malformed, "statement: %w", err)
	}
	return nil
}
