package sign

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"selvedge/schema/nodestate"
)

// Meta is what the manifest of a state says about it; the signature covers it.
type Meta struct {
	Node       string
	Generation int64     // 1–2^53, see nodestate.NextGeneration
	Commit     string    // hex; empty: none is named
	Created    time.Time // zero: left out
}

// statement is an in-toto statement v1 (https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md).
type statement struct {
	Type          string    `json:"_type"`
	Subject       []subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     struct{}  `json:"predicate"`
}

type subject struct {
	Digest      map[string]string `json:"digest"`
	Annotations map[string]string `json:"annotations"`
}

// bundle is a sigstore bundle v0.3 in protobuf's JSON form.
type bundle struct {
	MediaType            string       `json:"mediaType"`
	VerificationMaterial verification `json:"verificationMaterial"`
	Envelope             envelope     `json:"dsseEnvelope"`
}

type verification struct {
	PublicKey struct {
		Hint string `json:"hint"`
	} `json:"publicKey"`
}

type envelope struct {
	Payload     []byte         `json:"payload"`
	PayloadType string         `json:"payloadType"`
	Signatures  []envelopeSign `json:"signatures"`
}

type envelopeSign struct {
	Sig []byte `json:"sig"`
}

// Annotations that cosign puts on a bundle's manifest.
const (
	annotationContent   = "dev.sigstore.bundle.content"
	annotationPredicate = "dev.sigstore.bundle.predicateType"
)

// Sign signs the canonical bytes of a state. The same content and meta give the same
// manifest digest; the signature differs each time.
func (s *Signer) Sign(content []byte, m Meta) (nodestate.Artifact, error) {
	if err := m.check(content); err != nil {
		return nodestate.Artifact{}, fmt.Errorf("sign state of node %q: %w", m.Node, err)
	}
	signed, err := s.sign(content, m)
	if err != nil {
		return nodestate.Artifact{}, fmt.Errorf("sign state of node %q: %w", m.Node, err)
	}
	return nodestate.Artifact{Node: m.Node, Generation: m.Generation, ContentDigest: nodestate.Digest(content), Signed: signed}, nil
}

func (m *Meta) check(content []byte) error {
	if !nodestate.ValidNode(m.Node) {
		return errors.New("not a node name")
	}
	if m.Generation < 1 || m.Generation > nodestate.MaxGeneration {
		return fmt.Errorf("generation %d is not in 1–2^53", m.Generation)
	}
	if len(m.Commit) > 64 || strings.Trim(m.Commit, "0123456789abcdef") != "" {
		return fmt.Errorf("commit %.80q is not hexadecimal", m.Commit)
	}
	if len(content) == 0 || len(content) > nodestate.MaxStateSize {
		return fmt.Errorf("%d bytes; a state has 1–%d", len(content), nodestate.MaxStateSize)
	}
	return nil
}

func (s *Signer) sign(content []byte, m Meta) ([]byte, error) {
	empty := nodestate.Describe(nodestate.MediaTypeEmpty, []byte(nodestate.EmptyContent), true)
	layer := s.encoder.EncodeAll(content, make([]byte, 0, len(content)/2))
	annotations := map[string]string{
		nodestate.AnnotationNode:       m.Node,
		nodestate.AnnotationGeneration: strconv.FormatInt(m.Generation, 10),
	}
	if m.Commit != "" {
		annotations[nodestate.AnnotationCommit] = m.Commit
	}
	if !m.Created.IsZero() {
		annotations[nodestate.AnnotationCreated] = m.Created.UTC().Format(time.RFC3339)
	}
	manifest, err := json.Marshal(nodestate.Manifest{
		SchemaVersion: 2, MediaType: nodestate.MediaTypeManifest, ArtifactType: nodestate.ArtifactType,
		Config: empty, Layers: []nodestate.Descriptor{nodestate.Describe(nodestate.MediaTypeState, layer, true)},
		Annotations: annotations,
	})
	if err != nil {
		return nil, err
	}
	about := nodestate.Describe(nodestate.MediaTypeManifest, manifest, true)
	b, err := s.bundle(about.Digest, m)
	if err != nil {
		return nil, err
	}
	return json.Marshal(nodestate.Manifest{
		SchemaVersion: 2, MediaType: nodestate.MediaTypeManifest, ArtifactType: nodestate.MediaTypeBundle,
		Config: empty, Layers: []nodestate.Descriptor{nodestate.Describe(nodestate.MediaTypeBundle, b, true)},
		Subject:     &about,
		Annotations: map[string]string{annotationContent: "dsse-envelope", annotationPredicate: nodestate.PredicateType},
	})
}

// bundle signs a statement about a manifest.
func (s *Signer) bundle(digest string, m Meta) ([]byte, error) {
	payload, err := json.Marshal(statement{
		Type: nodestate.StatementType, PredicateType: nodestate.PredicateType,
		Subject: []subject{{
			Digest: map[string]string{"sha256": strings.TrimPrefix(digest, "sha256:")},
			Annotations: map[string]string{
				nodestate.SubjectNode: m.Node, nodestate.SubjectGeneration: strconv.FormatInt(m.Generation, 10),
			},
		}},
	})
	if err != nil {
		return nil, err
	}
	sig, err := s.key.SignMessage(bytes.NewReader(pae(nodestate.PayloadTypeInToto, payload)))
	if err != nil {
		return nil, err
	}
	b := bundle{
		MediaType: nodestate.MediaTypeBundle,
		Envelope:  envelope{Payload: payload, PayloadType: nodestate.PayloadTypeInToto, Signatures: []envelopeSign{{Sig: sig}}},
	}
	b.VerificationMaterial.PublicKey.Hint = s.hint
	return json.Marshal(b)
}

// pae is DSSE's pre-authentication encoding (https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md).
func pae(payloadType string, payload []byte) []byte {
	b := fmt.Appendf(make([]byte, 0, len(payload)+64), "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload))
	return append(b, payload...)
}
