package serve

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// body is a request's body with a deadline, which it lifts when all is read: the connection
// is read from during the answer as well, and a deadline would end that.
type body struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.control.SetReadDeadline(time.Time{}) // without it the answer has to come in time
	}
	return n, err
}

// sources is a listener that bounds the connections of each source.
type sources struct {
	net.Listener
	max     int
	refused atomic.Uint64

	mu sync.Mutex
	n  map[netip.Prefix]int
}

func (s *sources) Accept() (net.Conn, error) {
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			return nil, err
		}
		var key netip.Prefix
		if s.max > 0 {
			key = sourceOf(c.RemoteAddr())
		}
		if key.IsValid() && !s.take(key) {
			s.refused.Add(1)
			c.Close()
			continue
		}
		return &conn{Conn: c, sources: s, key: key}, nil
	}
}

func (s *sources) take(key netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n[key] >= s.max {
		return false
	}
	s.n[key]++
	return true
}

func (s *sources) give(key netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n[key]--; s.n[key] <= 0 {
		delete(s.n, key)
	}
}

// Source is what counts as one address wherever something is bounded by who asks: an IPv4
// address, or the /64 of an IPv6 one, which is what one customer gets. Of no address it is
// not valid.
func Source(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// sourceOf is the Source of who dials; not valid for others than TCP, such as unix sockets.
func sourceOf(a net.Addr) netip.Prefix {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	return Source(t.AddrPort().Addr())
}

// conn cuts off a peer that takes nothing of what is written, after stallTime unless a
// deadline is set from outside, and gives its place back once.
type conn struct {
	net.Conn
	sources *sources
	key     netip.Prefix // not valid: not counted
	closed  atomic.Bool
	until   atomic.Pointer[time.Time] // the deadline that was set from outside
}

func (c *conn) Write(p []byte) (int, error) {
	if c.until.Load() == nil {
		if err := c.Conn.SetWriteDeadline(time.Now().Add(stallTime)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	if t.IsZero() {
		c.until.Store(nil)
	} else {
		c.until.Store(&t)
	}
	return c.Conn.SetWriteDeadline(t)
}

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) Close() error {
	if c.key.IsValid() && !c.closed.Swap(true) {
		c.sources.give(c.key)
	}
	return c.Conn.Close()
}
