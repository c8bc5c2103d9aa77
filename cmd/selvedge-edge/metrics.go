package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/spf13/pflag"

	"selvedge/internal/backoff"
	"selvedge/internal/exit"
	"selvedge/internal/serve"
)

// metricsOptions say where monitors ask.
type metricsOptions struct {
	listen   string
	anywhere bool
}

func (o *metricsOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.listen, "metrics", "", "address to serve /metrics for Prometheus on, without TLS, e.g. 127.0.0.1:9466; off if empty")
	f.BoolVar(&o.anywhere, "metrics-anywhere", false, "serve metrics beyond loopback, as on a network for monitoring")
}

func (o *metricsOptions) check() error {
	if o.listen == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return exit.Usagef("--metrics %q: give HOST:PORT", o.listen)
	}
	if err := serve.CheckListen(o.listen, o.anywhere); err != nil {
		return exit.Usagef("--metrics %s: metrics are served on loopback only, unless --metrics-anywhere is given", o.listen)
	}
	return nil
}

// serve serves metrics until the context ends. That it cannot, as when something else has the
// port, stops nothing else: it is tried again.
func (o *metricsOptions) serve(ctx context.Context, h http.Handler, log *slog.Logger) {
	if o.listen == "" {
		return
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h)
	retry := backoff.Backoff{Min: time.Second, Max: time.Minute}
	said := ""
	for {
		s, err := serve.Listen(serve.Config{Addr: o.listen, Handler: mux, Plain: o.anywhere, MaxConns: 16, WriteTimeout: time.Minute, Log: log})
		if err == nil {
			log.Info("serving metrics", "addr", s.Addr())
			said = ""
			err = s.Run(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			log.Error("nobody can ask for metrics; running on", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry.Next()):
		}
	}
}
