package enrol

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// Lifetimes and bounds.
const (
	busLife     = 24 * time.Hour
	bearerLife  = time.Hour
	nonceLife   = time.Minute
	pendingLife = 7 * 24 * time.Hour
	tokenLife   = 24 * time.Hour // of join tokens, at most
	maxPending  = 10000
	maxTokens   = 1000 // join tokens made at once
)

// Config configures an Enrol.
type Config struct {
	Hub    []string // URLs that nodes may dial: https://host[:port]
	Signer func() nkeys.KeyPair
	// Bucket opens a bucket that all hubs share; values are gone after ttl.
	Bucket   func(ctx context.Context, name string, ttl time.Duration) (jetstream.KeyValue, error)
	BusToken func(node, publicKey string, ttl time.Duration) (string, error)

	Ready func() bool // whether what Git says is known; until then nobody is told to be unknown. nil: it is

	// Behind tells that what Git says may have changed unheard: a key or guide that is unknown here
	// may be known to another hub, and is not told to be unknown. nil: it is not
	Behind func() bool

	// What Git says now.
	Node  func(publicKey string) (name string, ok bool)
	Named func(name string) (publicKey string, ok bool)
	Guide func(key string) (g roster.Guide, nodes int, ok bool)

	Images []string // hosts of registries that the hub passes on
	Prefix func() string
	Trust  func(ctx context.Context) ([][]byte, error) // the root documents

	// Rejected is for audit and log: of a request to join, for a token or to pull ("join", "token",
	// "pull"). It is bounded: what is too much is counted only. nil: Log
	Rejected func(event string, attrs ...any)
	Joined   func(p hubapi.Pending, givenBy string) // for audit: a node waits, by a join token that somebody gave; may be nil
	// Source tells where a request comes from; nil: from its peer. A hub behind a proxy says it here.
	Source func(*http.Request) netip.Addr
	Rate   Rate
	Log    *slog.Logger     // nil: slog.Default()
	Now    func() time.Time // nil: time.Now
}

// Rate bounds the requests a second.
type Rate struct {
	All    int // 0 means 1,000; bursts are five times as large
	Source int // of an IPv4 address or an IPv6 /64; 0 means 100; bursts are twenty times as large: a site that gets its power back
}

// Enrol lets nodes in. It is safe for concurrent use.
type Enrol struct {
	c       Config
	log     *slog.Logger
	hubs    []string
	limits  *limits
	rejects *rejects
	nonces  nonces
	trust   trustCache
	pending pending
	granted atomic.Int64 // tokens
	limited atomic.Int64 // requests

	mu     sync.Mutex
	tokens jetstream.KeyValue // of join tokens; nil: not opened yet
}

// New checks nothing and dials nobody. A hub also has to call Run.
func New(c Config) *Enrol {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Prefix == nil {
		c.Prefix = func() string { return "" }
	}
	if c.Behind == nil {
		c.Behind = func() bool { return false }
	}
	if c.Source == nil {
		c.Source = peer
	}
	e := &Enrol{c: c, log: c.Log, limits: newLimits(c.Rate, c.Now), rejects: newRejects(c), hubs: spellings(c.Hub)}
	e.pending = pending{now: c.Now, known: e.known, byKey: map[string]request{}, waiting: map[chan struct{}]uint64{}, late: make(chan struct{}, 1)}
	return e
}

// spellings adds to each URL how else it may be written: with or without the usual port.
func spellings(urls []string) []string {
	var all []string
	for _, text := range urls {
		u, err := url.Parse(strings.TrimRight(text, "/"))
		if err != nil || u.Host == "" {
			continue // the flags are checked where they are read
		}
		scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
		port := map[string]string{"https": ":443", "http": ":80"}[scheme]
		all = append(all, scheme+"://"+host)
		if bare, ok := strings.CutSuffix(host, port); ok && port != "" {
			all = append(all, scheme+"://"+bare)
		} else if u.Port() == "" {
			all = append(all, scheme+"://"+host+port)
		}
	}
	return all
}

// Handler serves wire.PathNonce, PathToken, PathJoin and PathTrust. Whatever it is asked, what it
// answers is bounded, and an error is a problem.
func (e *Enrol) Handler() http.Handler {
	type route struct {
		methods []string
		serve   http.HandlerFunc
	}
	get, post := []string{http.MethodGet, http.MethodHead}, []string{http.MethodPost}
	routes := map[string]route{
		wire.PathNonce: {get, e.serveNonce},
		wire.PathToken: {post, e.serveToken},
		wire.PathJoin:  {post, e.serveJoin},
		wire.PathTrust: {get, e.serveTrust},
	}
	return e.bounded(func(w http.ResponseWriter, r *http.Request) {
		at, ok := routes[r.URL.Path]
		switch {
		case !ok:
			problem(w, hubapi.Problem{Status: http.StatusNotFound, Reason: hubapi.ReasonNotFound, Detail: "there is nothing at this path; is the hub older than the agent?"})
		case !slices.Contains(at.methods, r.Method):
			allow := strings.Join(at.methods, ", ")
			w.Header().Set("Allow", allow)
			problem(w, hubapi.Problem{Status: http.StatusMethodNotAllowed, Reason: hubapi.ReasonInvalid, Detail: "this path takes " + allow})
		default:
			at.serve(w, r)
		}
	})
}

// RefusedPull notes that a node, which is known, asked for what it may not have.
func (e *Enrol) RefusedPull(r *http.Request, attrs ...any) {
	e.rejects.add(r, true, eventPull, attrs...)
}

// ready tells whether what Git says is known.
func (e *Enrol) ready() bool { return e.c.Ready == nil || e.c.Ready() }

// sure tells whether what Git says is known as it is now. A hub that is not sure gives no answer
// that a node takes for the last word, and removes nothing that other hubs share.
func (e *Enrol) sure() bool { return e.ready() && !e.c.Behind() }

// known tells whose key it is by Git.
func (e *Enrol) known(publicKey string) (node string, ok bool) {
	node, ok = e.c.Node(publicKey)
	return node, ok && node != ""
}

// verify checks a signature of a node over a message that names one of the hub's URLs.
func (e *Enrol) verify(publicKey string, signature []byte, message func(hub string) []byte) error {
	key, err := nkeys.FromPublicKey(publicKey)
	if err != nil {
		return fmt.Errorf("public key: %w", err)
	}
	for _, hub := range e.hubs {
		if key.Verify(message(hub), signature) == nil {
			return nil
		}
	}
	return errSignature
}
