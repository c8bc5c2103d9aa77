package uplink

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

const dialTime = 10 * time.Second

// dialer reaches the hub as HTTP would: through the proxy that the environment names (HTTPS_PROXY
// and NO_PROXY), if it does.
type dialer struct {
	ctx   context.Context // of the agent: the library hands none on
	proxy func(*url.URL) (*url.URL, error)

	mu   sync.Mutex
	last net.Conn // the library has one at a time
}

// lastWords is how long a connection lives on when the agent ends.
const lastWords = 3 * time.Second

// Dial is called by the NATS library, which speaks TLS over what it gets.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last != nil {
		d.last.Close() // the library forgets one whose handshake fails
		d.last = nil
	}
	conn, err := d.dial(network, address)
	if err != nil {
		return nil, err
	}
	// the library waits for a hub that says nothing, whether the agent ends or not
	stop := context.AfterFunc(d.ctx, func() { time.AfterFunc(lastWords, func() { conn.Close() }) })
	d.last = &ending{conn, stop}
	return d.last, nil
}

// cut ends the connection that there is, if there is one.
func (d *dialer) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last != nil {
		d.last.Close()
	}
}

// ending is a connection that an ending agent leaves behind. The library compares connections: it
// is used by its address.
type ending struct {
	net.Conn
	stop func() bool
}

func (e *ending) Close() error {
	e.stop()
	return e.Conn.Close()
}

func (d *dialer) dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, dialTime)
	defer cancel()
	proxy, err := d.proxy(&url.URL{Scheme: "https", Host: address})
	if err != nil {
		return nil, err
	}
	if proxy == nil {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	return connect(ctx, proxy, address)
}

// connect opens a tunnel (RFC 9110, section 9.3.6).
func connect(ctx context.Context, proxy *url.URL, address string) (net.Conn, error) {
	var conn net.Conn
	var err error
	switch proxy.Scheme {
	case "http":
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", port(proxy.Host, "80"))
	case "https":
		conn, err = (&tls.Dialer{}).DialContext(ctx, "tcp", port(proxy.Host, "443"))
	default:
		return nil, fmt.Errorf("proxy %s: only http and https are known", proxy.Redacted())
	}
	if err != nil {
		return nil, fmt.Errorf("proxy %s: %w", proxy.Redacted(), err)
	}
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if u := proxy.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	err = req.Write(conn)
	if err == nil {
		err = opened(conn, req)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("proxy %s: %w", proxy.Redacted(), err), conn.Close())
	}
	return conn, conn.SetDeadline(time.Time{})
}

// opened reads the proxy's answer, byte by byte: what follows belongs to the hub.
func opened(conn net.Conn, req *http.Request) error {
	res, err := http.ReadResponse(bufio.NewReaderSize(&sip{conn: conn, left: 16 << 10}, 16), req)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", res.Status)
	}
	return nil
}

// sip reads single bytes, and not without end.
type sip struct {
	conn net.Conn
	left int
}

func (s *sip) Read(p []byte) (int, error) {
	if s.left--; s.left < 0 || len(p) == 0 {
		return 0, errors.New("a header without end")
	}
	return s.conn.Read(p[:1])
}
