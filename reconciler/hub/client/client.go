package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"selvedge/internal/backoff"
	"selvedge/schema/hubapi"
)

// Bounds of answers.
const (
	maxAnswer  = 64 << 20
	maxProblem = 64 << 10
)

// Config says which hub, and as whom.
type Config struct {
	URL   string // https://host[:port]
	Token string // empty: only what needs none
	// CA is what the hub's certificate must be of: empty for the authorities of the system,
	// "sha256:" and 64 hex digits of a CA's certificate (DER) in the chain that the hub
	// shows, or certificates in PEM.
	CA        string
	Timeout   time.Duration // of one answer, streams aside; 0 means 30 s
	Attempts  int           // of a question that changes nothing; 0 means 4
	UserAgent string        // empty: selvedge
}

// Client calls one hub. It is safe for concurrent use.
type Client struct {
	cfg  Config
	base *url.URL
	http *http.Client

	beat, silence time.Duration // of commands
}

// New returns a Client. It connects to nothing.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("hub %q: want https://HOST[:PORT]", cfg.URL)
	}
	if strings.ContainsFunc(cfg.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the token holds characters that no token has; copy it again")
	}
	u.Path = ""
	conf, err := trust(cfg.CA, u.Hostname())
	if err != nil {
		return nil, err
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 30*time.Second)
	cfg.Attempts = cmp.Or(cfg.Attempts, 4)
	cfg.UserAgent = cmp.Or(cfg.UserAgent, "selvedge")
	return &Client{cfg: cfg, base: u, beat: beat, silence: silence, http: &http.Client{
		Transport: transport(conf),
		// a hub redirects nobody: the token would go along
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// slowest is how long a hub may take to begin an answer: a restart waits for containers to stop.
const slowest = 100 * time.Second

func transport(conf *tls.Config) *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:       conf,
		TLSHandshakeTimeout:   10 * time.Second,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
		ResponseHeaderTimeout: slowest,
		// a stream over a link that died without a word ends
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}
}

// URL returns the hub's.
func (c *Client) URL() string { return c.base.String() }

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) request(ctx context.Context, method, path string, q url.Values, body any) (*http.Request, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base.String()+"/api/v1"+path, r)
	if err != nil {
		return nil, err
	}
	req.URL.RawQuery = q.Encode()
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.cfg.Token)
	}
	return req, nil
}

// call asks once, or for GET a few times, and decodes the answer into out unless that is nil.
func (c *Client) call(ctx context.Context, method, path string, q url.Values, body, out any) error {
	return c.callWithin(ctx, c.cfg.Timeout, method, path, q, body, out)
}

func (c *Client) callWithin(ctx context.Context, most time.Duration, method, path string, q url.Values, body, out any) error {
	return c.again(ctx, method == http.MethodGet, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, most)
		defer cancel()
		req, err := c.request(ctx, method, path, q, body)
		if err != nil {
			return err
		}
		res, err := c.send(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if out == nil {
			return nil
		}
		b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
		if err != nil {
			return c.broken(err)
		}
		if len(b) > maxAnswer {
			return fmt.Errorf("hub %s: the answer to %s is larger than %d MiB; ask for less, with a selector or a limit", c.base.Host, path, maxAnswer>>20)
		}
		if err := json.Unmarshal(b, out); err != nil {
			return fmt.Errorf("hub %s: the answer to %s cannot be read; is it a hub, and of this version? %w", c.base.Host, path, err)
		}
		return nil
	})
}

// send sends a request; an answer other than success is an error, a *hubapi.Problem in it.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.broken(err)
	}
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	return nil, c.problem(res)
}

// problem reads why a hub says no.
func (c *Client) problem(res *http.Response) error {
	p := &hubapi.Problem{}
	b, _ := io.ReadAll(io.LimitReader(res.Body, maxProblem)) // what came of it will do
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if kind != hubapi.MediaTypeProblem || json.Unmarshal(b, p) != nil {
		p = &hubapi.Problem{Title: "hub " + c.base.Host + " answered " + strconv.Itoa(res.StatusCode) + " " + http.StatusText(res.StatusCode)}
		if res.StatusCode >= 300 && res.StatusCode < 400 {
			p.Title += ": a redirect, which no hub sends; give the hub's own address"
		}
	}
	p.Status = res.StatusCode
	if p.Reason == "" {
		p.Reason = reasons[res.StatusCode]
	}
	if p.Title == "" && p.Detail == "" {
		p.Title = http.StatusText(res.StatusCode)
	}
	return &refused{p, retryAfter(res)}
}

var reasons = map[int]string{
	http.StatusUnauthorized:       hubapi.ReasonUnauthorized,
	http.StatusForbidden:          hubapi.ReasonForbidden,
	http.StatusNotFound:           hubapi.ReasonNotFound,
	http.StatusBadRequest:         hubapi.ReasonInvalid,
	http.StatusConflict:           hubapi.ReasonConflict,
	http.StatusTooManyRequests:    hubapi.ReasonBusy,
	http.StatusServiceUnavailable: hubapi.ReasonUnavailable,
	http.StatusBadGateway:         hubapi.ReasonUnavailable,
	http.StatusGatewayTimeout:     hubapi.ReasonTimeout,
}

// refused is a problem with when to ask again.
type refused struct {
	*hubapi.Problem
	after time.Duration
}

func (e *refused) Unwrap() error { return e.Problem }

func retryAfter(res *http.Response) time.Duration {
	s, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if err != nil || s < 0 {
		return 0
	}
	return min(time.Duration(s)*time.Second, 5*time.Second)
}

// Reason returns the reason of a problem (a Reason constant of hubapi), or "".
func Reason(err error) string {
	if p, ok := errors.AsType[*hubapi.Problem](err); ok {
		return p.Reason
	}
	return ""
}

// broken says for people what is wrong with the connection.
func (c *Client) broken(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // the URL is said below
	}
	if hint := untrusted(err, c.cfg.CA); hint != "" {
		return fmt.Errorf("hub %s: %w; %s", c.base.Host, err, hint)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("hub %s: %w; does selvedge-hub run there? nodes run on without it", c.base.Host, err)
	}
	return fmt.Errorf("hub %s: %w", c.base.Host, err)
}

// again repeats a question while the hub is away for a moment.
func (c *Client) again(ctx context.Context, safe bool, ask func(context.Context) error) error {
	wait := backoff.Backoff{Min: 100 * time.Millisecond, Max: 2 * time.Second}
	for i := 1; ; i++ {
		err := ask(ctx)
		if err == nil || !safe || i >= c.cfg.Attempts || !away(err) {
			return err
		}
		d := wait.Next()
		if r, ok := errors.AsType[*refused](err); ok {
			d = max(d, r.after)
		}
		if e := sleep(ctx, d); e != nil {
			return err
		}
	}
}

// away reports whether an error may pass by itself soon.
func away(err error) bool {
	if _, ok := errors.AsType[final](err); ok {
		return false
	}
	if r, ok := errors.AsType[*refused](err); ok {
		// a node that is offline or slow is an answer, not an absence of the hub
		return r.Status == http.StatusServiceUnavailable && (r.Reason == hubapi.ReasonUnavailable || r.Reason == "") ||
			r.Status == http.StatusTooManyRequests || r.Status == http.StatusBadGateway && r.Reason == hubapi.ReasonUnavailable
	}
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
