package follow

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/url"
	"sync/atomic"
)

// Config says whom to follow.
type Config struct {
	URL   string       // unix:PATH or https://host:port
	TLS   *tls.Config  // for https: the hub's own certificate, and whom it believes
	Cache string       // file with the last roster; "" means none
	Log   *slog.Logger // nil: slog.Default()
}

// Follower follows a reconciler. Make it with New.
type Follower struct {
	cfg     Config
	base    *url.URL
	rt      http.RoundTripper
	view    atomic.Pointer[View]
	onDelta []func(*View, Delta)
}

// New returns a Follower; it does nothing until Run.
func New(c Config) (*Follower, error) {
	f := &Follower{cfg: c, base: &url.URL{Scheme: "http", Host: "reconciler"}, rt: http.DefaultTransport}
	f.view.Store(&View{})
	return f, nil
}

// Run follows until the context ends.
func (f *Follower) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// View returns the newest roster; it is never nil.
func (f *Follower) View() *View { return f.view.Load() }

// OnDelta adds a function that is called with each applied change, in order, and once for the
// cache. Call it before Run. It must not block for long: what follows waits.
func (f *Follower) OnDelta(do func(*View, Delta)) { f.onDelta = append(f.onDelta, do) }

// Transport goes to the same reconciler, whatever the host of the request: for /v2/.
func (f *Follower) Transport() http.RoundTripper { return f.rt }

// Base is the address to use with Transport.
func (f *Follower) Base() *url.URL { return f.base }
