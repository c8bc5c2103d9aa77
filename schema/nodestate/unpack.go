package nodestate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// EmptyContent is the content of the descriptor with MediaTypeEmpty.
const EmptyContent = "{}"

// MaxGeneration is the highest integer that JSON carries everywhere (RFC 8785).
const MaxGeneration = 1 << 53

// ErrMismatch is wrapped by the error about a descriptor that belongs to other content.
var ErrMismatch = errors.New("content does not match")

// Unpacked is what a signed manifest inlines. Sizes and digests agree with each
// other, but nothing is verified: who signed is still to be asked of Bundle.
type Unpacked struct {
	Node           string // of the annotations of Manifest, so signed if Bundle is about it
	Generation     int64
	Manifest       []byte // the state's manifest, the content of the tag "desired"
	ManifestDigest string
	Layer          []byte // the compressed state
	LayerDigest    string
	Bundle         []byte // the sigstore bundle
	BundleDigest   string
	Outer, Inner   Manifest // parsed: the signed manifest, and Manifest
}

// Unpack takes a signed manifest apart. It accepts exactly the form of the tag
// "signed", with everything inlined and every descriptor right; see docs/node-state.md.
func Unpack(signed []byte) (*Unpacked, error) {
	if len(signed) > MaxManifestSize {
		return nil, fmt.Errorf("unpack signed manifest: %d bytes, more than %d", len(signed), MaxManifestSize)
	}
	u := new(Unpacked)
	if err := u.unpack(signed); err != nil {
		return nil, fmt.Errorf("unpack signed manifest: %w", err)
	}
	return u, nil
}

func (u *Unpacked) unpack(signed []byte) error {
	if err := decodeManifest(signed, &u.Outer, MediaTypeBundle, MediaTypeBundle); err != nil {
		return err
	}
	if u.Outer.Subject == nil {
		return errors.New("no subject")
	}
	if err := u.Outer.Subject.inlined(MediaTypeManifest); err != nil {
		return fmt.Errorf("subject: %w", err)
	}
	u.Manifest, u.ManifestDigest = u.Outer.Subject.Data, u.Outer.Subject.Digest
	u.Bundle, u.BundleDigest = u.Outer.Layers[0].Data, u.Outer.Layers[0].Digest
	if err := decodeManifest(u.Manifest, &u.Inner, ArtifactType, MediaTypeState); err != nil {
		return fmt.Errorf("subject: %w", err)
	}
	if u.Inner.Subject != nil {
		return errors.New("subject: has a subject itself")
	}
	u.Layer, u.LayerDigest = u.Inner.Layers[0].Data, u.Inner.Layers[0].Digest

	u.Node = u.Inner.Annotations[AnnotationNode]
	if !ValidNode(u.Node) {
		return fmt.Errorf("annotation %s: %q is no node name", AnnotationNode, clip(u.Node))
	}
	var err error
	if u.Generation, err = ParseGeneration(u.Inner.Annotations[AnnotationGeneration]); err != nil {
		return fmt.Errorf("annotation %s: %w", AnnotationGeneration, err)
	}
	return nil
}

// ParseGeneration reads a generation in its one spelling: decimal, 1–2^53.
func ParseGeneration(s string) (int64, error) {
	g, err := strconv.ParseInt(s, 10, 64)
	if err != nil || g < 1 || g > MaxGeneration || strconv.FormatInt(g, 10) != s {
		return 0, fmt.Errorf("generation %q is not a number in 1–2^53", clip(s))
	}
	return g, nil
}

// decodeManifest reads a manifest with one inlined layer and the empty config.
func decodeManifest(b []byte, m *Manifest, artifactType, layerType string) error {
	if err := flat(b); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(m); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("more follows the JSON value")
	}
	if m.SchemaVersion != 2 || m.MediaType != MediaTypeManifest || m.ArtifactType != artifactType {
		return fmt.Errorf("schema %d, media type %q, artifact type %q; want 2, %s, %s",
			m.SchemaVersion, clip(m.MediaType), clip(m.ArtifactType), MediaTypeManifest, artifactType)
	}
	if len(m.Layers) != 1 {
		return fmt.Errorf("%d layers, want one", len(m.Layers))
	}
	if err := m.Layers[0].inlined(layerType); err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	if err := m.Config.inlined(MediaTypeEmpty); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if string(m.Config.Data) != EmptyContent {
		return errors.New("config: not empty")
	}
	return nil
}

// flat bounds size and nesting: manifests need four levels.
func flat(b []byte) error {
	if len(b) > MaxManifestSize {
		return fmt.Errorf("%d bytes, more than %d", len(b), MaxManifestSize)
	}
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			n := stringLen(b[i+1:])
			if n < 0 {
				return io.ErrUnexpectedEOF
			}
			i += n + 1
		case '{', '[':
			if depth++; depth > maxDepth {
				return fmt.Errorf("nested deeper than %d levels at byte %d", maxDepth, i)
			}
		case '}', ']':
			depth--
		}
	}
	return nil
}

// stringLen returns the length of the JSON string that b begins with, up to its quote, or -1.
func stringLen(b []byte) int {
	for from := 0; ; {
		n := bytes.IndexByte(b[from:], '"') // mostly base64: fast
		if n < 0 {
			return -1
		}
		end := from + n
		text := bytes.TrimRight(b[from:end], `\`)
		if (end-from-len(text))%2 == 0 {
			return end
		}
		from = end + 1
	}
}

// inlined checks a descriptor that holds its content.
func (d *Descriptor) inlined(mediaType string) error {
	if d.MediaType != mediaType {
		return fmt.Errorf("media type %q, want %s", clip(d.MediaType), mediaType)
	}
	if len(d.Data) == 0 {
		return errors.New("not inlined")
	}
	if got := Digest(d.Data); got != d.Digest || int64(len(d.Data)) != d.Size {
		return fmt.Errorf("%w: %d bytes with digest %s; the descriptor says %d bytes, %q", ErrMismatch, len(d.Data), got, d.Size, clip(d.Digest))
	}
	return nil
}
