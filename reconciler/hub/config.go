package hub

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"selvedge/internal/serve"
	"selvedge/reconciler/hub/bus"
	"selvedge/reconciler/hub/registry"
)

// Config is what a Hub works with.
type Config struct {
	DataDir string   // keys, certificate, status, audit log; made if missing
	Listen  string   // host:port of the one port
	URLs    []string // https://host[:port], as nodes and people dial it; the first is given to people

	CertFile, KeyFile string // PEM; empty: self-made, with an authority of its own
	CAFile            string // PEM, with CertFile: what join lines pin; empty: a public authority

	Reconciler    string      // unix:PATH or https://host:port
	ReconcilerTLS *tls.Config // for https
	// States is the registry that the reconciler pushes states to, if it serves none itself.
	States *States
	Images []registry.Upstream

	BusServers []string // an external NATS cluster; empty: embedded
	BusCA      string
	BusListen  string // for nodes without WebSocket; empty: none

	// MaxConnsPerSource is how many connections one IPv4 address or IPv6 /64 may have at once;
	// more are closed. A plant's nodes may all sit behind one address. 0 means 5,000.
	MaxConnsPerSource int
	// AuthPerSource is how many requests below /auth/ a second are answered to one such source;
	// bursts are twenty times as large. 0 means 100.
	AuthPerSource int
	// AuthRate is how many a second are answered in all; bursts are five times as large. 0 means 1,000.
	AuthRate int

	// Doubt passes before a connected node that Git does not list is put out: the roster may be
	// late. 0 means 3 s, and 90 s with BusServers, where another hub may have heard more.
	Doubt time.Duration

	Metrics string // host:port on loopback, or "": only on the one port, for those who see the platform
	Log     *slog.Logger
	// Now is the clock of what is told and of what expires, for tests; the bus and TLS have the
	// machine's. nil: time.Now.
	Now func() time.Time `json:"-"`
}

// States is a registry of states.
type States struct {
	URL             string // https://host[:port]; http:// on loopback
	CA              string // PEM file
	CredentialsFile string // one line: user:password, or Bearer and a token
}

// DefaultMaxConnsPerSource is Config.MaxConnsPerSource if none is given.
const DefaultMaxConnsPerSource = 5000

// ErrConfig marks settings that cannot be right.
var ErrConfig = errors.New("wrong setting")

func (c *Config) check() error {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("%w: --listen %q; give HOST:PORT, or :PORT", ErrConfig, c.Listen)
	}
	if c.Metrics != "" {
		if err := serve.CheckListen(c.Metrics, false); err != nil {
			return fmt.Errorf("%w: --metrics %s; without a token they are served on loopback only, as on 127.0.0.1:9465", ErrConfig, c.Metrics)
		}
	}
	if c.MaxConnsPerSource < 0 || c.AuthPerSource < 0 || c.AuthRate < 0 {
		return fmt.Errorf("%w: --max-connections-per-source, --auth-per-source and --auth-rate count from 1; leave them out for what is usual", ErrConfig)
	}
	if c.MaxConnsPerSource == 0 {
		c.MaxConnsPerSource = DefaultMaxConnsPerSource
	}
	if err := bus.CheckServers(c.BusServers); err != nil {
		return fmt.Errorf("%w: --bus: %w", ErrConfig, err)
	}
	if len(c.URLs) == 0 {
		return fmt.Errorf("%w: under which address do nodes and people dial the hub? --url https://hub.example:8443", ErrConfig)
	}
	c.URLs = slices.Clone(c.URLs) // the caller's stay as they are
	for i, s := range c.URLs {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("%w: --url %q; give https://host or https://host:port", ErrConfig, s)
		}
		c.URLs[i] = "https://" + strings.ToLower(u.Host)
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return fmt.Errorf("%w: --tls-cert and --tls-key belong together", ErrConfig)
	}
	if c.Reconciler == "" {
		return fmt.Errorf("%w: where is the reconciler? --reconciler unix:PATH or https://host:port", ErrConfig)
	}
	return nil
}

// names are the hosts of URLs, for a self-made certificate.
func (c *Config) names() []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	for _, s := range c.URLs {
		u, err := url.Parse(s)
		if err != nil {
			continue // checked before
		}
		host := u.Hostname()
		if addr, err := netip.ParseAddr(host); err == nil {
			host = addr.Unmap().String()
		}
		if !slices.Contains(names, host) {
			names = append(names, host)
		}
	}
	return names
}
