package bus

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"selvedge/internal/serve"
)

const (
	// handshakeTime bounds everything until a node has proven who it is.
	handshakeTime = 15 * time.Second
	// maxStrangers and maxSource bound connections that have not, in all and of one address
	// (IPv6: a /64); more wait for slotTime.
	maxStrangers = 4096
	maxSource    = 512
	slotTime     = 5 * time.Second
	maxPairs     = 65536
)

// tunnel passes WebSocket connections of nodes on: to an embedded server in process, without a
// socket or its files in between, and to external ones byte by byte.
type tunnel struct {
	b       *Bus
	servers atomic.Pointer[[]*url.URL] // nil: not ready, or closed; none: the embedded one
	opened  atomic.Int64

	handshake time.Duration
	most      int // connections

	mu        sync.Mutex
	pairs     map[*pair]struct{}
	strangers int
	sources   map[netip.Prefix]int
	free      chan struct{} // closed and made anew when a slot becomes free
	closed    bool
}

func newTunnel(b *Bus) *tunnel {
	return &tunnel{b: b, most: mostPairs(len(b.nodes) == 0), handshake: handshakeTime, pairs: map[*pair]struct{}{}, sources: map[netip.Prefix]int{}, free: make(chan struct{})}
}

func (t *tunnel) open(servers []*url.URL) { t.servers.Store(&servers) }

// close ends all connections.
func (t *tunnel) close() {
	t.servers.Store(nil)
	t.mu.Lock()
	t.closed = true
	var all []*pair
	for p := range t.pairs {
		all = append(all, p)
	}
	t.mu.Unlock()
	var wg sync.WaitGroup
	for _, p := range all {
		wg.Go(p.close)
	}
	wg.Wait()
}

// Tunnel serves wire.PathBus: NATS over WebSocket, by HTTP/1.1.
func (b *Bus) Tunnel() http.Handler { return b.tunnel }

func (t *tunnel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, reason := t.serve(w, r)
	if status == 0 {
		return
	}
	t.b.count.tunnelRefused.Add(1)
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Connection", "close")
	switch status {
	case http.StatusUpgradeRequired:
		h.Set("Upgrade", "websocket")
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "5")
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"title":%q,"status":%d,"detail":%q}`+"\n", http.StatusText(status), status, reason)
}

// serve returns a status and its reason unless the connection is taken over.
func (t *tunnel) serve(w http.ResponseWriter, r *http.Request) (int, string) {
	if status, reason := checkUpgrade(r); status != 0 {
		return status, reason
	}
	servers := t.servers.Load()
	if servers == nil {
		return http.StatusServiceUnavailable, ErrNotReady.Error()
	}
	address := addressOf(r.RemoteAddr)
	source := serve.Source(address)
	if int(t.opened.Load()) >= t.most {
		t.b.count.tunnelFull.Add(1)
		return http.StatusServiceUnavailable, "this hub has no file descriptors for more nodes"
	}
	if !t.enter(r.Context(), source) {
		t.b.count.tunnelFull.Add(1)
		return http.StatusServiceUnavailable, "too many connections are being opened; try again soon"
	}
	leave := sync.OnceFunc(func() { t.leave(source) })
	up, reply, err := t.dial(r, *servers, address)
	if err != nil {
		leave()
		t.b.log.Warn("pass a node on to the bus", "error", err)
		return http.StatusBadGateway, "the bus does not answer"
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		up.Close()
		leave()
		return http.StatusInternalServerError, "the connection cannot be taken over"
	}
	early := rw.Reader.Buffered()
	p := &pair{t: t, node: conn, server: up, known: leave}
	if len(*servers) == 0 {
		p.node = &framed{Conn: conn}
	}
	if early > 0 || !t.add(p) { // a client speaks after the answer only
		p.close()
		return 0, ""
	}
	t.b.count.tunnelled.Add(1)
	// The buffers of the request end with the handler.
	go p.run(conn, reply)
	return 0, ""
}

// mostPairs is how many connections the limit of open files allows, with some left for all
// else. Each takes a file to the node, and one to an external server.
func mostPairs(embedded bool) int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return maxPairs
	}
	each := 2
	if embedded {
		each = 1
	}
	return max(1, (int(min(l.Cur, 2*maxPairs))-256)/each)
}

// checkUpgrade refuses what is no WebSocket of a program.
func checkUpgrade(r *http.Request) (int, string) {
	h := r.Header
	key, err := base64.StdEncoding.DecodeString(h.Get("Sec-WebSocket-Key"))
	switch {
	case r.ProtoMajor != 1 || r.ProtoMinor != 1:
		return http.StatusHTTPVersionNotSupported, "the bus is WebSocket over HTTP/1.1; " + r.Proto + " cannot carry it here"
	case r.Method != http.MethodGet:
		return http.StatusMethodNotAllowed, "the bus is opened by GET"
	case !hasToken(h, "Connection", "upgrade") || !hasToken(h, "Upgrade", "websocket"):
		return http.StatusUpgradeRequired, "the bus is NATS over WebSocket; ask for an upgrade"
	case h.Get("Sec-WebSocket-Version") != "13":
		return http.StatusUpgradeRequired, "the bus speaks version 13 of WebSocket"
	case err != nil || len(key) != 16:
		return http.StatusBadRequest, "Sec-WebSocket-Key is not 16 bytes of base64"
	case h.Get("Origin") != "":
		return http.StatusForbidden, "the bus is not for browsers"
	case r.ContentLength != 0:
		return http.StatusBadRequest, "an upgrade has no body"
	}
	return 0, ""
}

func hasToken(h http.Header, name, token string) bool {
	for _, v := range h.Values(name) {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// addressOf is who dials, for the logs of servers; not valid if that is not known.
func addressOf(remote string) netip.Addr {
	a, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap().WithZone("")
}

// enter takes a slot for a stranger, and waits for one.
func (t *tunnel) enter(ctx context.Context, source netip.Prefix) bool {
	var end <-chan time.Time
	for {
		t.mu.Lock()
		if t.strangers < maxStrangers && t.sources[source] < maxSource {
			t.strangers++
			t.sources[source]++
			t.mu.Unlock()
			return true
		}
		free := t.free
		t.mu.Unlock()
		if end == nil {
			timer := time.NewTimer(slotTime)
			defer timer.Stop()
			end = timer.C
		}
		select {
		case <-free:
		case <-end:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func (t *tunnel) leave(source netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.strangers--
	if t.sources[source]--; t.sources[source] <= 0 {
		delete(t.sources, source)
	}
	close(t.free)
	t.free = make(chan struct{})
}

func (t *tunnel) add(p *pair) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.pairs) >= t.most {
		return false
	}
	t.pairs[p] = struct{}{}
	t.opened.Add(1)
	return true
}

// dial opens the way to one of the servers and repeats the upgrade there; reply is its answer
// with what follows. Nothing of the request but the key is passed on.
func (t *tunnel) dial(r *http.Request, servers []*url.URL, source netip.Addr) (net.Conn, []byte, error) {
	if len(servers) == 0 {
		c, err := t.b.srv.InProcessConn()
		return c, accepted(r.Header.Get("Sec-WebSocket-Key")), err
	}
	var errs []error
	ctx, cancel := context.WithTimeout(r.Context(), handshakeTime)
	defer cancel()
	for _, i := range rand.Perm(len(servers)) {
		c, reply, err := t.upgrade(ctx, servers[i], r.Header.Get("Sec-WebSocket-Key"), source)
		if err == nil {
			return c, reply, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", servers[i].Host, err))
	}
	return nil, nil, errors.Join(errs...)
}

func (t *tunnel) upgrade(ctx context.Context, u *url.URL, key string, source netip.Addr) (net.Conn, []byte, error) {
	d := net.Dialer{Timeout: 3 * time.Second}
	c, err := d.DialContext(ctx, "tcp", hostPort(u))
	if err != nil {
		return nil, nil, err
	}
	c.SetDeadline(time.Now().Add(handshakeTime))
	if u.Scheme == "wss" {
		conf, err := t.b.clientTLS()
		if err != nil {
			c.Close()
			return nil, nil, err
		}
		conf.ServerName = u.Hostname()
		c = tls.Client(c, conf)
	}
	head := "GET / HTTP/1.1\r\nHost: " + u.Host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\n"
	if source.IsValid() {
		head += "X-Forwarded-For: " + source.String() + "\r\n"
	}
	if _, err = c.Write([]byte(head + "\r\n")); err != nil {
		c.Close()
		return nil, nil, err
	}
	reply, err := readReply(bufio.NewReaderSize(c, 2048))
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c, reply, nil
}

// readReply returns the head of an answer that is a 101, and what came with it.
func readReply(r *bufio.Reader) ([]byte, error) {
	var reply []byte
	for len(reply) < 4096 {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		reply = append(reply, line...)
		if len(line) > 2 {
			continue
		}
		if !strings.HasPrefix(string(reply), "HTTP/1.1 101 ") {
			return nil, fmt.Errorf("it answers %q to an upgrade", strings.TrimSpace(string(reply[:min(len(reply), 40)])))
		}
		rest, err := r.Peek(r.Buffered())
		return append(reply, rest...), err
	}
	return nil, errors.New("its answer to an upgrade has no end")
}
