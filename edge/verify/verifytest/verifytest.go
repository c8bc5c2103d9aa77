// Package verifytest makes signed states for tests, with real keys.
//
// It signs as the cloud does, piece by piece, so that a test can also put pieces
// together that do not belong together. Only tests import it.
package verifytest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nkeys"
	"github.com/sigstore/sigstore/pkg/signature"

	"selvedge/edge/verify"
	"selvedge/schema/nodestate"
	"selvedge/schema/trust"
)

// State returns a verified state of that generation. What desired leaves empty is filled
// in: API version, engine, node "gw-1", workspace, and a fresh identity.
func State(t testing.TB, desired nodestate.State, generation int64) verify.State {
	t.Helper()
	if desired.Identity.PublicKey == "" {
		desired.Identity.PublicKey = NewKey(t).Public()
	}
	desired = Fill(desired)
	cloud := NewCloud(t)
	s, err := cloud.Verifier(desired).Verify(cloud.Sign(t, desired, generation), verify.Floor{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Fill fills in what a test left empty, but for the identity.
func Fill(s nodestate.State) nodestate.State {
	if s.APIVersion == "" {
		s.APIVersion = nodestate.APIVersion
	}
	if s.Engine == 0 {
		s.Engine = nodestate.Engine
	}
	if s.Node == "" {
		s.Node = "gw-1"
	}
	if s.Workspace == "" {
		s.Workspace = "folders/plant-a/line-1"
	}
	return s
}

// Key is a node's key.
type Key struct {
	pair   nkeys.KeyPair
	public string
}

// NewKey makes a node's key.
func NewKey(t testing.TB) *Key {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return &Key{pair, public}
}

// Public returns the public half.
func (k *Key) Public() string { return k.public }

// Sign returns a signature of a message.
func (k *Key) Sign(message []byte) ([]byte, error) { return k.pair.Sign(message) }

// Cloud holds the keys that nodes trust.
type Cloud struct {
	Root *trust.Root // the newest document
	Docs [][]byte    // all documents, oldest first
	Key  *ecdsa.PrivateKey

	rootKey *ecdsa.PrivateKey
}

// NewCloud makes a root key, a signing key, and the first root document.
func NewCloud(t testing.TB) *Cloud {
	t.Helper()
	c := &Cloud{Key: NewSigningKey(t), rootKey: NewSigningKey(t)}
	d, err := trust.New([]crypto.PublicKey{c.rootKey.Public()}, 1, []crypto.PublicKey{c.Key.Public()})
	c.adopt(t, d, err)
	return c
}

// Rotate replaces the signing key by a fresh one in the next root document.
func (c *Cloud) Rotate(t testing.TB) {
	t.Helper()
	key := NewSigningKey(t)
	d, err := c.Root.Rotate(trust.Change{AddSigners: []crypto.PublicKey{key.Public()}, RemoveSigners: []crypto.PublicKey{c.Key.Public()}})
	c.Key = key
	c.adopt(t, d, err)
}

func (c *Cloud) adopt(t testing.TB, d *trust.Draft, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	s, err := signature.LoadECDSASigner(c.rootKey, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Sign(s); err != nil {
		t.Fatal(err)
	}
	doc, err := d.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if c.Root == nil {
		c.Root, err = trust.Parse(doc)
	} else {
		c.Root, err = c.Root.Next(doc)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.Docs = append(c.Docs, doc)
}

// Verifier returns the verifier of the node that the state is for.
func (c *Cloud) Verifier(s nodestate.State) verify.Verifier {
	return verify.Verifier{Node: s.Node, PublicKey: s.Identity.PublicKey, Root: c.Root}
}

// Sign returns the signed manifest of a state.
func (c *Cloud) Sign(t testing.TB, desired nodestate.State, generation int64) []byte {
	t.Helper()
	content, err := desired.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	m := Marshal(t, Manifest(desired.Node, generation, Compress(t, content)))
	st := Marshal(t, Statement(nodestate.Digest(m), desired.Node, generation))
	return Marshal(t, Signed(Marshal(t, Bundle(t, c.Key, nodestate.PayloadTypeInToto, st)), m))
}

// NewSigningKey makes an ECDSA P-256 key.
func NewSigningKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Compress returns a state's layer.
func Compress(t testing.TB, content []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	return enc.EncodeAll(content, nil)
}

// Manifest returns a state's manifest with its layer inlined.
func Manifest(node string, generation int64, layer []byte) nodestate.Manifest {
	return nodestate.Manifest{
		SchemaVersion: 2, MediaType: nodestate.MediaTypeManifest, ArtifactType: nodestate.ArtifactType,
		Config: nodestate.Describe(nodestate.MediaTypeEmpty, []byte("{}"), true),
		Layers: []nodestate.Descriptor{nodestate.Describe(nodestate.MediaTypeState, layer, true)},
		Annotations: map[string]string{
			nodestate.AnnotationNode: node, nodestate.AnnotationGeneration: strconv.FormatInt(generation, 10),
			nodestate.AnnotationCommit: fmt.Sprintf("%040x", generation), nodestate.AnnotationCreated: "2026-01-02T03:04:05Z",
		},
	}
}

// Statement returns the in-toto statement about a manifest.
func Statement(digest, node string, generation int64) map[string]any {
	return map[string]any{
		"_type": nodestate.StatementType, "predicateType": nodestate.PredicateType, "predicate": map[string]any{},
		"subject": []any{map[string]any{
			"digest":      map[string]string{"sha256": digest[len("sha256:"):]},
			"annotations": map[string]string{nodestate.SubjectNode: node, nodestate.SubjectGeneration: strconv.FormatInt(generation, 10)},
		}},
	}
}

// Bundle returns the sigstore bundle of a payload, signed.
func Bundle(t testing.TB, key *ecdsa.PrivateKey, payloadType string, payload []byte) map[string]any {
	t.Helper()
	var pae bytes.Buffer
	fmt.Fprintf(&pae, "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload))
	pae.Write(payload)
	sum := sha256.Sum256(pae.Bytes())
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{
		"mediaType":            nodestate.MediaTypeBundle,
		"verificationMaterial": map[string]any{"publicKey": map[string]any{"hint": Hint(t, key)}},
		"dsseEnvelope":         map[string]any{"payload": payload, "payloadType": payloadType, "signatures": []any{map[string]any{"sig": sig}}},
	}
}

// Hint returns how a bundle names the key that signed it.
func Hint(t testing.TB, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Signed returns the manifest of a bundle with bundle and state's manifest inlined.
func Signed(bundle, manifest []byte) nodestate.Manifest {
	subject := nodestate.Describe(nodestate.MediaTypeManifest, manifest, true)
	return nodestate.Manifest{
		SchemaVersion: 2, MediaType: nodestate.MediaTypeManifest, ArtifactType: nodestate.MediaTypeBundle,
		Config:  nodestate.Describe(nodestate.MediaTypeEmpty, []byte("{}"), true),
		Layers:  []nodestate.Descriptor{nodestate.Describe(nodestate.MediaTypeBundle, bundle, true)},
		Subject: &subject,
	}
}

// Marshal returns v as JSON.
func Marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
