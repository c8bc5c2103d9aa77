package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"

	"selvedge/internal/exit"
	"selvedge/internal/serve"
	"selvedge/internal/version"
	"selvedge/reconciler"
	"selvedge/reconciler/feed"
)

// hubOptions say where hubs connect, besides the socket.
type hubOptions struct{ listen, cert, key, clientCA string }

func (o *hubOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.listen, "hub-listen", "", "address to serve hubs of other machines on, with mutual TLS; they need --hub-cert, --hub-key and --hub-client-ca")
	f.StringVar(&o.cert, "hub-cert", "", "PEM certificate chain to serve hubs with; read anew when it changes")
	f.StringVar(&o.key, "hub-key", "", "PEM key of that certificate")
	f.StringVar(&o.clientCA, "hub-client-ca", "", "PEM file of the CA whose certificates hubs show; nothing but hubs may have one of it")
}

// serve opens the socket and, if asked, the port.
func (o *hubOptions) serve(data string, hubs *feed.Feed, log *slog.Logger) (run []func(context.Context) error, err error) {
	var all serve.Config
	if o.listen != "" || o.cert != "" || o.key != "" || o.clientCA != "" {
		if o.listen == "" || o.cert == "" || o.key == "" || o.clientCA == "" {
			return nil, exit.Usagef("--hub-listen, --hub-cert, --hub-key and --hub-client-ca go together: hubs are served with mutual TLS only")
		}
		pool, err := readPool(o.clientCA)
		if err != nil {
			return nil, fmt.Errorf("--hub-client-ca: %w", err)
		}
		all = serve.Config{Addr: o.listen, CertFile: o.cert, KeyFile: o.key, ClientCAs: pool, Handler: hubs.Handler(), Log: log}
	}
	socket, err := feed.Listen(data)
	if err != nil {
		return nil, err
	}
	s, err := serve.Listen(serve.Config{Listener: socket, Handler: hubs.Handler(), Log: log})
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	run = append(run, s.Run)
	if all.Addr != "" {
		port, err := serve.Listen(all)
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("%w; stop what has the port, or choose another with --hub-listen", err)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("hubs: %w", err), s.Close())
		}
		log.Info("serving hubs", "addr", port.Addr())
		run = append(run, port.Run)
	}
	return run, nil
}

func readPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no PEM certificate", file)
	}
	return pool, nil
}

// metricsOptions say where monitors ask.
type metricsOptions struct {
	listen   string
	anywhere bool
}

func (o *metricsOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.listen, "metrics", "", "address to serve /metrics for Prometheus on, without TLS, e.g. 127.0.0.1:9464; off if empty")
	f.BoolVar(&o.anywhere, "metrics-anywhere", false, "serve metrics beyond loopback, as on a network for monitoring")
}

func (o *metricsOptions) serve(r *reconciler.Reconciler, log *slog.Logger) (run func(context.Context) error, err error) {
	if o.listen == "" {
		return nil, nil
	}
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return nil, exit.Usagef("--metrics %q: give HOST:PORT", o.listen)
	}
	if err := serve.CheckListen(o.listen, o.anywhere); err != nil {
		return nil, exit.Usagef("--metrics %s: metrics are served on loopback only, unless --metrics-anywhere is given", o.listen)
	}
	registry := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "selvedge_build_info", Help: "1, with the version.", ConstLabels: prometheus.Labels{"version": version.Version},
	})
	build.Set(1)
	for _, c := range append(r.Collectors(), build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})) {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: 4}))
	s, err := serve.Listen(serve.Config{Addr: o.listen, Handler: mux, Plain: o.anywhere, MaxConns: 64, Log: log})
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w; stop what has the port, or choose another with --metrics", err)
	}
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	log.Info("serving metrics", "addr", s.Addr())
	return s.Run, nil
}
