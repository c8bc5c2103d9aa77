package uplink

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	randv2 "math/rand/v2"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/net/http/httpproxy"

	"selvedge/edge/auth"
	"selvedge/internal/backoff"
	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

// Hands do what the hub asks and the signed state grants. A *wire.Error tells the hub more than
// another error does.
type Hands interface {
	// Logs writes until the end of what is asked for, or until the context or the writer ends.
	Logs(ctx context.Context, r wire.LogsRequest, w io.Writer) error
	Exec(ctx context.Context, r wire.ExecRequest, t Terminal) (code int, err error)
	Restart(ctx context.Context, r wire.RestartRequest) error
}

// Terminal is the other end of a command.
type Terminal struct {
	Stdin          io.Reader // nil: none
	Stdout, Stderr io.Writer
	Resize         <-chan Size
}

// Size is a terminal's.
type Size struct{ Rows, Columns uint16 }

// Config is what an Uplink needs.
type Config struct {
	Node    string
	Auth    *auth.Client
	Tokens  *auth.Keeper
	Sign    func([]byte) ([]byte, error) // with the key that the tokens are for
	Status  func() wire.Status           // all but node, epoch, number and time
	Granted func() nodestate.Remote      // by the state that is being run and the newest verified one, both
	Hands   Hands
	Notice  func(wire.Notice) // there may be something new; must not block
	Linked  func(up bool)     // the connection came or went; must not block
	Now     func() time.Time  // for people; nil means time.Now
	Log     *slog.Logger      // nil means slog.Default()

	Interval time.Duration // between statuses; 0 means wire.StatusInterval
	Retry    time.Duration // the most between attempts to connect; 0 means 30 s
	Ping     time.Duration // between questions whether the hub is still there, of which two may stay without an answer; 0 means 20 s
	idle     time.Duration // of streams; tests shorten it
	proxy    func(*url.URL) (*url.URL, error)
}

// Uplink is the connection. Make it with New.
type Uplink struct {
	cfg    Config
	epoch  string
	seq    atomic.Uint64
	sooner chan struct{} // capacity 1: a status is due
	fresh  chan struct{} // capacity 1: there are events to send
	ended  chan struct{} // capacity 1: a stream ended

	redial redial

	// mu is taken inside of the library's own lock, by what it calls to get a token: nothing of a
	// nats.Conn is called with it.
	mu      sync.Mutex
	conn    *nats.Conn // nil: none yet
	up      bool       // it is connected, as the library said last: asking it may block
	hub     string     // the one it is connected to
	why     string     // there is no connection
	since   time.Time  // of the one or the other
	used    auth.Grant // for the connection
	closing bool       // no more work is begun
	streams map[string]*stream
	owed    map[string][]byte // last frames of streams that ended without a connection
	ring    []wire.Event
	lastSeq uint64
	sent    uint64 // the newest event that was sent
	round   int    // grows when all are to be sent again
	work    sync.WaitGroup
	asked   atomic.Int64 // restarts on their way
	refused atomic.Uint64

	slow, forbidden time.Time // when it was last said
	limit           limiter
}

// New returns an Uplink; it dials nothing.
func New(cfg Config) *Uplink {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Interval <= 0 {
		cfg.Interval = wire.StatusInterval
	}
	if cfg.Retry <= 0 {
		cfg.Retry = 30 * time.Second
	}
	if cfg.Ping <= 0 {
		cfg.Ping = 20 * time.Second
	}
	if cfg.idle <= 0 {
		cfg.idle = wire.StreamIdle * time.Second
	}
	if cfg.proxy == nil {
		cfg.proxy = httpproxy.FromEnvironment().ProxyFunc()
	}
	if cfg.Linked == nil {
		cfg.Linked = func(bool) {}
	}
	return &Uplink{cfg: cfg, redial: redial{most: cfg.Retry}, epoch: rand.Text(), sooner: make(chan struct{}, 1), fresh: make(chan struct{}, 1), ended: make(chan struct{}, 1),
		streams: map[string]*stream{}, owed: map[string][]byte{}}
}

// Link is how the connection stands.
type Link struct {
	Connected bool
	Hub       string // as far as known
	Why       string // there is none
	Since     time.Time
	Streams   int
}

// Link returns how the connection stands.
func (u *Uplink) Link() Link {
	u.mu.Lock()
	defer u.mu.Unlock()
	return Link{Connected: u.up, Hub: u.hub, Why: u.why, Since: u.since, Streams: len(u.streams)}
}

// Denied returns how many requests, and streams on their way, were not granted by the state.
func (u *Uplink) Denied() uint64 { return u.refused.Load() }

// Changed says that status, or what the state grants, may differ: a status is sent soon, and
// streams that are not granted any more end.
func (u *Uplink) Changed() {
	poke(u.sooner)
	u.enforce()
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run keeps the connection until the context ends.
func (u *Uplink) Run(ctx context.Context) error {
	retry := backoff.Backoff{Min: time.Second, Max: u.cfg.Retry}
	for {
		began := time.Now()
		err := u.connection(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		u.note(err)
		if time.Since(began) > time.Minute {
			retry.Reset()
		}
		pause := max(retry.Next(), u.cfg.Tokens.Soon())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// note remembers why there is no connection, and says it once.
func (u *Uplink) note(err error) {
	if err == nil {
		return
	}
	why := reason(err)
	u.mu.Lock()
	again := u.why == why
	if !again {
		u.why, u.since = why, time.Now()
	}
	u.mu.Unlock()
	if !again {
		u.cfg.Log.Warn("no live connection to a hub; running on", "error", why)
	}
}

// ownPort is this side of a connection, other each time: one cause must be one text.
var ownPort = regexp.MustCompile(`[^ ]+:[0-9]+->`)

// reason is why there is no connection, the same for the same cause, whoever met it.
func reason(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	if !strings.HasPrefix(text, "hub ") { // as those of package auth do, which the library hands on
		text = "hub: " + text
	}
	return ownPort.ReplaceAllString(text, "")
}

// connection is one connection of the library's, which reconnects by itself, until it gives up.
func (u *Uplink) connection(ctx context.Context) error {
	if _, err := u.cfg.Tokens.Grant(ctx); err != nil { // a node that is not let in dials no bus
		return err
	}
	closed := make(chan struct{})
	d := &dialer{ctx: ctx, proxy: u.cfg.proxy}
	conn, err := nats.Connect(strings.Join(busURLs(u.cfg.Auth.Hubs()), ","), u.options(ctx, d, closed)...)
	if err != nil {
		return err
	}
	u.mu.Lock()
	u.conn, u.closing = conn, false
	u.mu.Unlock()
	work, stop := context.WithCancel(context.WithoutCancel(ctx)) // ends after streams were told why
	defer stop()
	sub, err := conn.Subscribe(wire.RequestSubject(u.cfg.Node, ">"), func(m *nats.Msg) { u.hear(work, m) })
	if err == nil {
		err = sub.SetPendingLimits(maxWaiting, maxWaitingBytes)
	}
	if err == nil {
		inner, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() { u.reporting(inner, conn) })
		wg.Go(func() { u.renewing(inner, conn, d) })
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-closed:
			err = errors.Join(errors.New("the live connection was closed"), conn.LastError())
		}
		cancel()
		wg.Wait()
	}
	u.mu.Lock()
	u.closing = true
	u.mu.Unlock()
	u.endStreams(errors.New("the node's agent ends"), func(*stream) bool { return true })
	stop()
	u.work.Wait()
	if conn.IsConnected() {
		conn.FlushTimeout(time.Second) // last words
	}
	conn.Close()
	u.mu.Lock()
	u.conn, u.up = nil, false
	u.mu.Unlock()
	return err
}

func busURLs(hubs []string) (urls []string) {
	for _, h := range hubs {
		if rest, ok := strings.CutPrefix(h, "http://"); ok {
			urls = append(urls, "ws://"+port(rest, "80"))
		} else {
			urls = append(urls, "wss://"+port(strings.TrimPrefix(h, "https://"), "443"))
		}
	}
	return urls
}

// port gives a host the port that the library would not know.
func port(host, usual string) string {
	if strings.LastIndexByte(host, ':') > strings.LastIndexByte(host, ']') {
		return host
	}
	return host + ":" + usual
}

// Bounds of what waits for the agent.
const (
	maxWaiting      = 4096
	maxWaitingBytes = 16 << 20
	maxRestarts     = 8
)

func (u *Uplink) options(ctx context.Context, d *dialer, closed chan struct{}) []nats.Option {
	opts := []nats.Option{
		nats.Name("selvedge-edge " + u.cfg.Node),
		nats.UserJWT(func() (string, error) {
			ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			g, err := u.cfg.Tokens.Grant(ctx)
			if err != nil {
				u.note(err)
			} else {
				u.mu.Lock()
				u.used = g
				u.mu.Unlock()
			}
			return g.Bus, err
		}, u.signNonce),
		nats.ProxyPath(wire.PathBus),
		nats.CustomInboxPrefix(wire.InboxPrefix(u.cfg.Node)),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1), // what cannot be sent now is said anew later
		nats.IgnoreAuthErrorAbort(),
		nats.IgnoreDiscoveredServers(),
		nats.ReconnectToServer(u.redial.next),
		nats.Timeout(10 * time.Second),
		nats.SetCustomDialer(d),
		nats.PingInterval(u.cfg.Ping), nats.MaxPingsOutstanding(2),
		nats.FlusherTimeout(30 * time.Second),
		nats.NoCallbacksAfterClientClose(),
		nats.ConnectHandler(u.connected),
		nats.ReconnectHandler(u.connected),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { u.disconnected(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { u.failed(err) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { u.failed(err) }),
		nats.ClosedHandler(func(*nats.Conn) { close(closed) }),
	}
	if strings.HasPrefix(u.cfg.Auth.Hubs()[0], "https://") {
		opts = append(opts, nats.Secure(u.cfg.Auth.TLS())) // not shared with HTTP, which would offer h2
	}
	return opts
}

// busNonce is what servers of a bus give to be signed. All else that a node's key signs has more
// than one line.
var busNonce = regexp.MustCompile(`^[A-Za-z0-9_-]{8,64}$`)

// signNonce signs what proves to a bus that this is the node. Whoever answers chooses it, and must
// not get a signature with which to be this node elsewhere.
func (u *Uplink) signNonce(nonce []byte) ([]byte, error) {
	if !busNonce.Match(nonce) {
		return nil, errors.New("what its bus wants signed is no nonce; nothing was signed")
	}
	return u.cfg.Sign(nonce)
}

func (u *Uplink) connected(conn *nats.Conn) {
	url := conn.ConnectedUrl() // empty if it has ended meanwhile
	if url != "" {
		u.redial.connected(url)
	}
	u.mu.Lock()
	u.conn, u.up, u.why, u.since = conn, true, "", time.Now()
	u.hub = strings.Replace(url, "ws", "http", 1)
	u.sent, u.round = 0, u.round+1 // the hub may be another one: say it all again
	owed := u.owed
	u.owed = map[string][]byte{}
	u.mu.Unlock()
	for id, frame := range owed {
		conn.Publish(wire.StreamSubject(u.cfg.Node, id), frame)
	}
	u.cfg.Log.Info("connected to a hub", "url", url)
	poke(u.sooner)
	poke(u.fresh)
	u.cfg.Linked(true)
}

func (u *Uplink) disconnected(err error) {
	if err == nil {
		err = errors.New("the connection was closed")
	}
	u.mu.Lock()
	u.up = false
	u.mu.Unlock()
	u.note(err)
	// frames and credit may be lost on the way: nobody can go on with such a stream
	u.endStreams(errors.New("the node's connection was interrupted"), func(*stream) bool { return true })
	u.cfg.Linked(false)
}

// failed looks at an error that the library met.
func (u *Uplink) failed(err error) {
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired):
		if g, ok, _ := u.cfg.Tokens.Last(); ok {
			u.cfg.Tokens.Stale(g.Bus)
		}
		u.note(err)
	case errors.Is(err, nats.ErrSlowConsumer):
		if u.due(&u.slow) {
			u.cfg.Log.Warn("the hub sends more than is read; some of it is dropped")
		}
	case errors.Is(err, nats.ErrPermissionViolation):
		if u.due(&u.forbidden) {
			u.cfg.Log.Warn("the hub's bus does not allow it", "error", err)
		}
	default:
		u.mu.Lock()
		up := u.up
		u.mu.Unlock()
		if !up {
			u.note(err)
		}
	}
}

// due reports whether a warning that a hub can bring about at will may be said again: the log is
// bounded, and has to keep what people asked for.
func (u *Uplink) due(last *time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !last.IsZero() && time.Since(*last) < time.Minute {
		return false
	}
	*last = time.Now()
	return true
}

// renewing connects anew before the token ends: the server would cut the connection then. It
// waits for a moment without streams, as far as the token lets it.
func (u *Uplink) renewing(ctx context.Context, conn *nats.Conn, d *dialer) {
	for {
		u.mu.Lock()
		g := u.used
		u.mu.Unlock()
		age, life := time.Since(g.Got), g.BusFor
		due, last := life*7/10, life*9/10
		pause := time.Second
		switch {
		case life == 0: // there was no connection yet
		case age < due:
			pause = due - age + randv2.N(life/10+1)
		case u.open() > 0 && age < last:
			pause = last - age
		default:
			u.renew(ctx, conn, d, g)
			pause = max(time.Second, u.cfg.Tokens.Soon())
		}
		select {
		case <-ctx.Done():
			return
		case <-u.ended:
		case <-time.After(pause):
		}
	}
}

// renew connects with a newer token than the connection has.
func (u *Uplink) renew(ctx context.Context, conn *nats.Conn, d *dialer, old auth.Grant) {
	fresh, err := u.cfg.Tokens.Renewed(ctx, 0.65)
	if err != nil {
		u.note(err)
		return
	}
	if fresh.Bus == old.Bus {
		return
	}
	u.endStreams(errors.New("the node's connection is renewed"), func(*stream) bool { return true })
	for n := 0; n < 20 && u.open() > 0 && ctx.Err() == nil; n++ { // their ends are to arrive
		select {
		case <-u.ended:
		case <-time.After(100 * time.Millisecond):
		}
	}
	conn.FlushTimeout(5 * time.Second)
	// Not by ForceReconnect: if the connection is lost in this moment, the library pauses no more.
	u.redial.again()
	d.cut()
}

func (u *Uplink) open() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.streams)
}
