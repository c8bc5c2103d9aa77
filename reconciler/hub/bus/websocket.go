package bus

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// framed is a connection whose bytes travel as messages of a WebSocket (RFC 6455), seen by
// the server: what is read was masked, what is written is not, and no extension is used.
// Where one message ends and another begins is of no concern to NATS.
type framed struct {
	net.Conn
	head [14]byte
	mask [4]byte
	at   int    // in mask
	left uint64 // bytes of the frame that were not read yet
	more bool   // frames of the message follow

	empty int // frames without payload since
	since time.Time

	mu sync.Mutex // one frame is written at a time
}

// Opcodes of frames.
const (
	opMore   = 0
	opBinary = 2
	opClose  = 8
	opPing   = 9
	opPong   = 10
)

const (
	maxControl = 125 // bytes, by the RFC
	maxEmpty   = 20  // frames a second that bring nothing: pings cost a write, and no meter sees any
)

var errFrames = errors.New("the node does not speak WebSocket as RFC 6455 has it")

// accepted is the answer to an upgrade with that key.
func accepted(key string) []byte {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n")
}

// Read returns payload. The end of a WebSocket is io.EOF.
func (f *framed) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for f.left == 0 {
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	n, err := f.Conn.Read(p[:min(uint64(len(p)), f.left)])
	f.unmask(p[:n])
	f.left -= uint64(n)
	if err == io.EOF && f.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// next reads up to the payload of a frame of data.
func (f *framed) next() error {
	h := f.head[:]
	if _, err := io.ReadFull(f.Conn, h[:2]); err != nil {
		return err
	}
	last, op, n := h[0]&0x80 != 0, h[0]&0x0f, uint64(h[1]&0x7f)
	if h[0]&0x70 != 0 || h[1]&0x80 == 0 {
		return errFrames
	}
	long := map[uint64]int{126: 2, 127: 8}[n]
	rest := h[:long+4]
	if _, err := io.ReadFull(f.Conn, rest); err != nil {
		return err
	}
	switch long {
	case 2:
		n = uint64(binary.BigEndian.Uint16(rest))
	case 8:
		n = binary.BigEndian.Uint64(rest)
	}
	copy(f.mask[:], rest[long:])
	f.at = 0
	switch {
	case op >= opClose:
		if !last || n > maxControl || op > opPong {
			return errFrames
		}
		return f.control(op, int(n))
	case op > opBinary, (op == opMore) != f.more, n > 1<<62:
		return errFrames
	}
	f.more, f.left = !last, n
	if n == 0 {
		return f.nothing()
	}
	return nil
}

// nothing counts frames that bring nothing.
func (f *framed) nothing() error {
	if now := time.Now(); now.Sub(f.since) > time.Second {
		f.since, f.empty = now, 0
	}
	if f.empty++; f.empty > maxEmpty {
		return errFrames
	}
	return nil
}

// control answers a frame that carries nothing for NATS.
func (f *framed) control(op byte, n int) error {
	data := make([]byte, n)
	if _, err := io.ReadFull(f.Conn, data); err != nil {
		return err
	}
	f.unmask(data)
	switch op {
	case opClose:
		f.frame(opClose, data[:min(n, 2)]) // its code; it goes anyhow
		return io.EOF
	case opPing:
		if err := f.nothing(); err != nil {
			return err
		}
		return f.frame(opPong, data)
	}
	return f.nothing()
}

func (f *framed) unmask(p []byte) {
	for len(p) >= 8 && f.at == 0 {
		m := uint64(binary.LittleEndian.Uint32(f.mask[:]))
		m |= m << 32
		for len(p) >= 8 {
			binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^m)
			p = p[8:]
		}
	}
	for i := range p {
		p[i] ^= f.mask[f.at]
		f.at = (f.at + 1) & 3
	}
}

// Write sends one message.
func (f *framed) Write(p []byte) (int, error) {
	if err := f.frame(opBinary, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// frame sends one frame in one piece, at most as long as a buffer of busy but for its head.
func (f *framed) frame(op byte, p []byte) error {
	bp := busy.Get().(*[]byte)
	defer busy.Put(bp)
	b := append((*bp)[:0], 0x80|op)
	switch n := len(p); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !write(f.Conn, append(b, p...)) {
		return net.ErrClosed
	}
	return nil
}
