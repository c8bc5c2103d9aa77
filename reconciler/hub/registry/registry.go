package registry

import (
	"log/slog"
	"net/http"
	"net/url"

	"selvedge/schema/roster"
)

// Config configures a Registry.
type Config struct {
	States http.RoundTripper // to the reconciler's store
	Base   *url.URL          // of it, to use with States; its path is that of /v2/'s parent
	Prefix func() string     // of the repositories of states and trust
	Images []Upstream
	// Node tells who asks; an error: nobody who may.
	Node func(*http.Request) (name string, n roster.Node, err error)
	Log  *slog.Logger // nil: slog.Default()
}

// Upstream is a registry of images that the hub passes on.
type Upstream struct {
	Host            string // as images name it, host[:port]
	URL             string // where it is; empty: https://Host
	CA              string // PEM file; empty: the system's
	CredentialsFile string // a docker config file; empty: anonymous
	PlainHTTP       bool   // on loopback only
}

// Registry is an http.Handler for /v2/. It is safe for concurrent use.
type Registry struct{ c Config }

// New checks the configuration; it does not dial.
func New(c Config) (*Registry, error) { return &Registry{c}, nil }

func (r *Registry) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "not yet", http.StatusServiceUnavailable)
}
