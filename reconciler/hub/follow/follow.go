package follow

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"selvedge/internal/backoff"
	"selvedge/schema/roster"
)

// Config says whom to follow.
type Config struct {
	URL   string       // unix:PATH or https://host:port
	TLS   *tls.Config  // for https: the hub's own certificate, and whom it believes
	Cache string       // file with the last roster; "" means none
	Log   *slog.Logger // nil: slog.Default()

	Silence time.Duration // after which the connection is dead; 0 means 1 min
	Retry   time.Duration // first pause after a failure, doubled up to 30 s; 0 means 250 ms
}

// Follower follows a reconciler. Make it with New.
type Follower struct {
	cfg     Config
	base    *url.URL
	rt      http.RoundTripper
	view    atomic.Pointer[View]
	onDelta []func(*View, Delta)
	cache   *cache
	loaded  sync.Once

	connected atomic.Bool
}

// New returns a Follower; it does nothing until Run.
func New(c Config) (*Follower, error) {
	c.Log = cmp.Or(c.Log, slog.Default())
	c.Silence = cmp.Or(c.Silence, time.Minute)
	c.Retry = cmp.Or(c.Retry, 250*time.Millisecond)
	f := &Follower{cfg: c}
	rt := &http.Transport{MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 10 * time.Second, DisableCompression: true}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	switch path, unix := strings.CutPrefix(c.URL, "unix:"); {
	case unix:
		path = strings.TrimPrefix(path, "//")
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("reconciler %q: the socket's path must begin with /", c.URL)
		}
		f.base = &url.URL{Scheme: "http", Host: "reconciler"}
		rt.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}
	default:
		u, err := url.Parse(c.URL)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.User != nil || u.RawQuery != "" {
			return nil, fmt.Errorf("reconciler %q: give unix:/path/to/hub.sock, or https://host:port", c.URL)
		}
		if c.TLS == nil || len(c.TLS.Certificates) == 0 && c.TLS.GetClientCertificate == nil {
			return nil, fmt.Errorf("reconciler %q: it asks for a certificate of the hub; give one", c.URL)
		}
		f.base = &url.URL{Scheme: "https", Host: u.Host}
		rt.TLSClientConfig = c.TLS.Clone()
		rt.DialContext = dialer.DialContext
	}
	f.rt = &transport{f.base, rt}
	f.cache = newCache(c.Cache, c.Log)
	f.view.Store(&View{})
	return f, nil
}

// transport takes every request to one place.
type transport struct {
	base *url.URL
	*http.Transport
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host, r.Host = t.base.Scheme, t.base.Host, ""
	return t.Transport.RoundTrip(r)
}

// View returns the newest roster; it is never nil.
func (f *Follower) View() *View { return f.view.Load() }

// Connected tells whether the view is up to date, as far as one can know.
func (f *Follower) Connected() bool { return f.connected.Load() }

// OnDelta adds a function that is called with each applied change, in order, and once for the
// cache. Call it before Load and Run. It must not block for long: what follows waits.
func (f *Follower) OnDelta(do func(*View, Delta)) { f.onDelta = append(f.onDelta, do) }

// Transport goes to the same reconciler, whatever the host of the request: for /v2/.
func (f *Follower) Transport() http.RoundTripper { return f.rt }

// Base is the address to use with Transport.
func (f *Follower) Base() *url.URL { return f.base }

// Load applies the last roster, from the cache. Run does it otherwise; what nodes say before is
// said by nobody.
func (f *Follower) Load() { f.loaded.Do(f.load) }

func (f *Follower) load() {
	g := f.cache.read()
	if g == nil {
		return
	}
	if err := f.apply(g); err != nil {
		f.cfg.Log.Warn("the roster's cache makes no sense, and is not used", "file", f.cfg.Cache, "error", err)
	}
}

// Run follows until the context ends.
func (f *Follower) Run(ctx context.Context) error {
	f.Load()
	var wg sync.WaitGroup
	defer wg.Wait()
	cctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	wg.Go(func() { f.cache.run(cctx, f.View) })

	retry := backoff.Backoff{Min: f.cfg.Retry, Max: 30 * time.Second}
	said := ""
	for {
		err := f.follow(ctx, func() {
			retry.Reset()
			if said != "" {
				said = ""
				f.cfg.Log.Info("the reconciler is back", "url", f.cfg.URL)
			}
			f.connected.Store(true)
		})
		f.connected.Store(false)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if text := err.Error(); text != said {
			said = text
			f.cfg.Log.Warn("the reconciler cannot be followed; the last roster counts meanwhile", "url", f.cfg.URL, "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retry.Next()):
		}
	}
}

// follow reads one stream to its end; good is called after the first change.
func (f *Follower) follow(ctx context.Context, good func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := fmt.Errorf("nothing was heard for %v", f.cfg.Silence)
	dead := time.AfterFunc(f.cfg.Silence, func() { cancel(silence) })
	defer dead.Stop()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.base.JoinPath(roster.Path).String(), http.NoBody)
	if err != nil {
		return err
	}
	res, err := f.rt.RoundTrip(req)
	if err != nil {
		return cmp.Or(cause(ctx, silence), err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 1024))
		return fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(text)))
	}
	d := newDecoder(res.Body)
	for first := true; ; first = false {
		g, err := d.next(func() { dead.Reset(f.cfg.Silence) })
		if errors.Is(err, io.EOF) {
			err = errors.New("it ended the stream")
		}
		if err != nil {
			return cmp.Or(cause(ctx, silence), err)
		}
		if first && !g.reset {
			return errors.New("the stream does not begin with a reset")
		}
		dead.Stop() // what the change does takes as long as it takes
		if err := f.apply(g); err != nil {
			return err
		}
		dead.Reset(f.cfg.Silence)
		good()
	}
}

func cause(ctx context.Context, silence error) error {
	if context.Cause(ctx) == silence {
		return silence
	}
	return nil
}

// apply makes a change of the view and tells it.
func (f *Follower) apply(g *group) error {
	before, at := f.View(), time.Now()
	if !g.cached.IsZero() {
		at = g.cached
	}
	v, d, err := before.with(g, at)
	if err != nil {
		return err
	}
	rights := d.Fleet && (!reflect.DeepEqual(before.Fleet.Identities, v.Fleet.Identities) || !reflect.DeepEqual(before.Fleet.Bindings, v.Fleet.Bindings))
	f.view.Store(v)
	if g.cached.IsZero() {
		f.cache.changed(len(d.Removed) > 0 || len(d.GoneKeys) > 0 || rights)
	}
	for _, do := range f.onDelta {
		do(v, d)
	}
	return nil
}
