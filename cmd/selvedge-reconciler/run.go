package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"selvedge/internal/control"
	"selvedge/internal/exit"
	"selvedge/internal/serve"
	"selvedge/reconciler"
	"selvedge/reconciler/feed"
	"selvedge/reconciler/git"
	"selvedge/reconciler/publish"
	"selvedge/reconciler/sign"
	"selvedge/reconciler/validate"
)

type options struct {
	repo, branch, credentials, ca string
	interval                      time.Duration
	key, passwordFile, trust      string
	data, prefix                  string
	listen, tlsCert, tlsKey       string
	plainHTTP                     bool
	registry, registryAuth        string
	registryCA                    string
	hub                           hubOptions
	metrics                       metricsOptions
	verbose                       bool
}

func runCommand() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "run",
		Short: "Reconcile until told to stop",
		Long: `run follows a branch and keeps every node's newest state published. The password of the
signing key is read from the environment variable COSIGN_PASSWORD, or from a file.

By default states are kept in a store of its own below --data and served on --listen. With
--registry they are pushed to an OCI registry instead, and nothing is served.

Hubs follow what is in force through the socket hub.sock in --data, or through --hub-listen from
another machine.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context()) },
	}
	f := c.Flags()
	f.StringVar(&o.repo, "repo", "", "config repo: a path or an https:// address (required)")
	f.StringVar(&o.branch, "branch", "", "branch to follow (default: the one that HEAD names)")
	f.StringVar(&o.credentials, "git-credentials", "", "file with 'username:password' or a token for an https:// repo; read anew at each fetch")
	f.StringVar(&o.ca, "git-ca", "", "PEM file of the CA that the Git server's certificate is checked against")
	f.DurationVar(&o.interval, "interval", time.Minute, "how often to look for commits; a push to a local repo is noticed at once")
	f.StringVar(&o.key, "key", "cosign.key", "cosign private key that signs states")
	f.StringVar(&o.passwordFile, "key-password-file", "", "file with the key's password (default: the variable COSIGN_PASSWORD)")
	f.StringVar(&o.trust, "trust", "trust", "directory of root documents, made by 'selvedge keys root'")
	f.StringVar(&o.data, "data", "/var/lib/selvedge-reconciler", "directory for the store, caches and the control socket")
	f.StringVar(&o.prefix, "prefix", "", "prefix of the repositories, e.g. fleet: fleet/nodes/gw-7")
	f.StringVar(&o.listen, "listen", "127.0.0.1:5080", "address to serve states on; beyond loopback it needs TLS")
	f.StringVar(&o.tlsCert, "tls-cert", "", "PEM certificate chain to serve with; read anew when it changes")
	f.StringVar(&o.tlsKey, "tls-key", "", "PEM key of the certificate")
	f.BoolVar(&o.plainHTTP, "plain-http", false, "serve without TLS beyond loopback, as behind a proxy that adds it; or push without TLS to a registry on loopback")
	f.StringVar(&o.registry, "registry", "", "OCI registry to push states to, e.g. registry.example:5000, instead of serving them")
	f.StringVar(&o.registryAuth, "registry-auth", "", "Docker config file with the registry's credentials")
	f.StringVar(&o.registryCA, "registry-ca", "", "PEM file of the CA that the registry's certificate is checked against")
	o.hub.flags(f)
	o.metrics.flags(f)
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log more")
	return c
}

// collect has garbage collected sooner than Go does: a pass over a large fleet leaves much.
const collect = 50

func (o *options) run(ctx context.Context) error {
	if o.repo == "" {
		return exit.Usagef("which config repo? --repo PATH or --repo https://…")
	}
	debug.SetGCPercent(collect)
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))

	signer, err := o.signer()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.data, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	unlock, err := lock(o.data)
	if err != nil {
		return err
	}
	defer unlock()

	pub, servePub, closePub, err := o.publisher(log)
	if err != nil {
		return err
	}
	defer closePub()
	var states http.Handler
	if store, ok := pub.(*publish.Store); ok {
		states = store.Handler()
	}
	hubs, err := feed.Open(feed.Config{Path: filepath.Join(o.data, "roster.db"), States: states, Log: log})
	if err != nil {
		return err
	}
	defer hubs.Close()
	since, err := inForce(hubs)
	if err != nil {
		return err
	}
	v := validate.New(validate.Config{CacheFile: filepath.Join(o.data, "validate.db"), Log: log})
	defer v.Close()
	r := reconciler.New(reconciler.Config{
		Git: git.New(git.Config{
			Remote: o.repo, Branch: o.branch, CredentialsFile: o.credentials, CAFile: o.ca,
			Dir: filepath.Join(o.data, "git"), Interval: o.interval, Since: since, Log: log,
		}),
		Validator: v, Signer: signer, Publisher: pub, TrustDir: o.trust, DataDir: o.data, Log: log,
		Feed: hubs, Prefix: o.prefix,
	})
	if err := r.Recall(); err != nil { // before a hub can ask
		return err
	}
	serveHubs, err := o.hub.serve(o.data, hubs, log)
	if err != nil {
		return err
	}
	serveMetrics, err := o.metrics.serve(r, log)
	if err != nil {
		return err
	}

	g, ctx := errgroup.WithContext(ctx)
	for _, run := range append(serveHubs, servePub, serveMetrics) {
		if run != nil {
			g.Go(func() error { return run(ctx) })
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { control.Reply(w, r.Status(), nil) })
	g.Go(func() error { return control.Serve(ctx, o.data, mux) })
	g.Go(func() error { return r.Run(ctx) })
	return g.Wait()
}

// inForce returns the commit that was in force before the start, so that a history that
// was rewritten meanwhile is noticed.
func inForce(hubs *feed.Feed) (string, error) {
	last, ok, err := hubs.Last()
	if err != nil || !ok || last.Fleet == nil {
		return "", err
	}
	return last.Fleet.InForce.Hash, nil
}

func (o *options) signer() (*sign.Signer, error) {
	pem, err := os.ReadFile(o.key)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w; make one with 'selvedge keys generate'", err)
	}
	password := []byte(os.Getenv("COSIGN_PASSWORD"))
	if o.passwordFile != "" {
		if password, err = os.ReadFile(o.passwordFile); err != nil {
			return nil, fmt.Errorf("password of the signing key: %w", err)
		}
		password = trimNewline(password)
	}
	s, err := sign.Load(pem, password)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", o.key, err)
	}
	return s, nil
}

func trimNewline(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r') {
		b = b[:len(b)-1]
	}
	return b
}

// lock keeps a second reconciler off the data directory: only one may publish.
func lock(data string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(data, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use by another reconciler; stop it, or give this one another --data", data)
		}
		return nil, fmt.Errorf("lock %s: %w", data, err)
	}
	return func() { f.Close() }, nil
}

// publisher makes what states are published with; run is nil if nothing is served.
func (o *options) publisher(log *slog.Logger) (pub reconciler.Publisher, run func(context.Context) error, closePub func(), err error) {
	if o.registry != "" {
		return o.remote()
	}
	store, err := publish.Open(publish.Config{Path: filepath.Join(o.data, "states.db"), Prefix: o.prefix})
	if err != nil {
		return nil, nil, nil, err
	}
	if (o.tlsCert == "") != (o.tlsKey == "") {
		store.Close()
		return nil, nil, nil, exit.Usagef("--tls-cert and --tls-key go together")
	}
	if err := serve.CheckListen(o.listen, o.tlsCert != "" || o.plainHTTP); err != nil {
		store.Close()
		return nil, nil, nil, exit.With(exit.Usage, err)
	}
	server, err := serve.Listen(serve.Config{
		Addr: o.listen, CertFile: o.tlsCert, KeyFile: o.tlsKey, Plain: o.plainHTTP, Handler: store.Handler(), Log: log,
		WriteTimeout: publish.MaxWait + time.Minute,
	})
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w; stop what has the port, or choose another with --listen", err)
	} else if err != nil && o.tlsCert != "" {
		err = fmt.Errorf("%w (--tls-cert %s, --tls-key %s)", err, o.tlsCert, o.tlsKey)
	}
	if err != nil {
		store.Close()
		return nil, nil, nil, err
	}
	log.Info("serving states", "addr", server.Addr(), "tls", o.tlsCert != "")
	return store, server.Run, func() { server.Close(); store.Close() }, nil
}

// remote pushes states to a registry instead.
func (o *options) remote() (reconciler.Publisher, func(context.Context) error, func(), error) {
	host, _, err := net.SplitHostPort(o.registry)
	if err != nil {
		host = o.registry
	}
	ip := net.ParseIP(host)
	remote, err := publish.OpenRemote(publish.RemoteConfig{
		Registry: o.registry, Prefix: o.prefix, CAFile: o.registryCA, Credentials: o.registryAuth,
		PlainHTTP: o.plainHTTP && (host == "localhost" || ip != nil && ip.IsLoopback()),
		StatePath: filepath.Join(o.data, "pushed.db"),
	})
	if err != nil {
		return nil, nil, nil, err
	}
	return remote, nil, func() { remote.Close() }, nil
}
