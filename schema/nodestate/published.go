package nodestate

import (
	"crypto/sha256"
	"encoding/hex"
)

// Media types of the published form.
const (
	MediaTypeManifest = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeEmpty    = "application/vnd.oci.empty.v1+json"
	ArtifactType      = "application/vnd.selvedge.node-state.v1"
	MediaTypeState    = "application/vnd.selvedge.node-state.v1+json+zstd"
	MediaTypeBundle   = "application/vnd.dev.sigstore.bundle.v0.3+json"
	ArtifactTypeTrust = "application/vnd.selvedge.trust.v1"
	MediaTypeRoot     = "application/vnd.selvedge.trust.root.v1+json" // a TUF root document
)

// What a signature states, as cosign writes it: a DSSE envelope around an in-toto statement.
const (
	PayloadTypeInToto = "application/vnd.in-toto+json"
	StatementType     = "https://in-toto.io/Statement/v1"
	PredicateType     = "https://sigstore.dev/cosign/sign/v1"
)

// Annotations of a state's manifest; node and generation are those of the signed subject too.
const (
	AnnotationNode       = "dev.selvedge.node"
	AnnotationGeneration = "dev.selvedge.generation" // decimal, see Generation
	AnnotationCommit     = "dev.selvedge.commit"     // hex
	AnnotationCreated    = "org.opencontainers.image.created"
	SubjectNode          = "node"
	SubjectGeneration    = "generation"
)

// Tags of a node's repository and of the trust repository.
const (
	TagDesired = "desired" // the state's manifest
	TagSigned  = "signed"  // its signature's manifest with everything inlined
	TagTrust   = "latest"  // all root documents, oldest first
)

// Bounds that both sides keep.
const (
	MaxStateSize    = 4 << 20  // canonical bytes of a state
	MaxManifestSize = 16 << 20 // a signed manifest with everything inlined: base64 twice
	MaxTrustSize    = 4 << 20  // the trust manifest, or one blob of it
)

// Descriptor is an OCI content descriptor; Data inlines the content itself.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	Data         []byte            `json:"data,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// Manifest is an OCI image manifest (image-spec v1.1).
type Manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        Descriptor        `json:"config"`
	Layers        []Descriptor      `json:"layers"`
	Subject       *Descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// Digest returns the OCI digest of b: "sha256:" and 64 hex digits.
func Digest(b []byte) string {
	s := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(s[:])
}

// Describe returns the descriptor of content; inline puts the content into it.
func Describe(mediaType string, content []byte, inline bool) Descriptor {
	d := Descriptor{MediaType: mediaType, Digest: Digest(content), Size: int64(len(content))}
	if inline {
		d.Data = content
	}
	return d
}
