package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"selvedge/internal/exit"
	"selvedge/reconciler/hub"
	"selvedge/reconciler/hub/registry"
)

type options struct {
	cfg                           hub.Config
	states                        hub.States
	reconcilerCA                  string
	reconcilerCert, reconcilerKey string
	images                        []string
	imagesAuth, imagesCA          string
	verbose                       bool
}

func runCommand() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "run",
		Short: "Serve nodes and people until told to stop",
		Long: `run serves the one HTTPS port. Without --tls-cert it makes a certificate of its own, under an authority
that join lines pin.`,
		Example: `  selvedge-hub run --url https://hub.example:8443
  selvedge-hub run --url https://hub.example --listen :443 --tls-cert hub.pem --tls-key hub-key.pem --images registry.example`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.cfg.DataDir = data(c)
			err := o.run(c.Context())
			if errors.Is(err, hub.ErrConfig) {
				return exit.Usagef("%w", err)
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&o.cfg.Listen, "listen", ":8443", "address of the one HTTPS port")
	f.StringArrayVar(&o.cfg.URLs, "url", nil, "https://host[:port] under which nodes and people dial; may be given again (required)")
	f.StringVar(&o.cfg.CertFile, "tls-cert", "", "PEM certificate chain; read anew when it changes (default: self-made)")
	f.StringVar(&o.cfg.KeyFile, "tls-key", "", "PEM key of the certificate")
	f.StringVar(&o.cfg.CAFile, "tls-ca", "", "PEM file of a private CA of --tls-cert, for join lines to pin")
	f.StringVar(&o.cfg.Reconciler, "reconciler", "unix:/var/lib/selvedge-reconciler/hub.sock", "the reconciler: unix:PATH, or https://host:port with --reconciler-cert")
	f.StringVar(&o.reconcilerCA, "reconciler-ca", "", "PEM file of the CA that the reconciler's certificate is checked against")
	f.StringVar(&o.reconcilerCert, "reconciler-cert", "", "PEM certificate that this hub shows to the reconciler")
	f.StringVar(&o.reconcilerKey, "reconciler-key", "", "PEM key of that certificate")
	f.StringVar(&o.states.URL, "states-registry", "", "registry that the reconciler pushes states to, if it serves none itself")
	f.StringVar(&o.states.CA, "states-ca", "", "PEM file of the CA of that registry")
	f.StringVar(&o.states.CredentialsFile, "states-credentials", "", "file with 'user:password' or 'Bearer TOKEN' for that registry")
	f.StringArrayVar(&o.images, "images", nil, "registry whose images are passed on to the nodes that need them: HOST or HOST=URL; may be given again")
	f.StringVar(&o.imagesAuth, "images-auth", "", "Docker config file with credentials for these registries")
	f.StringVar(&o.imagesCA, "images-ca", "", "PEM file of the CA of these registries")
	f.StringArrayVar(&o.cfg.BusServers, "bus", nil, "external NATS server, wss:// for nodes and tls:// for the hub; may be given again (default: embedded)")
	f.StringVar(&o.cfg.BusCA, "bus-ca", "", "PEM file of the CA of the external NATS servers")
	f.StringVar(&o.cfg.BusListen, "bus-listen", "", "address where nodes may also connect to the bus without WebSocket, over TLS (default: none)")
	f.IntVar(&o.cfg.MaxConnsPerSource, "max-connections-per-source", hub.DefaultMaxConnsPerSource, "connections that one IPv4 address, or IPv6 /64, may have at once; raise it if more nodes share one")
	f.IntVar(&o.cfg.AuthPerSource, "auth-per-source", 100, "requests below /auth/ a second that are answered to one such address; bursts are twenty times as large")
	f.IntVar(&o.cfg.AuthRate, "auth-rate", 1000, "requests below /auth/ a second that are answered in all; bursts are five times as large")
	f.StringVar(&o.cfg.Metrics, "metrics", "", "address on loopback that serves /metrics without a token (default: only on the one port, with one)")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log more")
	return c
}

// collect has garbage collected sooner than Go does: ten thousand connections hold much that
// does not change. GOGC and GOMEMLIMIT say otherwise.
const collect = 30

func (o *options) run(ctx context.Context) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collect)
	}
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	o.cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if o.states.URL != "" {
		o.cfg.States = &o.states
	}
	if o.reconcilerCert != "" || o.reconcilerCA != "" {
		t, err := o.tls()
		if err != nil {
			return err
		}
		o.cfg.ReconcilerTLS = t
	}
	for _, s := range o.images {
		host, url, _ := strings.Cut(s, "=")
		o.cfg.Images = append(o.cfg.Images, registry.Upstream{Host: host, URL: url, CA: o.imagesCA, CredentialsFile: o.imagesAuth, PlainHTTP: strings.HasPrefix(url, "http://")})
	}
	var err error
	if o.cfg.DataDir, err = filepath.Abs(o.cfg.DataDir); err != nil {
		return err
	}
	if name, ok := strings.CutPrefix(o.cfg.Reconciler, "unix:"); ok && name != "" {
		if name, err = filepath.Abs(name); err != nil {
			return err
		}
		o.cfg.Reconciler = "unix:" + name
	}
	h, err := hub.New(o.cfg)
	if err != nil {
		return err
	}
	st := h.Status()
	o.cfg.Log.Info("the hub listens", "address", st.Address, "urls", st.URLs, "ca", st.CA)
	return h.Run(ctx)
}

func (o *options) tls() (*tls.Config, error) {
	if o.reconcilerCert == "" || o.reconcilerKey == "" || o.reconcilerCA == "" {
		return nil, exit.Usagef("--reconciler-ca, --reconciler-cert and --reconciler-key belong together: both sides prove who they are")
	}
	pem, err := os.ReadFile(o.reconcilerCA)
	if err != nil {
		return nil, fmt.Errorf("CA of the reconciler: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA of the reconciler: %s holds no certificate", o.reconcilerCA)
	}
	return &tls.Config{
		RootCAs: pool, MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { // anew: it is renewed now and then
			c, err := tls.LoadX509KeyPair(o.reconcilerCert, o.reconcilerKey)
			return &c, err
		},
	}, nil
}
