package auth

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

const (
	maxAnswer  = 64 << 10
	maxTrust   = 2 << 20 // base64 of root documents, which are bounded themselves
	maxHeader  = 16 << 10
	maxHubs    = 16
	maxImages  = 64
	maxJWT     = 16 << 10
	answerTime = 20 * time.Second
)

// Config says where hubs are and who asks.
type Config struct {
	Hubs      []string // https://host[:port], tried in turn; http:// on loopback only
	CA        []byte   // PEM, in place of the system's certificates
	Pin       string   // sha256:… of a certificate in the hub's chain, in place of CA
	PublicKey string
	Sign      func(message []byte) ([]byte, error)
	Now       func() time.Time // for certificates; nil means time.Now
	UserAgent string           // "" means selvedge-edge
	Timeout   time.Duration    // of one question; 0 means 20 s
}

// Client asks hubs. It is safe for concurrent use.
type Client struct {
	cfg       Config
	hubs      []string
	addresses []string // of the hubs that are named by IP address
	roots     *x509.CertPool
	http      *http.Client

	mu     sync.Mutex
	at     int // the hub that answered last
	pinned *x509.Certificate
}

// New checks the configuration. It dials nothing.
func New(cfg Config) (*Client, error) {
	c := &Client{cfg: cfg}
	if len(cfg.Hubs) == 0 || len(cfg.Hubs) > maxHubs {
		return nil, fmt.Errorf("%d hubs; want 1 to %d", len(cfg.Hubs), maxHubs)
	}
	for _, h := range cfg.Hubs {
		hub, err := Hub(h)
		if err != nil {
			return nil, err
		}
		c.hubs = append(c.hubs, hub)
		if u, err := url.Parse(hub); err == nil && isAddress(u.Hostname()) {
			c.addresses = append(c.addresses, u.Hostname())
		}
	}
	if cfg.Pin != "" && !ValidPin(cfg.Pin) {
		return nil, fmt.Errorf("pinned certificate %.80q: want sha256: and 64 hex digits", cfg.Pin)
	}
	if cfg.CA != nil {
		c.roots = x509.NewCertPool()
		if !c.roots.AppendCertsFromPEM(cfg.CA) {
			return nil, errors.New("the hub's CA: no certificate in PEM form")
		}
	}
	if c.cfg.Now == nil {
		c.cfg.Now = time.Now
	}
	if c.cfg.UserAgent == "" {
		c.cfg.UserAgent = "selvedge-edge"
	}
	if c.cfg.Timeout <= 0 {
		c.cfg.Timeout = answerTime
	}
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSClientConfig:        c.TLS(),
			TLSHandshakeTimeout:    10 * time.Second,
			MaxResponseHeaderBytes: maxHeader,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        30 * time.Second,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Hub returns a hub's address as nodes and hubs sign it, scheme and host[:port] without a
// default port, or why it is none.
func Hub(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("hub: %w", err)
	}
	if u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("hub %q: want https://host or https://host:port", u.Redacted())
	}
	host := u.Hostname()
	if ip := net.ParseIP(host); u.Scheme == "http" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", fmt.Errorf("hub %q: plain HTTP is for loopback only; use https", address)
	}
	return u.Scheme + "://" + strings.ToLower(u.Host), nil
}

// Close closes idle connections. The client may be used again.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Hubs returns the addresses that are asked.
func (c *Client) Hubs() []string { return c.hubs }

// Grant is a Token, who gave it and when.
type Grant struct {
	wire.Token
	Hub string
	Got time.Time     // with a monotonic reading
	For time.Duration // it holds, from Got
	// BusFor is how long the bus token holds, which may be longer.
	BusFor time.Duration
}

// busLife returns how long a JWT holds by what it says and by the hub's clock; nothing is believed
// of it: the hub's bus does not keep a connection longer. When it was issued does not count: that
// only tells newer ones from older ones, and may lie in the future.
func busLife(token string, now time.Time) time.Duration {
	parts := strings.Split(token, ".")
	var claims struct{ Exp int64 }
	if len(parts) != 3 {
		return 0
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(b, &claims) != nil || claims.Exp <= 0 || claims.Exp > 1<<40 {
		return 0
	}
	life := time.Unix(claims.Exp, 0).Sub(now)
	if life < 0 || life > 366*24*time.Hour {
		return 0
	}
	return life
}

// Token proves who this node is. The error is a *Problem.
func (c *Client) Token(ctx context.Context) (Grant, error) {
	return ask(ctx, c, func(ctx context.Context, hub string) (Grant, error) {
		g := Grant{Hub: hub}
		nonce, err := c.nonce(ctx, hub)
		if err != nil {
			return g, err
		}
		signature, err := c.sign(wire.TokenMessage(hub, nonce))
		if err != nil {
			return g, err
		}
		err = c.exchange(ctx, http.MethodPost, hub, wire.PathToken, wire.TokenRequest{PublicKey: c.cfg.PublicKey, Nonce: nonce, Signature: signature}, &g.Token, maxAnswer)
		if err != nil {
			return g, err
		}
		g.Got = time.Now()
		g.For = min(g.Expires.Sub(g.Token.Now), 24*time.Hour)
		g.BusFor = max(g.For, busLife(g.Bus, g.Token.Now))
		switch {
		case !nodestate.ValidNode(g.Node):
			return g, &Problem{Hub: hub, Err: fmt.Errorf("it calls this node %.80q, which is no node's name", g.Node)}
		case g.For <= 0 || g.Bus == "" || len(g.Bus) > maxJWT || g.Bearer == "" || len(g.Bearer) > maxJWT || strings.ContainsFunc(g.Bearer, func(r rune) bool { return r <= ' ' || r > '~' }):
			return g, &Problem{Hub: hub, Err: errors.New("its token is of no use")}
		case len(g.Images) > maxImages:
			g.Images = g.Images[:maxImages]
		}
		return g, nil
	})
}

// Trust returns the root documents, oldest first. Nothing about them is checked.
func (c *Client) Trust(ctx context.Context) ([][]byte, error) {
	return ask(ctx, c, func(ctx context.Context, hub string) ([][]byte, error) {
		var t wire.Trust
		err := c.exchange(ctx, http.MethodGet, hub, wire.PathTrust, nil, &t, maxTrust)
		return t.Documents, err
	})
}

// Join asks to be let in; it signs the request. The error is a *Problem.
func (c *Client) Join(ctx context.Context, r wire.JoinRequest) (wire.Joined, error) {
	r.PublicKey = c.cfg.PublicKey
	return ask(ctx, c, func(ctx context.Context, hub string) (j wire.Joined, err error) {
		if r.Signature, err = c.sign(wire.JoinMessage(hub, r)); err != nil {
			return j, err
		}
		err = c.exchange(ctx, http.MethodPost, hub, wire.PathJoin, r, &j, maxAnswer)
		if err == nil && (j.Code == "" || len(j.Code) > 32 || strings.ContainsFunc(j.Code, func(r rune) bool { return r <= ' ' || r > '~' })) {
			err = &Problem{Hub: hub, Err: errors.New("it gives no code for the request")}
		}
		return j, err
	})
}

func (c *Client) nonce(ctx context.Context, hub string) (string, error) {
	var n wire.Nonce
	if err := c.exchange(ctx, http.MethodGet, hub, wire.PathNonce, nil, &n, maxAnswer); err != nil {
		return "", err
	}
	if n.Nonce == "" || len(n.Nonce) > 512 || strings.ContainsFunc(n.Nonce, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", &Problem{Hub: hub, Err: errors.New("its nonce is none")} // a line break could make it another message
	}
	return n.Nonce, nil
}

func (c *Client) sign(message []byte) (string, error) {
	b, err := c.cfg.Sign(message)
	return base64.StdEncoding.EncodeToString(b), err
}

// ask tries the hubs in turn, the one that answered last first.
func ask[T any](ctx context.Context, c *Client, f func(context.Context, string) (T, error)) (T, error) {
	c.mu.Lock()
	from := c.at
	c.mu.Unlock()
	var (
		v    T
		errs []error
	)
	for n := range c.hubs {
		at := (from + n) % len(c.hubs)
		v0, err := f(ctx, c.hubs[at])
		var p *Problem
		if err == nil || errors.As(err, &p) && p.final() {
			c.mu.Lock()
			c.at = at
			c.mu.Unlock()
			return v0, err
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 1 {
		return v, errs[0]
	}
	return v, errors.Join(errs...)
}

// exchange sends one question and decodes the answer.
func (c *Client) exchange(ctx context.Context, method, hub, path string, question, answer any, most int64) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	var body io.Reader = http.NoBody
	if question != nil {
		b, err := json.Marshal(question)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, hub+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	req.Header.Set("Accept", "application/json, application/problem+json")
	if question != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return &Problem{Hub: hub, Err: err}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	if err != nil {
		return &Problem{Hub: hub, Status: res.StatusCode, Err: err}
	}
	if int64(len(b)) > most {
		return &Problem{Hub: hub, Err: fmt.Errorf("%s: more than %d bytes", path, most)}
	}
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusCreated && res.StatusCode != http.StatusAccepted {
		return problem(hub, res, b)
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return &Problem{Hub: hub, Err: fmt.Errorf("%s: %w; is it a hub?", path, err)}
	}
	return nil
}

func problem(hub string, res *http.Response, body []byte) *Problem {
	p := &Problem{Hub: hub, Status: res.StatusCode}
	if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && s > 0 {
		p.RetryAfter = time.Duration(min(s, 3600)) * time.Second
	}
	var said struct{ Type, Title, Detail string }
	if json.Unmarshal(body, &said) == nil {
		p.Type = said.Type
		if said.Detail == "" {
			said.Detail = said.Title
		}
		p.Detail = plain(said.Detail)
	}
	return p
}
