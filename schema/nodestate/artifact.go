package nodestate

// Artifact is a signed state, ready to be published.
type Artifact struct {
	Node          string
	Generation    int64
	ContentDigest string // of the canonical bytes
	Signed        []byte // the manifest of the tag "signed", everything inlined
}

// Head is what is published for a node now.
type Head struct {
	Generation    int64
	ContentDigest string // empty: only the generation is remembered, the state was removed
}
