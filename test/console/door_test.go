package console

import (
	"io"
	"net"
	"sync"
	"testing"
)

// door is an address that is the test's as long as it runs. The hub behind it may end, and
// come back elsewhere: its own port may be another program's by then.
type door struct {
	addr string

	mu      sync.Mutex
	to      string // empty: nobody is there
	closed  bool
	through map[net.Conn]bool // what is open
}

func newDoor(t testing.TB) *door {
	t.Helper()
	in, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	d := &door{addr: in.Addr().String(), through: map[net.Conn]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := in.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { d.serve(c) })
		}
	})
	t.Cleanup(func() { in.Close(); wg.Wait() }) // the hub has ended, and so all connections
	return d
}

// lead says where the hub is, or with "" that it is gone.
func (d *door) lead(to string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.to = to
}

// shut ends all connections and lets nobody in, until it is opened.
func (d *door) shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for c := range d.through {
		c.Close()
	}
}

func (d *door) open() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = false
}

// enter dials the hub for a connection, which leave ends.
func (d *door) enter(c net.Conn) (hub net.Conn, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.to == "" {
		return nil, net.ErrClosed
	}
	if hub, err = net.Dial("tcp", d.to); err == nil { // on this machine: it is there at once or not
		d.through[c] = true
	}
	return hub, err
}

func (d *door) leave(c net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.through, c)
	c.Close()
}

func (d *door) serve(c net.Conn) {
	defer d.leave(c)
	hub, err := d.enter(c)
	if err != nil {
		return
	}
	defer hub.Close()
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{c, hub}, {hub, c}} {
		wg.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // either may end it
			c.Close()
			hub.Close()
		})
	}
	wg.Wait()
}
