package verify

import (
	"errors"
	"fmt"
	"strings"

	"github.com/klauspost/compress/zstd"

	"selvedge/schema/nodestate"
	"selvedge/schema/trust"
)

// Verifier holds what a state is checked against.
type Verifier struct {
	Node      string
	PublicKey string      // nkey of this node, U…
	Root      *trust.Root // the newest root document that the chain of trust reached
}

// Verify accepts a signed manifest, or returns an *Error. rejected tells whether the
// digest of a manifest failed on this node before; nil means that none did.
func (v Verifier) Verify(signed []byte, floor Floor, rejected func(digest string) bool) (State, error) {
	s, err := v.verify(signed, floor, rejected)
	if err != nil { // a nil *Error is no nil error
		return State{}, err
	}
	return State{s}, nil
}

func (v Verifier) verify(signed []byte, floor Floor, rejected func(string) bool) (*state, *Error) {
	u, bad := unpack(signed)
	if bad != nil {
		return nil, bad
	}
	c, bad := signedBy(v.Root, u.Bundle)
	if bad != nil {
		return nil, bad
	}
	about := func(e *Error) (*state, *Error) {
		e.Generation, e.Digest = c.generation, c.digest
		return nil, e
	}
	if u.ManifestDigest != c.digest {
		return about(refuse(Tampered, "the signature is about manifest %s, not %s beside it", c.digest, u.ManifestDigest))
	}
	if c.node != v.Node {
		return about(refuse(OtherNode, "signed for node %.80q; this is %q", c.node, v.Node))
	}
	// before the content is unpacked: an old state may be one that was dangerous
	if c.generation < floor.Generation {
		return about(refuse(Rollback, "generation %d was seen here already", floor.Generation))
	}
	if c.generation == floor.Generation && c.digest != floor.Digest {
		return about(refuse(Rollback, "generation %d was seen here as %s, and comes now as %s", c.generation, floor.Digest, c.digest))
	}
	if rejected != nil && rejected(c.digest) {
		return about(refuse(Rejected, "it failed on this node before"))
	}
	s, bad := v.open(u, c)
	if bad != nil {
		return about(bad)
	}
	s.raw = signed
	return s, nil
}

// open holds manifest and content against the claim about them, whose digest is the manifest's.
func (v Verifier) open(u *nodestate.Unpacked, c claim) (*state, *Error) {
	if u.Node != c.node || u.Generation != c.generation {
		return nil, refuse(Tampered, "the manifest is of node %q and generation %d, its signature of node %q and generation %d", u.Node, u.Generation, c.node, c.generation)
	}
	content, err := decompress(u.Layer)
	if err != nil {
		return nil, refuse(Malformed, "layer: %w", err)
	}
	desired, err := nodestate.Decode(content)
	if err != nil {
		return nil, refuse(Unknown, "%w", err)
	}
	if desired.Node != v.Node {
		return nil, refuse(OtherNode, "the content is of node %q; this is %q", desired.Node, v.Node)
	}
	if desired.Identity.PublicKey != v.PublicKey {
		return nil, refuse(OtherNode, "made for the key %s; this node's is %s", desired.Identity.PublicKey, v.PublicKey)
	}
	return &state{
		desired: desired, generation: c.generation, digest: c.digest, contentDigest: nodestate.Digest(content),
		commit: u.Inner.Annotations[nodestate.AnnotationCommit], created: u.Inner.Annotations[nodestate.AnnotationCreated], signer: c.signer,
	}, nil
}

// unpack takes a signed manifest apart; nothing about the parts is proven.
func unpack(signed []byte) (*nodestate.Unpacked, *Error) {
	u, err := nodestate.Unpack(signed)
	switch {
	case errors.Is(err, nodestate.ErrMismatch):
		return nil, refuse(Tampered, "%w", err)
	case err != nil:
		return nil, refuse(Malformed, "%w", err)
	}
	// The manifests' readers take the last of two equal names; others may take the first.
	for _, b := range [][]byte{signed, u.Manifest} {
		if err := unambiguous(b); err != nil {
			return nil, refuse(Malformed, "signed manifest: %w", err)
		}
	}
	return u, nil
}

// decompress is bounded in memory and in output, whatever the frames announce.
func decompress(b []byte) ([]byte, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(nodestate.MaxStateSize), zstd.WithDecoderMaxWindow(nodestate.MaxStateSize*2))
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	out, err := dec.DecodeAll(b, nil)
	if err != nil {
		return nil, fmt.Errorf("decompress: %s", strings.TrimPrefix(err.Error(), "zstd: "))
	}
	return out, nil
}
