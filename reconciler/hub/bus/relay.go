package bus

import (
	"bytes"
	"math"
	"net"
	"sync"
	"time"
)

// stallTime is how long one side may take nothing of what it is sent.
const stallTime = 30 * time.Second

// parked is the buffer of a direction in which little happens; while there is more, a bigger
// one is borrowed.
const parked = 1024

var busy = sync.Pool{New: func() any { b := make([]byte, busySize+16); return &b }}

// busySize leaves room in a buffer for the head of a frame.
const busySize = 64 << 10

// pair is a node's connection and its continuation to the server.
type pair struct {
	t            *tunnel
	node, server net.Conn
	known        func() // the node has proven who it is, or is gone
	once         sync.Once
}

func (p *pair) close() {
	p.once.Do(func() {
		p.server.Close()
		p.known()
		p.t.mu.Lock()
		if _, ok := p.t.pairs[p]; ok {
			delete(p.t.pairs, p)
			p.t.opened.Add(-1)
		}
		p.t.mu.Unlock()
		p.node.Close() // last: TLS says goodbye, for up to 5 seconds
	})
}

// run passes on until either side ends. reply is what the server said so far; it goes out as it
// is, by conn.
func (p *pair) run(conn net.Conn, reply []byte) {
	defer p.close()
	conn.SetDeadline(time.Now().Add(p.t.handshake))
	p.server.SetDeadline(time.Now().Add(p.t.handshake))
	if _, err := conn.Write(reply); err != nil {
		return
	}
	go func() {
		defer p.close()
		relay(p.server, p.node, &meter{tokens: meterBurst, last: time.Now()})
	}()
	_, said, _ := bytes.Cut(reply, []byte("\r\n\r\n"))
	if !p.handshake(said) {
		return
	}
	p.known()
	p.node.SetDeadline(time.Time{})
	p.server.SetDeadline(time.Time{})
	relay(p.node, p.server, nil)
}

// handshake passes on what the server says until it knows the node; said was passed on before.
func (p *pair) handshake(said []byte) bool {
	g := &greeting{}
	if _, plain := p.node.(*framed); plain {
		g.data, g.rest = true, math.MaxUint64 // an embedded server frames nothing
	}
	known := g.welcome(said)
	buf := make([]byte, 2*parked)
	for !known {
		n, err := p.server.Read(buf)
		if n > 0 {
			if _, err := p.node.Write(buf[:n]); err != nil {
				return false
			}
		}
		if err != nil {
			return false
		}
		known = g.welcome(buf[:n])
	}
	return true
}

// relay copies from src to dst until either ends, as fast as m lets it.
func relay(dst, src net.Conn, m *meter) {
	small := make([]byte, parked)
	for {
		n, err := src.Read(small)
		if n > 0 && !write(dst, small[:n]) || err != nil {
			return
		}
		if n == parked && !relayBusy(dst, src, m) {
			return
		}
	}
}

// relayBusy copies with a big buffer while there is much.
func relayBusy(dst, src net.Conn, m *meter) bool {
	bp := busy.Get().(*[]byte)
	defer busy.Put(bp)
	for {
		n, err := src.Read((*bp)[:busySize])
		if n > 0 && !write(dst, (*bp)[:n]) || err != nil {
			return false
		}
		if n < parked {
			return true
		}
		if m != nil {
			if wait := m.spend(n, time.Now()); wait > 0 {
				time.Sleep(wait)
			}
		}
	}
}

// A node may send meterBurst bytes as fast as it can, and meterRate a second for ever: what
// nobody subscribed to still costs the server its time.
const (
	meterBurst = 256 << 20
	meterRate  = 64 << 20
)

// meter is a bucket of bytes.
type meter struct {
	tokens int
	last   time.Time
}

// spend takes n bytes and tells how long to wait for them.
func (m *meter) spend(n int, now time.Time) time.Duration {
	if gone := min(now.Sub(m.last), meterBurst/meterRate*time.Second); gone > 0 {
		m.tokens = min(meterBurst, m.tokens+int(gone.Seconds()*meterRate))
		m.last = now
	}
	m.tokens -= n
	if m.tokens >= 0 {
		return 0
	}
	return time.Duration(float64(-m.tokens) / meterRate * float64(time.Second))
}

func write(dst net.Conn, p []byte) bool {
	dst.SetWriteDeadline(time.Now().Add(stallTime))
	_, err := dst.Write(p)
	return err == nil
}
