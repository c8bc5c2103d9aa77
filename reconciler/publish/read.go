package publish

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"selvedge/schema/nodestate"
)

// What a read does not find.
var (
	errNoRepository = errors.New("repository unknown")
	errNoContent    = errors.New("content unknown")
)

// content is a manifest or a blob; data is a copy, since clients may be slow and a
// transaction must not be.
type content struct {
	digest string
	size   int
	data   []byte // nil if only asked about
}

// repository is one that the store serves.
type repository struct {
	name string
	key  string // the node's name, or trustKey
}

// repository returns the one of that name; it may still hold nothing.
func (s *Store) repository(name string) (repository, bool) {
	if name == nodestate.TrustRepository(s.prefix) {
		return repository{name, trustKey}, true
	}
	node, ok := nodestate.NodeOf(s.prefix, name)
	return repository{name, node}, ok
}

var (
	emptyBytes  = []byte(nodestate.EmptyContent)
	emptyDigest = nodestate.Digest(emptyBytes)
)

// view calls f with the node's row; it must not keep the slots' bytes.
func (s *Store) view(node string, f func(row) error) error {
	return s.read(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketNodes).Get([]byte(node))
		if v == nil {
			return errNoRepository
		}
		r, err := decodeRow(v)
		if err != nil {
			return fmt.Errorf("node %s: %w", node, err)
		}
		if len(r.slots) == 0 {
			return errNoRepository
		}
		return f(r)
	})
}

// viewTrust calls f with the trust manifests, the current one first.
func (s *Store) viewTrust(f func(manifests [][]byte) error) error {
	return s.read(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketTrust)
		var all [][]byte
		for _, k := range [][]byte{keyCurrent, keyPrevious} {
			if v := b.Get(k); v != nil {
				all = append(all, v)
			}
		}
		if len(all) == 0 {
			return errNoRepository
		}
		return f(all)
	})
}

func (s *Store) tags(r repository) ([]string, error) {
	if r.key == trustKey {
		return []string{nodestate.TagTrust}, s.viewTrust(func([][]byte) error { return nil })
	}
	return []string{nodestate.TagDesired, nodestate.TagSigned}, s.view(r.key, func(row) error { return nil })
}

// tag returns the manifest that a tag names; its data only if want says so of its digest,
// since most requests are about what the client has already.
func (s *Store) tag(r repository, tag string, want func(digest string) bool) (c content, err error) {
	if r.key == trustKey {
		err = s.viewTrust(func(all [][]byte) error {
			if tag != nodestate.TagTrust {
				return errNoContent
			}
			c = content{digest: nodestate.Digest(all[0]), size: len(all[0])}
			if want(c.digest) {
				c.data = bytes.Clone(all[0])
			}
			return nil
		})
		return c, err
	}
	err = s.view(r.key, func(r row) (err error) {
		now := r.slots[0]
		switch tag {
		case nodestate.TagSigned:
			c = content{digest: now.signedDigest.String(), size: len(now.signed)}
		case nodestate.TagDesired:
			c = content{digest: now.manifestDigest.String(), size: now.manifestSize}
		default:
			return errNoContent
		}
		if want(c.digest) {
			c.data, err = now.manifest(tag == nodestate.TagSigned)
		}
		return err
	})
	return c, err
}

// manifest returns a copy of the signed manifest, or of the state's.
func (s *slot) manifest(signed bool) ([]byte, error) {
	if signed {
		return bytes.Clone(s.signed), nil
	}
	outer, err := decodeManifest(s.signed)
	if err != nil {
		return nil, err
	}
	return outer.Subject.Data, nil
}

func decodeManifest(b []byte) (*nodestate.Manifest, error) {
	m := new(nodestate.Manifest)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%w: %w", errRow, err)
	}
	if m.Subject == nil || len(m.Layers) != 1 {
		return nil, errRow
	}
	return m, nil
}

// manifest returns the manifest with that digest, of this generation or the one before.
func (s *Store) manifest(r repository, d digest) (c content, err error) {
	c.digest = d.String()
	if r.key == trustKey {
		err = s.viewTrust(func(all [][]byte) error {
			for _, m := range all {
				if nodestate.Digest(m) == c.digest {
					c.data = bytes.Clone(m)
					return nil
				}
			}
			return errNoContent
		})
	} else {
		err = s.view(r.key, func(r row) error {
			for _, slot := range r.slots {
				if slot.signedDigest == d || slot.manifestDigest == d {
					c.data, err = slot.manifest(slot.signedDigest == d)
					return err
				}
			}
			return errNoContent
		})
	}
	c.size = len(c.data)
	return c, err
}

// blob returns the blob with that digest, of this generation or the one before.
func (s *Store) blob(r repository, d digest) (c content, err error) {
	c.digest = d.String()
	if r.key == trustKey {
		err = s.viewTrust(func(all [][]byte) (err error) {
			c.data, err = trustBlob(all, c.digest)
			return err
		})
	} else {
		err = s.view(r.key, func(r row) (err error) {
			c.data, err = nodeBlob(r, d)
			return err
		})
	}
	c.size = len(c.data)
	return c, err
}

func trustBlob(manifests [][]byte, digest string) ([]byte, error) {
	if digest == emptyDigest {
		return emptyBytes, nil
	}
	for _, b := range manifests {
		var m nodestate.Manifest
		if err := json.Unmarshal(b, &m); err != nil {
			return nil, fmt.Errorf("%w: %w", errRow, err)
		}
		for _, l := range m.Layers {
			if l.Digest == digest {
				return l.Data, nil
			}
		}
	}
	return nil, errNoContent
}

func nodeBlob(r row, d digest) ([]byte, error) {
	if d.String() == emptyDigest {
		return emptyBytes, nil
	}
	for _, s := range r.slots {
		if s.layerDigest != d && s.bundleDigest != d {
			continue
		}
		outer, err := decodeManifest(s.signed)
		if err != nil {
			return nil, err
		}
		if s.bundleDigest == d {
			return outer.Layers[0].Data, nil
		}
		var inner nodestate.Manifest
		if err := json.Unmarshal(outer.Subject.Data, &inner); err != nil || len(inner.Layers) != 1 {
			return nil, errRow
		}
		return inner.Layers[0].Data, nil
	}
	return nil, errNoContent
}

// referrers returns the descriptors of the signatures about a manifest.
func (s *Store) referrers(r repository, d digest) ([]nodestate.Descriptor, error) {
	list := []nodestate.Descriptor{}
	if r.key == trustKey {
		return list, s.viewTrust(func([][]byte) error { return nil })
	}
	err := s.view(r.key, func(r row) error {
		for _, s := range r.slots {
			if s.manifestDigest != d {
				continue
			}
			m, err := decodeManifest(s.signed)
			if err != nil {
				return err
			}
			list = append(list, nodestate.Descriptor{
				MediaType: m.MediaType, Digest: s.signedDigest.String(), Size: int64(len(s.signed)),
				ArtifactType: m.ArtifactType, Annotations: m.Annotations,
			})
		}
		return nil
	})
	return list, err
}
