package hub

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"selvedge/internal/serve"
)

// open returns how to reach the registry, with its credentials.
func (s *States) open() (http.RoundTripper, *url.URL, error) {
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, nil, fmt.Errorf("%w: --states-registry %q; give https://host[:port]", ErrConfig, s.URL)
	}
	if u.Scheme == "http" {
		if err := serve.CheckListen(u.Host, false); err != nil {
			return nil, nil, fmt.Errorf("%w: --states-registry %s: plain HTTP beyond loopback", ErrConfig, s.URL)
		}
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 256
	if s.CA != "" {
		pem, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, nil, fmt.Errorf("CA of the registry of states: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("%w: %s holds no certificate", ErrConfig, s.CA)
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	if s.CredentialsFile == "" {
		return t, u, nil
	}
	return &authorized{t, s.CredentialsFile}, u, nil
}

// authorized adds credentials, read anew for each request: they may be rotated.
type authorized struct {
	next http.RoundTripper
	file string
}

func (a *authorized) RoundTrip(r *http.Request) (*http.Response, error) {
	b, err := os.ReadFile(a.file)
	if err != nil {
		return nil, fmt.Errorf("credentials of the registry of states: %w", err)
	}
	line := strings.TrimSpace(string(b))
	if !strings.HasPrefix(line, "Bearer ") {
		line = "Basic " + base64.StdEncoding.EncodeToString([]byte(line))
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", line)
	return a.next.RoundTrip(r)
}
