package publish

import (
	"bytes"
	"encoding/json"
	"fmt"

	"selvedge/schema/nodestate"
	"selvedge/schema/trust"
)

// trustManifest returns the manifest of the trust repository: one layer a root
// document, oldest first, all inlined, so that one request brings a node the chain.
func trustManifest(roots [][]byte) ([]byte, error) {
	if len(roots) == 0 {
		return nil, fmt.Errorf("%w: none given", ErrTrust)
	}
	first, err := trust.Parse(roots[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrust, err)
	}
	last, err := trust.Walk(first, roots)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrust, err)
	}
	if last.Version() != first.Version()+int64(len(roots))-1 {
		return nil, fmt.Errorf("%w: %d documents for versions %d–%d", ErrTrust, len(roots), first.Version(), last.Version())
	}
	m := nodestate.Manifest{
		SchemaVersion: 2, MediaType: nodestate.MediaTypeManifest, ArtifactType: nodestate.ArtifactTypeTrust,
		Config: nodestate.Describe(nodestate.MediaTypeEmpty, []byte(nodestate.EmptyContent), true),
	}
	for _, doc := range roots {
		m.Layers = append(m.Layers, nodestate.Describe(nodestate.MediaTypeRoot, doc, true))
	}
	b, err := json.Marshal(m)
	if err == nil && len(b) > nodestate.MaxTrustSize {
		err = fmt.Errorf("%w: a manifest of %d bytes, more than %d", ErrTrust, len(b), nodestate.MaxTrustSize)
	}
	return b, err
}

// extends checks that root documents begin with those of a published manifest.
func extends(published []byte, roots [][]byte) error {
	var m nodestate.Manifest
	if err := json.Unmarshal(published, &m); err != nil {
		return fmt.Errorf("published trust: %w (%w)", ErrDamaged, err)
	}
	if len(roots) < len(m.Layers) {
		return fmt.Errorf("%w: %d documents, %d are published; put the newer ones back into the trust directory", ErrTrust, len(roots), len(m.Layers))
	}
	for i, l := range m.Layers {
		if l.Digest != nodestate.Digest(roots[i]) || len(l.Data) > 0 && !bytes.Equal(l.Data, roots[i]) {
			return fmt.Errorf("%w: document %d is another than the published one", ErrTrust, i+1)
		}
	}
	return nil
}
