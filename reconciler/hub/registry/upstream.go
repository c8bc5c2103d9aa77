package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

const (
	maxRedirects = 5
	headerTime   = 30 * time.Second // for an upstream to begin its answer
)

// Upstream is a registry of images that the hub passes on.
type Upstream struct {
	Host            string // as images name it, host[:port]
	URL             string // where it is; empty: https://Host
	CA              string // PEM file; empty: the system's
	CredentialsFile string // a docker config file; empty: anonymous
	PlainHTTP       bool   // on loopback only
}

// upstream asks one registry. Credentials go to it alone, and to the token service that it
// names, over TLS; where it redirects to gets none (oras-go's client sees to that).
type upstream struct {
	base   *url.URL
	client *auth.Client
}

func newUpstream(c Upstream) (*upstream, error) {
	if c.Host == "" || c.Host != strings.ToLower(c.Host) || strings.ContainsAny(c.Host, "/@ ") {
		return nil, errors.New("the host is not as images name it: host or host:port, in lower case")
	}
	text := c.URL
	if text == "" {
		text = "https://" + c.Host
		if c.PlainHTTP {
			text = "http://" + c.Host
		} else if c.Host == "docker.io" {
			text = "https://registry-1.docker.io"
		}
	}
	base, err := url.Parse(text)
	if err != nil || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" || strings.Trim(base.Path, "/") != "" {
		return nil, fmt.Errorf("%q is no address of a registry; give https://host[:port]", text)
	}
	switch base.Scheme {
	case "https":
	case "http":
		if !c.PlainHTTP || !loopback(base) {
			return nil, fmt.Errorf("%s: plain HTTP is for loopback only, and when asked for", text)
		}
	default:
		return nil, fmt.Errorf("%q is no address of a registry; give https://host[:port]", text)
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("read CA: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read CA %s: no certificate in it", c.CA)
		}
	}
	u := &upstream{base: &url.URL{Scheme: base.Scheme, Host: base.Host}}
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, Control: noLinkLocal}).DialContext,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  headerTime,
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        time.Minute,
		DisableCompression:     true, // bytes are passed on as they are
		ForceAttemptHTTP2:      true,
	}
	u.client = &auth.Client{
		Client: &http.Client{
			Transport: tlsOnly{transport, base.Scheme == "http"},
			CheckRedirect: func(_ *http.Request, via []*http.Request) error {
				if len(via) >= maxRedirects {
					return fmt.Errorf("stopped after %d redirects", maxRedirects)
				}
				return nil
			},
		},
		Cache: auth.NewCache(),
	}
	u.client.SetUserAgent("selvedge-hub")
	if c.CredentialsFile != "" {
		if u.client.Credential, err = credential(c.CredentialsFile, base.Host, c.Host); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// credential looks a registry's credentials up, by where it is and by how images name it. The
// file is read again each time: passwords change.
func credential(file, at, named string) (auth.CredentialFunc, error) {
	look := func(ctx context.Context) (auth.Credential, error) {
		if _, err := os.Stat(file); err != nil { // the library takes a missing file for an empty one
			return auth.EmptyCredential, fmt.Errorf("read credentials: %w", err)
		}
		store, err := credentials.NewStore(file, credentials.StoreOptions{})
		if err != nil {
			return auth.EmptyCredential, fmt.Errorf("read credentials: %w", err)
		}
		for _, host := range []string{at, named} {
			if c, err := credentials.Credential(store)(ctx, host); err != nil || c != auth.EmptyCredential {
				return c, err
			}
		}
		return auth.EmptyCredential, nil
	}
	_, err := look(context.Background())
	return func(ctx context.Context, host string) (auth.Credential, error) {
		if host != at {
			return auth.EmptyCredential, nil
		}
		return look(ctx)
	}, err
}

func loopback(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// tlsOnly refuses plain HTTP, wherever a redirect or a token service leads; on loopback it
// may be allowed.
type tlsOnly struct {
	next  http.RoundTripper
	plain bool
}

func (t tlsOnly) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !(t.plain && loopback(r.URL)) {
		return nil, fmt.Errorf("%s: plain HTTP is for loopback only", r.URL.Redacted())
	}
	return t.next.RoundTrip(r)
}

// noLinkLocal keeps redirects from the addresses where clouds keep machines' credentials.
func noLinkLocal(_, address string, _ syscall.RawConn) error {
	if a, err := netip.ParseAddrPort(address); err == nil && a.Addr().Unmap().IsLinkLocalUnicast() {
		return fmt.Errorf("%s: link-local addresses are not dialed", address)
	}
	return nil
}

// ask sends a request for content; the answer's body must be closed.
func (u *upstream) ask(ctx context.Context, method, repository, kind, reference string, header http.Header) (*http.Response, error) {
	ctx = auth.AppendScopesForHost(ctx, u.base.Host, auth.ScopeRepository(repository, auth.ActionPull))
	to := *u.base
	to.Path = "/v2/" + repository + "/" + kind + "/" + reference
	q, err := http.NewRequestWithContext(ctx, method, to.String(), nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		q.Header[k] = v
	}
	return u.client.Do(q)
}
