package publish

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"selvedge/schema/nodestate"
)

// Errors that callers tell apart.
var (
	// ErrGeneration refuses a generation that is not above the published one: sign
	// again with one above [Store.Heads] or [Remote.Heads].
	ErrGeneration = errors.New("generation is not above the published one")
	// ErrArtifact refuses an artifact whose parts contradict each other.
	ErrArtifact = errors.New("malformed artifact")
	// ErrTrust refuses root documents that do not extend the published ones.
	ErrTrust = errors.New("root documents do not extend the published ones")
)

// item is an artifact whose signed manifest was taken apart and agrees with it.
type item struct {
	nodestate.Artifact
	content  digest
	unpacked *nodestate.Unpacked
}

// check takes artifacts apart on all cores: hashing and base64 cost as much as signing.
func check(ctx context.Context, artifacts []nodestate.Artifact) ([]item, error) {
	items := make([]item, len(artifacts))
	workers := min(runtime.GOMAXPROCS(0), len(artifacts))
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(artifacts); i += workers {
				if errs[w] = ctx.Err(); errs[w] != nil {
					return
				}
				if items[i], errs[w] = checkOne(artifacts[i]); errs[w] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return items, errors.Join(errs...)
}

func checkOne(a nodestate.Artifact) (item, error) {
	u, err := nodestate.Unpack(a.Signed)
	if err != nil {
		return item{}, fmt.Errorf("%w of node %q: %w", ErrArtifact, a.Node, err)
	}
	content, ok := parseDigest(a.ContentDigest)
	if !ok {
		return item{}, fmt.Errorf("%w of node %q: content digest %.80q", ErrArtifact, a.Node, a.ContentDigest)
	}
	if u.Node != a.Node || u.Generation != a.Generation {
		return item{}, fmt.Errorf("%w of node %q, generation %d: the manifest is of node %q, generation %d",
			ErrArtifact, a.Node, a.Generation, u.Node, u.Generation)
	}
	return item{a, content, u}, nil
}

// slot returns what the store keeps of an item.
func (it *item) slot() (slot, error) {
	var s slot
	var ok [3]bool
	s.manifestDigest, ok[0] = parseDigest(it.unpacked.ManifestDigest)
	s.layerDigest, ok[1] = parseDigest(it.unpacked.LayerDigest)
	s.bundleDigest, ok[2] = parseDigest(it.unpacked.BundleDigest)
	if ok != [3]bool{true, true, true} {
		return s, fmt.Errorf("%w of node %q: a digest is no SHA-256", ErrArtifact, it.Node)
	}
	s.signedDigest, _ = parseDigest(nodestate.Digest(it.Signed))
	s.manifestSize = len(it.unpacked.Manifest)
	s.signed = it.Signed
	return s, nil
}
