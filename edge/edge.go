package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"selvedge/edge/apply"
	"selvedge/edge/identity"
	"selvedge/edge/journal"
	"selvedge/edge/pull"
	"selvedge/edge/store"
	"selvedge/edge/verify"
	"selvedge/internal/backoff"
	"selvedge/internal/control"
	"selvedge/schema/trust"
)

// Config is what an Agent works with.
type Config struct {
	Dir      string // prepared by Init
	Runtime  apply.Runtime
	Interval time.Duration // between polls of a registry that does not hold them; 0 means 15 s, with jitter
	Trust    time.Duration // between looks for new root documents; 0 means 10 min, with jitter
	Drift    time.Duration // see apply.Config
	Fallback time.Duration // between polls while a hub tells of changes; 0 means 5 min, with jitter
	Log      *slog.Logger  // nil means slog.Default()

	HostsDir string           // where registry settings that lead through a hub are kept; "" means nowhere
	Journal  *journal.Journal // the agent's own log, for the hub; nil: none

	Now func() time.Time // the machine's clock, for certificates and for people; nil means time.Now
}

// Agent is the loop. Make it with New.
type Agent struct {
	cfg      Config
	settings Settings
	key      *identity.Key
	store    *store.Store
	pull     *pull.Client
	apply    *apply.Applier
	hub      hub
	gauge    gauge
	started  time.Time

	first *trust.Root   // pinned
	wake  chan struct{} // there may be something to begin
	news  chan struct{} // there may be something to pull

	ready    atomic.Bool // opened
	trustDue atomic.Bool // new root documents were announced
	counts   counts

	slots sync.Mutex // held over a look at the store's slots and the transition that follows from it

	mu       sync.Mutex
	root     *trust.Root
	abandon  context.CancelFunc // ends the prefetch on its way; nil: none is
	sooner   context.CancelFunc // ends the poll on its way, to begin the next
	link     Link
	refused  *Refusal
	misnamed *Refusal // the hub calls this node by another's name
	now      Update   // what is being made of the current state
	next     Update   // of the pending one; zero: there is none
}

// New returns an Agent; it does nothing yet.
func New(cfg Config) *Agent {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Interval <= 0 {
		cfg.Interval = 15 * time.Second
	}
	if cfg.Trust <= 0 {
		cfg.Trust = 10 * time.Minute
	}
	if cfg.Fallback <= 0 {
		cfg.Fallback = 5 * time.Minute
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	a := &Agent{cfg: cfg, wake: make(chan struct{}, 1), news: make(chan struct{}, 1), started: time.Now()}
	a.gauge.init(cfg)
	return a
}

// Run keeps the node running what it should until the context ends; the containers go
// on after it. It returns early only if the directory cannot be used.
func (a *Agent) Run(ctx context.Context) error {
	retry := backoff.Backoff{Min: 500 * time.Millisecond, Max: 30 * time.Second}
	for {
		began := time.Now()
		err := a.run(ctx)
		if !errors.Is(err, errRenamed) {
			return err
		}
		if time.Since(began) > time.Minute {
			retry.Reset()
		}
		select { // a hub that gives names by turns must not keep a node busy
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retry.Next()):
		}
	}
}

func (a *Agent) run(ctx context.Context) error {
	if err := a.read(); err != nil {
		return err
	}
	if a.settings.Node == "" {
		if err := a.joining(ctx); err != nil {
			return err
		}
	}
	if err := a.open(); err != nil {
		return err
	}
	defer a.store.Close()
	defer a.pull.Close()
	ctx, a.hub.rename = context.WithCancelCause(ctx)
	defer a.hub.rename(nil)
	a.ready.Store(true)
	defer a.ready.Store(false)
	a.boot(ctx) // read before dialing: the site may be offline

	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { return a.apply.Run(inner) })
	g.Go(func() error { return a.updating(inner) })
	g.Go(func() error { return a.pulling(inner) })
	g.Go(func() error { return a.answering(inner) })
	g.Go(func() error { return a.connecting(inner) })
	g.Go(func() error { return a.mirroring(inner) })
	g.Go(func() error { return a.watching(inner) })
	err := g.Wait()
	if errors.Is(context.Cause(ctx), errRenamed) {
		return errRenamed
	}
	return err
}

// read reads what does not change while the agent runs.
func (a *Agent) read() (err error) {
	dir := a.cfg.Dir
	settings, err := LoadSettings(dir)
	if err != nil {
		return err
	}
	key, err := identity.Load(filepath.Join(dir, keyFile))
	if err != nil {
		return fmt.Errorf("node key: %w", err)
	}
	a.mu.Lock()
	a.settings, a.key = settings, key
	a.mu.Unlock()
	doc, err := os.ReadFile(filepath.Join(dir, rootFile))
	if err != nil {
		return fmt.Errorf("root of trust: %w", err)
	}
	if a.first, err = trust.Parse(doc); err != nil {
		return fmt.Errorf("root of trust: %w", err)
	}
	if got := a.first.Fingerprint(); got != a.settings.Fingerprint {
		return fmt.Errorf("root of trust: %s has the fingerprint %s, but %s was pinned; restore the file, or run 'selvedge-edge init' with the right one",
			rootFile, got, a.settings.Fingerprint)
	}
	return nil
}

func (a *Agent) open() (err error) {
	dir := a.cfg.Dir
	st, err := store.Open(store.Config{Dir: filepath.Join(dir, storeDir), Node: a.settings.Node, Key: a.key, Now: a.cfg.Now})
	if err != nil {
		return err
	}
	ap := apply.New(apply.Config{
		Runtime: a.cfg.Runtime, FilesDir: filepath.Join(dir, "files"), Drift: a.cfg.Drift, Log: a.cfg.Log,
	})
	a.mu.Lock() // a monitor may be asking about the run before this one
	a.store, a.apply = st, ap
	a.mu.Unlock()
	for _, p := range a.store.Status().Problems {
		a.cfg.Log.Warn("store", "problem", p)
	}
	a.root = a.first
	if docs, ok := a.store.Root(); ok {
		if a.root, err = trust.Walk(a.first, docs); err != nil {
			a.cfg.Log.Error("stored root documents are not used; they are fetched anew", "error", err)
			a.root = a.first
		}
	}
	cfg := a.settings.pull()
	cfg.Now = a.store.Now
	if len(a.settings.Hubs) > 0 {
		if err := a.openHub(); err != nil {
			return errors.Join(err, a.store.Close())
		}
		cfg.Hold = func() bool { return !a.live() }
		if a.settings.Registry == "" {
			cfg.Access, cfg.TLS, cfg.AllowHTTP = a.access, a.hub.client.TLS, false
		}
	}
	a.pull, err = pull.New(cfg)
	if err != nil {
		return errors.Join(err, a.store.Close())
	}
	return nil
}

// storeDir is the store's directory below the agent's.
const storeDir = "store"

// answering serves people's questions. That it cannot, as when the disk is full, stops nothing else.
func (a *Agent) answering(ctx context.Context) error {
	retry := backoff.Backoff{Min: time.Second, Max: time.Minute}
	for {
		err := control.Serve(ctx, a.cfg.Dir, a.handler())
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.cfg.Log.Error("nobody can ask for the status", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retry.Next()):
		}
	}
}

// handler answers 'selvedge-edge status'.
func (a *Agent) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { control.Reply(w, a.Status(), nil) })
	mux.HandleFunc("POST /wake", func(w http.ResponseWriter, _ *http.Request) {
		a.look()
		a.mu.Lock()
		if a.sooner != nil {
			a.sooner() // a retry by hand asks for the newest state anew
		}
		a.mu.Unlock()
		control.Reply(w, struct{}{}, nil)
	})
	return mux
}

// look makes the loop look at once whether there is something to begin.
func (a *Agent) look() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *Agent) verifier() verify.Verifier {
	a.mu.Lock()
	defer a.mu.Unlock()
	return verify.Verifier{Node: a.settings.Node, PublicKey: a.key.Public(), Root: a.root}
}
