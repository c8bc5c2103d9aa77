// Package bus is the live connection to the fleet: the NATS server of it, or a client of a
// cluster of them, with the keys and permissions of every node.
//
// It takes a folder for keys and data, and who is listed in Git (Config.Allowed). It gives
// nodes their user JWTs, a tunnel to the server for the hub's HTTPS port, what nodes report,
// requests and streams to them, and key-value buckets.
//
// It guarantees that a node speaks as itself only and hears only what is meant for it; that a
// revoked key is dropped in milliseconds and stays out, on all servers; that no node, however
// it behaves, fills the hub's memory or delays what others say. It keeps nothing of what nodes
// say, and knows no roles: who may ask a node for what is decided above it.
package bus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/nats-io/nuid"

	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

// Config configures a Bus.
type Config struct {
	Dir  string // for keys, below keys, and data of an embedded server
	Name string // of this hub, for logs of servers; "" means hub
	// Servers are addresses of external servers, started with what ServerConfig prints:
	// ws:// or wss:// ones, to which nodes are tunnelled, and nats:// or tls:// ones for the
	// hub itself; without the latter it uses the former. None: a server is embedded.
	Servers []string
	CA      string      // PEM file with those who sign certificates of Servers; "" means the system's
	Listen  string      // host:port at which nodes may also connect without WebSocket, over TLS; "" none
	TLS     *tls.Config // of Listen
	// Allowed tells whether Git lists that key for that node. It must answer true while
	// it is not known what Git lists, and, with Servers, while that may be out of date: what it
	// refuses is revoked, at all hubs.
	Allowed func(node, publicKey string) bool
	// Doubt passes before a connected node that is not allowed is revoked. 0 means 3 s, and 90 s
	// with Servers.
	Doubt time.Duration
	// Twice is told of a node's key that two machines use: a clone, or a stolen key.
	Twice func(node string)
	Log   *slog.Logger // nil: slog.Default()
}

// Errors of requests and streams.
var (
	ErrOffline  = errors.New("the node is not connected")
	ErrTimeout  = errors.New("the node does not answer")
	ErrNotReady = errors.New("the hub's bus is not ready; try again soon")
)

// NotConnected says which node cannot be reached; it is ErrOffline.
type NotConnected struct{ Node string }

func (e *NotConnected) Error() string        { return fmt.Sprintf("node %q is not connected", e.Node) }
func (e *NotConnected) Is(target error) bool { return target == ErrOffline }

// Bus is the live connection to the fleet. Its methods may be called at the same time.
type Bus struct {
	cfg    Config
	log    *slog.Logger
	keys   *keys
	tunnel *tunnel
	ready  chan struct{}

	nodes, servers []*url.URL // where nodes are tunnelled to, and where the hub connects; none: embedded

	srv  *server.Server // nil with external ones; set before ready
	link atomic.Pointer[links]

	inbox    *inbox
	presence *presence
	revoked  revoked
	streams  streams
	count    counters
	idle     time.Duration // ends a stream
}

// links are the hub's own connections. What nodes report, and what is asked of them, go over
// two, so that a flood of the one cannot end the other.
type links struct {
	sys, reports, requests *nats.Conn
}

// New loads the keys below c.Dir, or makes them. Nothing is connected before Run.
func New(c Config) (*Bus, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Name == "" {
		c.Name = "hub"
	}
	if c.Allowed == nil {
		c.Allowed = func(string, string) bool { return true }
	}
	if c.Twice == nil {
		c.Twice = func(string) {}
	}
	if c.Doubt == 0 {
		c.Doubt = doubtTime
		if len(c.Servers) > 0 {
			c.Doubt = sharedDoubtTime
		}
	}
	if c.Listen != "" && c.TLS == nil {
		return nil, fmt.Errorf("bus: listen on %s: nodes connect over TLS only; give a certificate", c.Listen)
	}
	b := &Bus{cfg: c, log: c.Log, ready: make(chan struct{}), idle: streamIdle}
	var err error
	if b.nodes, b.servers, err = splitServers(c.Servers); err != nil {
		return nil, err
	}
	if plain := plainServers(slices.Concat(b.nodes, b.servers)); len(plain) > 0 {
		c.Log.Warn("the way to servers of the bus is plain: who is on that network reads along, and may ask nodes in the hub's name; use wss:// and tls://", "servers", plain)
	}
	if b.keys, err = loadKeys(filepath.Join(c.Dir, "keys")); err != nil {
		return nil, err
	}
	b.revoked.init()
	b.streams.init()
	b.inbox = newInbox(&b.count)
	b.presence = newPresence(b)
	b.inbox.odd = b.presence.again
	b.inbox.flood = func(node string) {
		b.log.Warn("a node sends far too much and is cut off", "node", node)
		b.presence.kickNode(node)
	}
	b.tunnel = newTunnel(b)
	return b, nil
}

// CheckServers tells what is wrong with a Config.Servers.
func CheckServers(all []string) error {
	_, _, err := splitServers(all)
	return err
}

// splitServers tells addresses for nodes from those for the hub.
func splitServers(all []string) (nodes, own []*url.URL, err error) {
	for _, text := range all {
		u, err := url.Parse(text)
		if err != nil {
			return nil, nil, fmt.Errorf("bus server %q: %w", text, err)
		}
		switch {
		case u.Host == "" || u.User != nil || (u.Path != "" && u.Path != "/"):
			return nil, nil, fmt.Errorf("bus server %q: an address is scheme://host:port, such as wss://nats-1:8222", text)
		case u.Scheme == "ws", u.Scheme == "wss":
			nodes = append(nodes, u)
		case u.Scheme == "nats", u.Scheme == "tls":
			own = append(own, u)
		default:
			return nil, nil, fmt.Errorf("bus server %q: the scheme is wss or ws (for nodes and hub), or tls or nats (for the hub alone)", text)
		}
	}
	if len(all) > 0 && len(nodes) == 0 {
		return nil, nil, errors.New("bus servers: nodes are passed on to the servers' WebSocket listeners; name these, too, as wss://host:port")
	}
	if len(own) == 0 {
		own = nodes
	}
	return nodes, own, nil
}

// plainServers returns the hosts that are reached without TLS, and not on loopback.
func plainServers(all []*url.URL) (hosts []string) {
	for _, u := range all {
		ip := net.ParseIP(u.Hostname())
		local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
		if (u.Scheme == "ws" || u.Scheme == "nats") && !local && !slices.Contains(hosts, u.Host) {
			hosts = append(hosts, u.Host)
		}
	}
	return hosts
}

// Ready is closed when the bus works.
func (b *Bus) Ready() <-chan struct{} { return b.ready }

// Signer returns the key that is the same for all hubs of a cluster.
func (b *Bus) Signer() nkeys.KeyPair { return b.keys.signer }

// NewStreamID returns an identifier for Open that nobody else uses.
func (b *Bus) NewStreamID() string { return nuid.Next() }

// NodeToken returns a NATS user JWT with which the holder of that key is that node, and
// nothing else, for ttl.
func (b *Bus) NodeToken(node, publicKey string, ttl time.Duration) (string, error) {
	if !nodestate.ValidNode(node) {
		return "", fmt.Errorf("bus token: %q is no name of a node", node)
	}
	if !nkeys.IsValidPublicUserKey(publicKey) {
		return "", fmt.Errorf("bus token for node %q: %q is no public key of a user (U…)", node, publicKey)
	}
	if ttl < time.Second || ttl > maxTTL {
		return "", fmt.Errorf("bus token for node %q: a life of %v is not between 1s and %v", node, ttl, maxTTL)
	}
	u := jwt.NewUserClaims(publicKey)
	u.Name = node
	u.Tags.Add(nodeTag)
	u.IssuerAccount = b.keys.accountID
	u.Pub.Allow.Add(wire.StatusSubject(node), wire.EventsSubject(node), wire.StreamSubject(node, ">"))
	u.Sub.Allow.Add(wire.RequestSubject(node, ">"), wire.InboxPrefix(node)+".>")
	u.Resp = &jwt.ResponsePermission{MaxMsgs: 1, Expires: wire.AnswerTime}
	u.Limits.Subs = 32
	u.Limits.Payload = wire.MaxMessage
	u.AllowedConnectionTypes = jwt.StringList{jwt.ConnectionTypeStandard, jwt.ConnectionTypeWebsocket, jwt.ConnectionTypeInProcess}
	u.Expires = time.Now().Add(ttl).Unix()
	return issue(u, b.keys.signer, b.revoked.at(publicKey)+1)
}

// maxTTL bounds a JWT's life; a revocation is kept as long.
const maxTTL = 48 * time.Hour

// Subscribe sets who hears statuses, events and connections of nodes; call it before Run.
// Of statuses that come faster than they are taken a node's newest is kept, of events the
// first few. The functions are called one after the other and should return soon.
func (b *Bus) Subscribe(status, events func(node string, data []byte), presence func(node string, connected bool)) error {
	if b.link.Load() != nil {
		return errors.New("bus: subscribed after the start")
	}
	b.inbox.status, b.inbox.events, b.inbox.presence = status, events, presence
	return nil
}

// Run serves and connects until ctx ends.
func (b *Bus) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer b.tunnel.close()
	if len(b.cfg.Servers) == 0 {
		if err := b.startServer(); err != nil {
			return err
		}
		defer b.stopServer()
	}
	wg.Go(func() { b.inbox.run(ctx) })
	l, err := b.begin(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer l.close()
	defer b.streams.closeAll(ErrNotReady)
	wg.Go(func() { b.presence.run(ctx) })
	b.tunnel.open(b.nodes)
	close(b.ready)
	<-ctx.Done()
	return nil
}

// begin connects, and subscribes to what is needed before nodes are let in. External servers may
// be starting, or stall: it tries again until ctx ends.
func (b *Bus) begin(ctx context.Context) (*links, error) {
	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		l, err := b.connect(ctx)
		if err != nil {
			return nil, err
		}
		b.link.Store(l)
		if err = b.listen(ctx, l); err == nil {
			return l, nil
		}
		b.link.Store(nil)
		l.close()
		if b.srv != nil || ctx.Err() != nil {
			return nil, err
		}
		b.log.Warn("the servers of the bus do not answer as they should", "error", err, "again", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (l *links) close() {
	for _, nc := range []*nats.Conn{l.requests, l.reports, l.sys} {
		if nc != nil {
			nc.Close()
		}
	}
}

// conn returns the connection for requests.
func (b *Bus) conn() (*nats.Conn, error) {
	if l := b.link.Load(); l != nil {
		return l.requests, nil
	}
	return nil, ErrNotReady
}

func ensureDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.Chmod(dir, 0o700)
}
