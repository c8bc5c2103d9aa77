package pull

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxRedirects   = 3
	maxHeader      = 64 << 10
	maxCredentials = 16 << 10
	maxCA          = 1 << 20
	dialTimeout    = 10 * time.Second
)

// errSlow is the cause of a context that ended because the answer took too long.
var errSlow = errors.New("too slow")

// answer is a whole HTTP answer; its body is within the bound that was asked for.
type answer struct {
	status     int
	header     http.Header
	body       []byte
	took       time.Duration // until the first byte
	retryAfter time.Duration
}

// get asks for one URL. Answers of 200 and 304 come back, with the body of a 200; all
// others are errors. wait is how long the server was asked to hold the request.
func (c *session) get(ctx context.Context, target string, header http.Header, limit int64, wait time.Duration) (*answer, error) {
	client, err := c.client()
	if err != nil {
		return nil, &Error{URL: target, Class: ErrConfig, Err: err}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, &Error{URL: target, Class: ErrConfig, Err: err}
	}
	req.Header = header.Clone()
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	switch {
	case c.bearer != "":
		req.Header.Set("Authorization", "Bearer "+c.bearer)
	case c.cfg.Access == nil && c.cfg.CredentialsFile != "":
		auth, err := credentials(c.cfg.CredentialsFile)
		if err != nil {
			return nil, &Error{URL: target, Class: ErrConfig, Err: err}
		}
		req.Header.Set("Authorization", auth)
	}
	start := time.Now()
	first := time.AfterFunc(wait+c.cfg.FirstByte, func() {
		cancel(fmt.Errorf("no answer within %v: %w", wait+c.cfg.FirstByte, errSlow))
	})
	resp, err := client.Do(req)
	first.Stop()
	if err != nil {
		err = transportError(ctx, target, err)
		if errors.Is(err, ErrTLS) {
			c.forget() // the CA file may be replaced: read it again next time
		}
		return nil, err
	}
	defer resp.Body.Close()
	a := &answer{status: resp.StatusCode, header: resp.Header, took: time.Since(start), retryAfter: retryAfter(resp.Header)}
	switch {
	case a.status == http.StatusNotModified:
		return a, nil
	case a.status != http.StatusOK:
		return nil, statusError(target, a) // its body is not read: it may be endless
	case resp.ContentLength > limit:
		return nil, broken(target, "%d bytes announced, more than %d", resp.ContentLength, limit)
	case resp.Header.Get("Content-Encoding") != "": // none was asked for
		return nil, broken(target, "content encoding %.40q", resp.Header.Get("Content-Encoding"))
	}
	a.body, err = c.paced(ctx, cancel, resp.Body, limit)
	if err != nil {
		return nil, transportError(ctx, target, err)
	}
	if int64(len(a.body)) > limit {
		return nil, broken(target, "more than %d bytes", limit)
	}
	return a, nil
}

// paced reads a body up to one byte above the limit, and ends the request when the whole
// takes too long or a stretch of it comes in slower than the least rate.
func (c *Client) paced(ctx context.Context, cancel context.CancelCauseFunc, body io.Reader, limit int64) ([]byte, error) {
	var count atomic.Int64
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		total := time.NewTimer(c.cfg.Timeout)
		defer total.Stop()
		stretch := time.NewTicker(c.cfg.stretch)
		defer stretch.Stop()
		least := int64(float64(c.cfg.MinRate) * c.cfg.stretch.Seconds())
		before := int64(0)
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-total.C:
				cancel(fmt.Errorf("not complete within %v: %w", c.cfg.Timeout, errSlow))
				return
			case <-stretch.C:
				now := count.Load()
				if now-before < least {
					cancel(fmt.Errorf("%d bytes within %v, less than %d bytes a second: %w", now-before, c.cfg.stretch, c.cfg.MinRate, errSlow))
					return
				}
				before = now
			}
		}
	})
	var buf bytes.Buffer
	_, err := io.Copy(&buf, &counted{io.LimitReader(body, limit+1), &count})
	close(done)
	watch.Wait()
	return buf.Bytes(), err
}

type counted struct {
	r io.Reader
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// client returns the HTTP client, made at first use since the CA file must be read.
func (c *Client) client() (*http.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http != nil {
		return c.http, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, Time: c.cfg.Now}
	if c.cfg.TLS != nil {
		conf = c.cfg.TLS()
	} else if pem, err := c.caPEM(); err != nil {
		return nil, err
	} else if pem != nil {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s: no certificate in PEM form", c.cfg.CAFile)
		}
	}
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSClientConfig:        conf,
			TLSHandshakeTimeout:    dialTimeout,
			MaxResponseHeaderBytes: maxHeader,
			MaxIdleConnsPerHost:    2,
			IdleConnTimeout:        2 * time.Minute,
			DisableCompression:     true, // layers are compressed already, and a bound holds for what is received
			ForceAttemptHTTP2:      true,
		},
		CheckRedirect: sameHost,
	}
	return c.http, nil
}

func (c *Client) caPEM() ([]byte, error) {
	if c.cfg.CAFile == "" {
		return c.cfg.CA, nil
	}
	pem, err := readFile(c.cfg.CAFile, maxCA)
	if err != nil {
		return nil, fmt.Errorf("CA file: %w", err)
	}
	return append(append(pem, '\n'), c.cfg.CA...), nil
}

func (c *Client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	c.http = nil
}

// sameHost keeps redirects, and with them the credentials, where the request went to.
func sameHost(req *http.Request, via []*http.Request) error {
	from := via[0].URL
	if req.URL.Scheme != from.Scheme || req.URL.Host != from.Host {
		return broken(from.String(), "redirected to another place, %s://%s", req.URL.Scheme, req.URL.Host)
	}
	if len(via) > maxRedirects {
		return broken(from.String(), "more than %d redirects", maxRedirects)
	}
	return nil
}

// retryAfter reads the header's form in seconds, the one that a node without a clock can use.
func retryAfter(h http.Header) time.Duration {
	s, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || s < 0 {
		return 0
	}
	return time.Duration(min(s, 3600)) * time.Second
}

// credentials returns the Authorization header for the file's one line.
func credentials(name string) (string, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return "", fmt.Errorf("credentials file: %w", err)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("credentials file: others may read %s (mode %04o); chmod 600 %s", name, fi.Mode().Perm(), name)
	}
	b, err := readFile(name, maxCredentials)
	if err != nil {
		return "", fmt.Errorf("credentials file: %w", err)
	}
	line := strings.TrimSpace(string(b))
	if token, ok := strings.CutPrefix(line, "Bearer "); ok && printable(token) && !strings.Contains(token, " ") {
		return "Bearer " + token, nil
	}
	if user, _, ok := strings.Cut(line, ":"); ok && user != "" && printable(line) {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(line)), nil
	}
	return "", fmt.Errorf("credentials file %s: want one line, user:password or Bearer and a token", name)
}

func printable(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", name, limit)
	}
	return b, err
}

// base checks the registry's address.
func base(registry string, allowHTTP bool) (string, error) {
	u, err := url.Parse(registry)
	if err != nil {
		return "", fmt.Errorf("registry: %w", err)
	}
	if u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("registry %q: want https://host or https://host:port, and the rest as prefix", u.Redacted())
	}
	if u.Scheme == "http" && !allowHTTP && !loopback(u.Hostname()) {
		return "", fmt.Errorf("registry %q: plain HTTP is for loopback only; use https, or allow it by name", registry)
	}
	return u.Scheme + "://" + u.Host, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
