package bus

import (
	"bytes"
	"encoding/binary"
)

// pong is what a server says first to a client that it knows: until then it answers with INFO
// or an error only.
var pong = []byte("PONG\r\n")

// greeting looks for pong in what a server says over WebSocket. Data counts only: in control
// frames a server repeats what a stranger sent.
type greeting struct {
	head []byte // of a frame, until it is whole
	rest uint64 // of that frame's payload
	data bool
	tail []byte // of data before
}

// welcome takes what the server said and reports whether it knows the client now.
func (g *greeting) welcome(b []byte) bool {
	for len(b) > 0 {
		if g.rest == 0 {
			g.head, b = append(g.head, b[0]), b[1:]
			if size, whole := frameSize(g.head); whole {
				g.rest, g.data, g.head = size, g.head[0]&0x0f < 8, g.head[:0]
			}
			continue
		}
		part := b[:min(uint64(len(b)), g.rest)]
		b, g.rest = b[len(part):], g.rest-uint64(len(part))
		if !g.data {
			continue
		}
		seen := append(g.tail, part...)
		if bytes.Contains(seen, pong) {
			return true
		}
		g.tail = bytes.Clone(seen[max(0, len(seen)-len(pong)+1):])
	}
	return false
}

// frameSize returns the size of a frame's payload once its head is whole (RFC 6455, 5.2).
// Servers mask nothing.
func frameSize(head []byte) (size uint64, whole bool) {
	if len(head) < 2 {
		return 0, false
	}
	switch n := head[1] & 0x7f; {
	case n < 126:
		return uint64(n), true
	case n == 126 && len(head) == 4:
		return uint64(binary.BigEndian.Uint16(head[2:])), true
	case n == 127 && len(head) == 10:
		return binary.BigEndian.Uint64(head[2:]), true
	}
	return 0, false
}
