package bus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// startServer starts the embedded server from the same text that external ones get, but for
// WebSocket: the tunnel hands nodes over in process.
func (b *Bus) startServer() error {
	store := filepath.Join(b.cfg.Dir, "server")
	if err := ensureDir(store); err != nil {
		return fmt.Errorf("bus server: %w", err)
	}
	e := External{Name: b.cfg.Name, Listen: "127.0.0.1:-1", Store: store}
	if b.cfg.Listen != "" {
		e.Listen = b.cfg.Listen
	}
	o := &server.Options{}
	if err := o.ProcessConfigString(serverText(b.keys, e)); err != nil {
		return fmt.Errorf("bus server: %w", err)
	}
	o.NoSigs = true
	if b.cfg.Listen == "" {
		o.DontListen = true
	} else {
		// a copy without protocols: nodes speak no HTTP here
		o.TLSConfig = b.cfg.TLS.Clone()
		o.TLSConfig.NextProtos = nil
		o.TLS, o.TLSTimeout = true, 10
	}
	s, err := server.NewServer(o)
	if err != nil {
		return fmt.Errorf("bus server: %w", err)
	}
	s.SetLoggerV2(serverLog{b.log}, false, false, false)
	s.Start()
	b.srv = s
	if !s.ReadyForConnections(15 * time.Second) {
		b.stopServer()
		return fmt.Errorf("bus server: it does not start; is another hub running on %s, or is %s in use?", store, e.Listen)
	}
	return nil
}

func (b *Bus) stopServer() {
	b.srv.Shutdown()
	b.srv.WaitForShutdown()
}

// listenAddr is where the embedded server takes nodes without WebSocket; nil: nowhere.
func (b *Bus) listenAddr() net.Addr {
	if b.srv == nil || b.cfg.Listen == "" {
		return nil
	}
	return b.srv.Addr()
}

// connect opens the hub's own connections. External servers may still be starting.
func (b *Bus) connect(ctx context.Context) (*links, error) {
	l := &links{}
	for _, c := range []struct {
		name string
		sys  bool
		to   **nats.Conn
	}{{"-system", true, &l.sys}, {"-reports", false, &l.reports}, {"-requests", false, &l.requests}} {
		var err error
		for wait := 250 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
			if *c.to, err = b.dial(b.cfg.Name+c.name, c.sys); err == nil || b.srv != nil {
				break
			}
			b.log.Warn("no server of the bus can be reached", "error", err, "again", wait)
			if !c.sys && l.sys.IsConnected() { // the cause may be that all JWTs are revoked
				if err := b.learnRevoked(ctx, l.sys); err != nil {
					b.log.Warn("revocations of nodes", "error", err)
				}
			}
			select {
			case <-time.After(wait):
				continue
			case <-ctx.Done():
			}
			break
		}
		if err == nil && c.sys && b.srv != nil { // the other two are not tried again
			err = b.learnRevoked(ctx, l.sys)
		}
		if err != nil {
			l.close()
			return nil, fmt.Errorf("connect to the bus: %w", err)
		}
	}
	return l, nil
}

func (b *Bus) dial(name string, system bool) (*nats.Conn, error) {
	auth, err := b.keys.own(name, system, b.revoked.at)
	if err != nil {
		return nil, err
	}
	opts := []nats.Option{
		auth, nats.Name(name),
		nats.MaxReconnects(-1), nats.ReconnectWait(200 * time.Millisecond), nats.ReconnectJitter(200*time.Millisecond, 200*time.Millisecond),
		nats.ReconnectBufSize(-1), nats.IgnoreAuthErrorAbort(), nats.Timeout(10 * time.Second),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrSlowConsumer) {
				b.count.slow.Add(1)
			}
			b.log.Debug("bus connection", "name", name, "error", err)
		}),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if err != nil && !nc.IsClosed() {
				b.log.Warn("the hub lost its bus connection", "name", name, "error", err)
			}
		}),
	}
	if system {
		opts = append(opts, nats.ReconnectHandler(func(*nats.Conn) { b.presence.again() }))
	}
	if b.srv != nil {
		return nats.Connect("", append(opts, nats.InProcessServer(b.srv))...)
	}
	conf, err := b.clientTLS()
	if err != nil {
		return nil, err
	}
	if conf != nil {
		opts = append(opts, nats.Secure(conf))
	}
	var all []string
	for _, u := range b.servers {
		all = append(all, u.String())
	}
	return nats.Connect(strings.Join(all, ","), append(opts, nats.IgnoreDiscoveredServers())...)
}

// clientTLS is how the hub checks external servers; nil if all are plain.
func (b *Bus) clientTLS() (*tls.Config, error) {
	secure := false
	for _, u := range slices.Concat(b.servers, b.nodes) {
		secure = secure || u.Scheme == "wss" || u.Scheme == "tls"
	}
	if !secure && b.cfg.CA == "" {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if b.cfg.CA != "" {
		pem, err := os.ReadFile(b.cfg.CA)
		if err != nil {
			return nil, fmt.Errorf("bus: who signs the servers' certificates: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("bus: %s holds no certificate (PEM)", b.cfg.CA)
		}
	}
	return conf, nil
}

// serverLog passes on what an embedded server logs; what strangers do wrong is for debugging.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Noticef(f string, a ...any) { l.log.Debug("bus server: " + fmt.Sprintf(f, a...)) }
func (l serverLog) Warnf(f string, a ...any)   { l.Noticef(f, a...) }
func (l serverLog) Debugf(f string, a ...any)  {}
func (l serverLog) Tracef(f string, a ...any)  {}
func (l serverLog) Fatalf(f string, a ...any)  { l.log.Error("bus server: " + fmt.Sprintf(f, a...)) }
func (l serverLog) Errorf(f string, a ...any) {
	level, text := slog.LevelDebug, fmt.Sprintf(f, a...)
	if strings.Contains(text, "JetStream") || strings.Contains(text, "DirResolver") {
		level = slog.LevelWarn
	}
	l.log.Log(context.Background(), level, "bus server: "+text)
}

func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	port := map[string]int{"ws": 80, "wss": 443}[u.Scheme]
	return net.JoinHostPort(u.Hostname(), strconv.Itoa(port))
}
