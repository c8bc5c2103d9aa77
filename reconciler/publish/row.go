package publish

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"selvedge/schema/nodestate"
)

// A row is all that is kept of a node:
//
//	version 1 | generation u64 | content digest [32] | slots u8 | slot… | signed manifest…
//	slot: digests of signed manifest, manifest, layer, bundle [32] each | length of signed manifest u32 | of manifest u32
//
// Numbers are big endian. Slot 0 is published now, slot 1 was before; none means that
// the state was removed. Everything else that is served decodes from the signed manifest.
const (
	rowVersion = 1
	headSize   = 1 + 8 + 32 + 1
	slotSize   = 4*32 + 4 + 4
	maxSlots   = 2
)

var errRow = fmt.Errorf("a row makes no sense: %w", ErrDamaged)

type digest [32]byte

// parseDigest reads "sha256:" and 64 lower-case hex digits.
func parseDigest(s string) (d digest, ok bool) {
	if len(s) != 71 || s[:7] != "sha256:" {
		return d, false
	}
	for _, c := range s[7:] {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return d, false
		}
	}
	_, err := hex.Decode(d[:], []byte(s[7:]))
	return d, err == nil
}

func (d digest) String() string { return "sha256:" + hex.EncodeToString(d[:]) }

// slot is one published generation.
type slot struct {
	signedDigest, manifestDigest, layerDigest, bundleDigest digest
	manifestSize                                            int
	signed                                                  []byte
}

type row struct {
	generation int64
	content    digest
	slots      []slot
}

func (r *row) encode() []byte {
	size := headSize + len(r.slots)*slotSize
	for _, s := range r.slots {
		size += len(s.signed)
	}
	b := make([]byte, 0, size)
	b = append(b, rowVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(r.generation))
	b = append(b, r.content[:]...)
	b = append(b, byte(len(r.slots)))
	for _, s := range r.slots {
		b = append(b, s.signedDigest[:]...)
		b = append(b, s.manifestDigest[:]...)
		b = append(b, s.layerDigest[:]...)
		b = append(b, s.bundleDigest[:]...)
		b = binary.BigEndian.AppendUint32(b, uint32(len(s.signed)))
		b = binary.BigEndian.AppendUint32(b, uint32(s.manifestSize))
	}
	for _, s := range r.slots {
		b = append(b, s.signed...)
	}
	return b
}

// decodeRow reads a row; the slots' bytes are those of b.
func decodeRow(b []byte) (row, error) {
	var r row
	if len(b) < headSize {
		return r, errRow
	}
	if b[0] != rowVersion {
		return r, fmt.Errorf("%w: version %d; written by a newer program?", errRow, b[0])
	}
	r.generation = int64(binary.BigEndian.Uint64(b[1:]))
	r.content = digest(b[9:41])
	n := int(b[41])
	b = b[headSize:]
	if n > maxSlots || len(b) < n*slotSize {
		return r, errRow
	}
	heads, data := b[:n*slotSize], b[n*slotSize:]
	r.slots = make([]slot, n)
	for i := range r.slots {
		h := heads[i*slotSize:]
		size := int(binary.BigEndian.Uint32(h[128:]))
		if size > len(data) {
			return r, errRow
		}
		r.slots[i] = slot{
			signedDigest: digest(h[0:32]), manifestDigest: digest(h[32:64]),
			layerDigest: digest(h[64:96]), bundleDigest: digest(h[96:128]),
			manifestSize: int(binary.BigEndian.Uint32(h[132:])), signed: data[:size:size],
		}
		data = data[size:]
	}
	if len(data) != 0 {
		return r, errRow
	}
	return r, nil
}

func (r *row) head() nodestate.Head {
	h := nodestate.Head{Generation: r.generation}
	if len(r.slots) > 0 {
		h.ContentDigest = r.content.String()
	}
	return h
}
