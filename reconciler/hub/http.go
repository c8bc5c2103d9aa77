package hub

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"selvedge/internal/control"
	"selvedge/internal/version"
	"selvedge/reconciler/access"
	"selvedge/reconciler/hub/api"
	"selvedge/reconciler/hub/console"
	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

// handler is what the one port serves.
func (h *Hub) handler() (http.Handler, error) {
	rest, err := api.New(api.Config{Ops: h.ops, Log: h.log})
	if err != nil {
		return nil, err
	}
	key, err := h.sessionKey()
	if err != nil {
		return nil, err
	}
	pages, err := console.New(console.Config{Ops: h.ops, Key: key, Log: h.log})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle(wire.PathBus, h.bus.Tunnel())
	mux.Handle(wire.PathV2, h.registry)
	mux.Handle("/", pages)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if why := h.unwell(); why != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(why + "\n"))
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	measured := h.measured()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			w.Header().Set("WWW-Authenticate", `Bearer realm="selvedge"`)
			http.Error(w, "metrics tell about the whole fleet: show an API token of who may see the platform", http.StatusUnauthorized)
			return
		}
		caller, err := h.ops.Authenticate(token, r.RemoteAddr)
		if err != nil {
			status := http.StatusUnauthorized
			if p, ok := errors.AsType[*hubapi.Problem](err); ok { // or too many, or too soon
				status = p.Status
			}
			http.Error(w, err.Error(), status)
			return
		}
		if d := access.Decide(h.follow.View().Fleet.Bindings, caller.Subject, "", access.View); !d.Allowed {
			http.Error(w, d.Reason, http.StatusForbidden)
			return
		}
		measured.ServeHTTP(w, r)
	})
	auth := h.enrol.Handler()
	// Not by the mux, which answers a path that is not clean with a redirect of its own: nodes and
	// the API's callers read problems.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/auth/"):
			auth.ServeHTTP(w, r)
			return
		case r.URL.Path == "/api" || strings.HasPrefix(r.URL.Path, "/api/"):
			rest.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}), nil
}

// sessionKey is the console's. It comes from the key that the hubs of a cluster share, so that
// a session opens at each of them, and ends with that key.
func (h *Hub) sessionKey() ([]byte, error) {
	seed, err := h.bus.Signer().Seed()
	if err != nil {
		return nil, fmt.Errorf("key of the console's sessions: %w", err)
	}
	return hkdf.Key(sha256.New, seed, nil, "selvedge console sessions", 32)
}

// unwell says why nodes are better sent to another hub; empty: all is well. The reconciler
// being away is no such reason, once it was there.
func (h *Hub) unwell() string {
	select {
	case <-h.bus.Ready():
	default:
		return "the bus is not up"
	}
	if !h.follow.View().Loaded {
		return "the fleet is not known: the reconciler has never answered"
	}
	return ""
}

// measured serves the metrics of the hub.
func (h *Hub) measured() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.MustRegister(h.bus.Collectors()...)
	r.MustRegister(h.status.Collectors()...)
	r.MustRegister(h.ops.Collectors()...)
	r.MustRegister(h.enrol.Collectors()...)
	r.MustRegister(h.registry.Collectors()...)
	r.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "selvedge_hub_roster_age_seconds", Help: "Time since the reconciler last told something."}, func() float64 {
			v := h.follow.View()
			if v.At.IsZero() {
				return -1
			}
			return time.Since(v.At).Seconds()
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "selvedge_hub_reconciler_connected", Help: "1 if the reconciler is heard; else what the hub knows may be old."}, func() float64 {
			if h.behind() {
				return 0
			}
			return 1
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "selvedge_hub_connections_refused_total", Help: "Connections closed because their source had too many."}, func() float64 {
			return float64(h.server.Refused())
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "selvedge_build_info", Help: "1, with the version.", ConstLabels: prometheus.Labels{"version": version.Version}}, func() float64 { return 1 }),
	)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// Status is what the hub tells people on its machine.
type Status struct {
	Version string    `json:"version"`
	Address string    `json:"address"`
	URLs    []string  `json:"urls"`
	CA      string    `json:"ca,omitempty"` // sha256: digest; empty: a public authority
	Began   time.Time `json:"began"`
	Ready   bool      `json:"ready"`
	Why     string    `json:"why,omitempty"` // it is not
	Behind  bool      `json:"behind"`        // the reconciler is not heard: what is known may be old
	Roster  time.Time `json:"roster,omitzero"`
	Commit  string    `json:"commit,omitempty"` // in force
	Nodes   int       `json:"nodes"`
	Audit   string    `json:"audit"` // head of the audit log: keep it elsewhere to notice lines cut off
}

// Status returns what is known now.
func (h *Hub) Status() Status {
	v := h.follow.View()
	why := h.unwell()
	return Status{Version: version.Version, Address: h.Addr(), URLs: h.cfg.URLs, CA: h.cert.Fingerprint(), Began: h.began,
		Ready: why == "", Why: why, Behind: h.behind(), Roster: v.At, Commit: v.Fleet.InForce.Hash, Nodes: len(v.Names()),
		Audit: h.audit.Head().String()}
}

func (h *Hub) controls() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { control.Reply(w, h.Status(), nil) })
	return mux
}
