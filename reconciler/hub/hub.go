package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"selvedge/internal/control"
	"selvedge/internal/serve"
	"selvedge/reconciler/hub/audit"
	"selvedge/reconciler/hub/bus"
	"selvedge/reconciler/hub/cert"
	"selvedge/reconciler/hub/enrol"
	"selvedge/reconciler/hub/follow"
	"selvedge/reconciler/hub/ops"
	"selvedge/reconciler/hub/registry"
	"selvedge/reconciler/hub/status"
	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// CertDir is where a self-made certificate lies below the data directory.
const CertDir = "cert"

// BusDir is where the keys of the bus lie below the data directory.
const BusDir = "bus"

// Hub is all of it. Make it with New.
type Hub struct {
	cfg      Config
	log      *slog.Logger
	cert     *cert.Certificate
	follow   *follow.Follower
	bus      *bus.Bus
	status   *status.Store
	enrol    *enrol.Enrol
	registry *registry.Registry
	audit    *audit.Log
	ops      *ops.Ops
	notify   *notifier
	revoke   *revoker
	server   *serve.Server
	metrics  *serve.Server // nil: none apart
	began    time.Time
	close    func() error
}

// New opens files and ports. Close what it returns, unless Run is called.
func New(cfg Config) (*Hub, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	h := &Hub{cfg: cfg, log: cfg.Log, began: time.Now()}
	h.close = sync.OnceValue(h.giveBack)
	for _, step := range []func() error{h.openCert, h.openRoster, h.openBus, h.openStatus, h.openEnrol, h.openRegistry, h.openOps, h.listen} {
		if err := step(); err != nil {
			return nil, errors.Join(err, h.Close())
		}
	}
	h.follow.OnDelta(h.changed)
	return h, nil
}

func (h *Hub) path(elem ...string) string {
	return filepath.Join(append([]string{h.cfg.DataDir}, elem...)...)
}

func (h *Hub) openCert() (err error) {
	c := cert.Config{CertFile: h.cfg.CertFile, KeyFile: h.cfg.KeyFile, CAFile: h.cfg.CAFile, Log: h.log}
	if c.CertFile == "" {
		c.Dir, c.Names = h.path(CertDir), h.cfg.names()
	}
	if h.cert, err = cert.Open(c); err != nil && c.CertFile != "" {
		return fmt.Errorf("%w (--tls-cert %s, --tls-key %s)", err, c.CertFile, c.KeyFile)
	}
	return err
}

func (h *Hub) openRoster() (err error) {
	h.follow, err = follow.New(follow.Config{URL: h.cfg.Reconciler, TLS: h.cfg.ReconcilerTLS, Cache: h.path("roster.json"), Log: h.log})
	if err != nil {
		return fmt.Errorf("%w: --reconciler: %w", ErrConfig, err)
	}
	return nil
}

func (h *Hub) openBus() (err error) {
	h.bus, err = bus.New(bus.Config{
		Dir: h.path(BusDir), Servers: h.cfg.BusServers, CA: h.cfg.BusCA, Listen: h.cfg.BusListen,
		TLS:     &tls.Config{GetCertificate: h.cert.Get, MinVersion: tls.VersionTLS12},
		Allowed: h.mayStay, Doubt: h.cfg.Doubt,
		Twice: func(node string) {
			h.status.Note(node, wire.Event{Time: h.cfg.Now(), Severity: "error", Reason: "TwoMachines",
				Message: "two machines use this node's key: a copied disk, or a stolen key; give one of them a key of its own"})
		},
		Log: h.log,
	})
	if err != nil {
		return err
	}
	h.notify = newNotifier(h.bus.Notify, h.log)
	h.revoke = newRevoker(h.bus.Revoke, h.log)
	return nil
}

// listed tells whether Git lists that key for that node.
func (h *Hub) listed(node, publicKey string) bool {
	v := h.follow.View()
	if !v.Loaded {
		return true // nothing is known of anybody
	}
	n, ok := v.Node(node)
	return ok && n.PublicKey == publicKey
}

// behind tells that the reconciler is not heard: what is known may be old.
func (h *Hub) behind() bool { return !h.follow.Connected() }

// mayStay tells whether a connected node may be left connected. On a cluster of several hubs one
// that does not hear the reconciler knows only what it knew: another may have let the node in
// since. Whom this hub saw leave Git it has revoked then, and servers keep that.
func (h *Hub) mayStay(node, publicKey string) bool {
	return len(h.cfg.BusServers) > 0 && h.behind() || h.listed(node, publicKey)
}

func (h *Hub) openStatus() (err error) {
	if h.status, err = status.Open(status.Config{Path: h.path("status.db"), Log: h.log, Now: h.cfg.Now}); err != nil {
		return err
	}
	return h.bus.Subscribe(h.status.Report, h.status.Events, h.status.Presence)
}

func (h *Hub) openEnrol() (err error) {
	if h.audit, err = audit.Open(audit.Config{Path: h.path(auditFile), Log: h.log, Now: h.cfg.Now}); err != nil {
		return err
	}
	transport, base, err := h.states()
	if err != nil {
		return err
	}
	h.enrol = enrol.New(enrol.Config{
		Hub: h.cfg.URLs, Signer: h.bus.Signer, Bucket: h.bus.Bucket, BusToken: h.bus.NodeToken,
		Ready:  func() bool { return h.follow.View().Loaded },
		Behind: h.behind,
		Now:    h.cfg.Now,
		Rate:   enrol.Rate{All: h.cfg.AuthRate, Source: h.cfg.AuthPerSource},
		Node: func(publicKey string) (string, bool) {
			name, _, ok := h.follow.View().NodeByKey(publicKey)
			return name, ok
		},
		Named: func(name string) (string, bool) {
			n, ok := h.follow.View().Node(name)
			return n.PublicKey, ok
		},
		Guide: func(key string) (roster.Guide, int, bool) {
			v := h.follow.View()
			g, ok := v.Fleet.Guides[key]
			return g, v.Guided(g), ok
		},
		Images: h.hosts(),
		Prefix: h.prefix,
		Trust:  trustFrom(transport, base, h.prefix),
		Rejected: func(event string, attrs ...any) {
			h.log.Warn("a node was refused", append([]any{"request", event}, attrs...)...)
			h.record(refusal(event, attrs))
		},
		Joined: func(p hubapi.Pending, by string) {
			h.record(hubapi.AuditEntry{Operation: "join", Outcome: hubapi.OutcomeDone, Scope: p.Scope, Node: p.Name, Remote: p.Address,
				Detail: fmt.Sprintf("waits as %s by guide %s with a token of %s, key %s", p.Code, p.Guide, by, p.PublicKey)})
		},
		Log: h.log,
	})
	return nil
}

// refusal is what is written of a node that was refused.
func refusal(event string, attrs []any) hubapi.AuditEntry {
	e := hubapi.AuditEntry{Operation: event, Outcome: hubapi.OutcomeRefused, Detail: event}
	for i := 0; i+1 < len(attrs); i += 2 {
		e.Detail += fmt.Sprintf(" %v=%v", attrs[i], attrs[i+1])
		if attrs[i] == "node" {
			e.Node = fmt.Sprint(attrs[i+1])
		}
	}
	return e
}

// record writes into the audit log what nodes did, and what strangers tried.
func (h *Hub) record(e hubapi.AuditEntry) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := h.audit.Append(ctx, e); err != nil {
		h.log.Error("what was done is not in the audit log", "operation", e.Operation, "outcome", e.Outcome, "detail", e.Detail, "error", err)
	}
}

func (h *Hub) prefix() string { return h.follow.View().Fleet.Prefix }

func (h *Hub) hosts() (hosts []string) {
	for _, u := range h.cfg.Images {
		hosts = append(hosts, u.Host)
	}
	return hosts
}

// states returns how to reach the store of states: the reconciler, or a registry.
func (h *Hub) states() (http.RoundTripper, *url.URL, error) {
	if h.cfg.States == nil {
		return h.follow.Transport(), h.follow.Base(), nil
	}
	return h.cfg.States.open()
}

func (h *Hub) openRegistry() error {
	transport, base, err := h.states()
	if err != nil {
		return err
	}
	h.registry, err = registry.New(registry.Config{
		States: transport, Base: base, Prefix: h.prefix, Images: h.cfg.Images, Listed: h.listed, Log: h.log,
		Refused: func(r *http.Request, node, repository string) {
			h.enrol.RefusedPull(r, "reason", "not this node's", "node", node, "repository", repository)
		},
		Node: h.puller,
	})
	return err
}

// puller tells which node asks for states or images.
func (h *Hub) puller(r *http.Request) (string, roster.Node, error) {
	name, key, err := h.enrol.Bearer(r)
	n, _ := h.follow.View().Node(name)
	if err == nil && n.PublicKey != key {
		err = enrol.ErrRemoved
	}
	if errors.Is(err, enrol.ErrRemoved) && h.behind() {
		err = registry.ErrUnsure // another hub gave the bearer, and knows why
	}
	return name, n, err
}

func (h *Hub) openOps() error {
	h.ops = ops.New(ops.Config{
		Follow: h.follow, Bus: h.bus, Enrol: h.enrol, Status: h.status, Audit: h.audit,
		Hub: h.cfg.URLs[0], CA: h.cert.Fingerprint(), Log: h.log, Now: h.cfg.Now,
	})
	return nil
}

func (h *Hub) listen() error {
	handler, err := h.handler()
	if err != nil {
		return err
	}
	h.server, err = serve.Listen(serve.Config{
		Addr: h.cfg.Listen, Handler: handler, GetCertificate: h.cert.Get, HTTP2: true,
		MaxConnsPerSource: h.cfg.MaxConnsPerSource, Log: h.log,
	})
	if err != nil || h.cfg.Metrics == "" {
		return err
	}
	h.metrics, err = serve.Listen(serve.Config{Addr: h.cfg.Metrics, Handler: h.measured(), Log: h.log})
	return err
}

// changed passes a change of the roster to everybody whom it concerns.
func (h *Hub) changed(v *follow.View, d follow.Delta) {
	h.notify.changed(v, d) // first: nodes wait for it
	h.revoke.gone(d.GoneKeys)
	h.status.Fleet(v.Fleet)
	h.notify.ask(h.status.Want(d.Reset, d.Nodes, d.Removed))
	h.status.Changes(d.Changes)
}

// Addr is the address that is listened on.
func (h *Hub) Addr() string { return h.server.Addr() }

// Run serves until the context ends.
func (h *Hub) Run(ctx context.Context) error {
	defer h.Close()
	h.follow.Load() // before nodes are let in
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.follow.Run(ctx) })
	g.Go(func() error { return h.bus.Run(ctx) })
	g.Go(func() error { return h.status.Run(ctx) })
	g.Go(func() error {
		if err := h.awaitBus(ctx); err != nil { // its buckets are there
			return err
		}
		return h.enrol.Run(ctx)
	})
	g.Go(func() error { return h.notify.run(ctx) })
	g.Go(func() error {
		if err := h.awaitBus(ctx); err != nil {
			return err
		}
		return h.revoke.run(ctx)
	})
	g.Go(func() error { return h.server.Run(ctx) })
	if h.metrics != nil {
		g.Go(func() error { return h.metrics.Run(ctx) })
	}
	g.Go(func() error { return control.Serve(ctx, h.cfg.DataDir, h.controls()) })
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (h *Hub) awaitBus(ctx context.Context) error {
	select {
	case <-h.bus.Ready():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close gives back what New opened. Run does it, too.
func (h *Hub) Close() error { return h.close() }

func (h *Hub) giveBack() error {
	var errs []error
	for _, s := range []*serve.Server{h.server, h.metrics} {
		if s == nil {
			continue
		}
		if err := s.Close(); !errors.Is(err, net.ErrClosed) { // Run closes it
			errs = append(errs, err)
		}
	}
	if h.status != nil {
		errs = append(errs, h.status.Close())
	}
	if h.audit != nil {
		errs = append(errs, h.audit.Close())
	}
	return errors.Join(errs...)
}
