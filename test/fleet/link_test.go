package fleet

import (
	"net"
	"sync"
	"testing"
	"time"
)

// How a link is.
const (
	through = iota
	gone    // whoever dials is sent away, and connections end
	mute    // accepts, and forwards nothing: a half-open link
	drip    // forwards a few bytes at a time
)

// link is a TCP proxy whose link can be made bad.
type link struct {
	url, target string

	mu    sync.Mutex
	is    int
	turn  chan struct{} // closed when it changes
	pairs map[net.Conn]bool
	lost  chan struct{} // closed when connections of now are lost
	end   chan struct{}
}

func newLink(t *testing.T, target string) *link {
	t.Helper()
	in, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l := &link{url: "https://" + in.Addr().String(), target: target, turn: make(chan struct{}), pairs: map[net.Conn]bool{}, lost: make(chan struct{}), end: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := in.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { l.serve(c) })
		}
	})
	t.Cleanup(func() { in.Close(); close(l.end); l.set(gone); wg.Wait() })
	return l
}

// set changes how the link is.
func (l *link) set(is int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.is = is
	close(l.turn)
	l.turn = make(chan struct{})
	if is == gone {
		for c := range l.pairs {
			c.Close()
		}
	}
}

// lose loses the connections of now without a word to either side, as when a router forgets
// them: what is sent goes nowhere, and no end is told. New ones go through.
func (l *link) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.lost)
	l.lost = make(chan struct{})
}

func (l *link) now() (is int, turn chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.is, l.turn
}

func (l *link) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pairs[c] = true
	return l.is != gone
}

func (l *link) drop(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pairs, c)
	c.Close()
}

func (l *link) serve(c net.Conn) {
	defer l.drop(c)
	if !l.keep(c) {
		return
	}
	hub, err := net.Dial("tcp", l.target)
	if err != nil {
		return
	}
	defer l.drop(hub)
	if !l.keep(hub) {
		return
	}
	l.mu.Lock()
	lost := l.lost
	l.mu.Unlock()
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{c, hub}, {hub, c}} {
		wg.Go(func() {
			l.pass(way[0], way[1], lost)
			select {
			case <-lost:
				<-l.end
			default:
			}
			c.Close()
			hub.Close()
		})
	}
	wg.Wait()
}

func (l *link) pass(from, to net.Conn, lost chan struct{}) {
	b := make([]byte, 32<<10)
	for {
		part := b
		if is, _ := l.now(); is == drip {
			part = b[:256]
			time.Sleep(5 * time.Millisecond)
		}
		n, err := from.Read(part)
		if err != nil {
			return
		}
		for {
			is, turn := l.now()
			if is != mute {
				break
			}
			<-turn
		}
		select {
		case <-lost:
			return
		default:
		}
		if _, err := to.Write(part[:n]); err != nil {
			return
		}
	}
}
