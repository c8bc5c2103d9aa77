// Package swarm is many nodes in one process: the agent's own uplink over TLS, one
// connection and one key each, without containers.
//
// It stands for a fleet in drills and benchmarks of the hub. A node of the swarm believes
// each notice and reports that it runs what was announced; it pulls nothing.
package swarm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nkeys"
	"golang.org/x/time/rate"

	"selvedge/edge/auth"
	"selvedge/edge/uplink"
	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

// Member is one node.
type Member struct {
	Name string
	Key  nkeys.KeyPair
}

// Config says what a Swarm is.
type Config struct {
	Hubs     []string
	Pin      string // sha256: of the hub's CA
	Members  []Member
	Rate     int           // connections begun a second; 0 means 500
	Interval time.Duration // between statuses; 0 means wire.StatusInterval
	Retry    time.Duration // the most between attempts to connect; 0 means 30 s
	Ping     time.Duration // between questions whether the hub is there; 0 means 20 s
	Clock    time.Duration // how far the members' clocks are ahead
	Runs     int64         // generation that they run from the start
	Apps     int           // of a container each, in every status; 0 means 2
	Granted  nodestate.Remote
	Notice   func(node string, n wire.Notice, at time.Time) // may be nil
	Logs     func(ctx context.Context, r wire.LogsRequest, w io.Writer) error
	Exec     func(ctx context.Context, r wire.ExecRequest, t uplink.Terminal) (int, error)
	Restart  func(ctx context.Context, r wire.RestartRequest) error
	Log      *slog.Logger // nil: none
}

// Swarm is what was started.
type Swarm struct {
	cfg    Config
	up     atomic.Int64
	wg     sync.WaitGroup
	cancel context.CancelFunc
	nodes  []*node
	begun  chan struct{} // nodes that are connecting for the first time
}

// On a slow machine handshakes would time out if all were begun at the same time.
const (
	together = 100
	patience = 5 * time.Second // with a node that cannot connect
)

type node struct {
	Member
	s          *Swarm
	up         *uplink.Uplink
	generation atomic.Int64
	connected  atomic.Bool
	begin      func() // lets the next one begin
}

// Start begins to connect all members. Close what it returns.
func Start(ctx context.Context, cfg Config) (*Swarm, error) {
	if cfg.Rate == 0 {
		cfg.Rate = 500
	}
	if cfg.Apps == 0 {
		cfg.Apps = 2
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &Swarm{cfg: cfg, cancel: cancel, begun: make(chan struct{}, together)}
	pace := rate.NewLimiter(rate.Limit(cfg.Rate), cfg.Rate/10+1)
	for _, m := range cfg.Members {
		n, err := s.node(m)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("node %s: %w", m.Name, err)
		}
		s.nodes = append(s.nodes, n)
	}
	s.wg.Go(func() {
		for _, n := range s.nodes {
			if pace.Wait(ctx) != nil {
				return
			}
			select {
			case s.begun <- struct{}{}:
			case <-ctx.Done():
				return
			}
			time.AfterFunc(patience, n.begin)
			s.wg.Go(func() { _ = n.up.Run(ctx) }) // ends with the context
		}
	})
	return s, nil
}

func (s *Swarm) node(m Member) (*node, error) {
	public, err := m.Key.PublicKey()
	if err != nil {
		return nil, err
	}
	n := &node{Member: m, s: s, begin: sync.OnceFunc(func() { <-s.begun })}
	n.generation.Store(s.cfg.Runs)
	now := func() time.Time { return time.Now().Add(s.cfg.Clock) }
	client, err := auth.New(auth.Config{Hubs: s.cfg.Hubs, Pin: s.cfg.Pin, PublicKey: public, Sign: m.Key.Sign, Now: now})
	if err != nil {
		return nil, err
	}
	keeper := auth.NewKeeper(client, func(g auth.Grant) error {
		if g.Node != m.Name {
			return fmt.Errorf("the hub calls this node %q", g.Node)
		}
		return nil
	})
	n.up = uplink.New(uplink.Config{
		Node: m.Name, Auth: client, Tokens: keeper, Sign: m.Key.Sign,
		Status: n.status, Granted: func() nodestate.Remote { return s.cfg.Granted }, Hands: hands{s},
		Notice: n.notice, Interval: s.cfg.Interval, Retry: s.cfg.Retry, Ping: s.cfg.Ping, Now: now, Log: s.cfg.Log,
		Linked: func(up bool) {
			n.begin()
			client.Close() // its idle connection: ten thousand of them are many
			if n.connected.Swap(up) != up {
				if up {
					s.up.Add(1)
				} else {
					s.up.Add(-1)
				}
			}
		},
	})
	return n, nil
}

func (n *node) notice(w wire.Notice) {
	at := time.Now()
	if w.Generation > 0 {
		n.generation.Store(w.Generation)
		n.up.Changed()
	}
	if n.s.cfg.Notice != nil {
		n.s.cfg.Notice(n.Name, w, at)
	}
}

func (n *node) status() wire.Status {
	s := report(n.Name, n.s.cfg.Apps)
	s.Remote = n.s.cfg.Granted
	if g := n.generation.Load(); g > 0 {
		ref := wire.Ref{Generation: g, Digest: nodestate.Digest([]byte(n.Name))}
		s.State.Pulled, s.State.Current, s.State.LastGood = ref, ref, ref
	}
	return s
}

// Report is what a node of a swarm says each time, about.
func Report(name string) wire.Status {
	s := report(name, 2)
	s.Node, s.Epoch, s.Seq, s.Time = name, strings.Repeat("x", 26), 1, time.Now()
	return s
}

func report(name string, apps int) wire.Status {
	s := wire.Status{
		Well:    true,
		Agent:   wire.Agent{Version: "swarm", Started: started, Runtime: "none"},
		Machine: wire.Machine{Hostname: name, OS: "Debian GNU/Linux 12 (bookworm)", Kernel: "6.1.0", Arch: "amd64", CPUs: 4, Memory: 4 << 30, Booted: started},
		State:   wire.State{Phase: "idle", Contact: time.Now()},
		Usage:   &wire.Usage{CPU: 0.4, Load: 0.5, Memory: 1 << 30, MemoryLimit: 4 << 30, Disk: 5 << 30, DiskLimit: 30 << 30, NetRx: 12345678, NetTx: 87654321},
	}
	for i := range apps {
		s.Apps = append(s.Apps, wire.App{Name: fmt.Sprint("app-", i), Healthy: true, Containers: []wire.Instance{{
			Name: "web", ID: strings.Repeat("0123456789abcdef", 4), State: "running", Healthy: true, Since: started,
			Image: "registry.example/app@sha256:" + strings.Repeat("0", 64),
			Usage: &wire.Usage{CPU: 0.1, Memory: 64 << 20, MemoryLimit: 128 << 20, NetRx: 1234, NetTx: 4321},
		}}})
	}
	return s
}

var started = time.Now().Add(-time.Hour).Truncate(time.Second)

// Connected counts the nodes that are.
func (s *Swarm) Connected() int { return int(s.up.Load()) }

// Await waits until so many are connected.
func (s *Swarm) Await(ctx context.Context, n int) error {
	for s.Connected() < n {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d nodes are connected: %w; %s", s.Connected(), n, ctx.Err(), s.why())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// why is what keeps one of the nodes away.
func (s *Swarm) why() string {
	for _, n := range s.nodes {
		if l := n.up.Link(); !l.Connected && l.Why != "" {
			return n.Name + ": " + l.Why
		}
	}
	return ""
}

// Close ends all connections.
func (s *Swarm) Close() {
	s.cancel()
	s.wg.Wait()
}

type hands struct{ s *Swarm }

func (h hands) Logs(ctx context.Context, r wire.LogsRequest, w io.Writer) error {
	if h.s.cfg.Logs == nil {
		return errors.New("a node of the swarm has no logs")
	}
	return h.s.cfg.Logs(ctx, r, w)
}

func (h hands) Exec(ctx context.Context, r wire.ExecRequest, t uplink.Terminal) (int, error) {
	if h.s.cfg.Exec == nil {
		return 0, errors.New("a node of the swarm has no containers")
	}
	return h.s.cfg.Exec(ctx, r, t)
}

func (h hands) Restart(ctx context.Context, r wire.RestartRequest) error {
	if h.s.cfg.Restart == nil {
		return errors.New("a node of the swarm has no containers")
	}
	return h.s.cfg.Restart(ctx, r)
}
