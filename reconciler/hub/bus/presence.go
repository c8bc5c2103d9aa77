package bus

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"selvedge/schema/nodestate"
)

const (
	sweepTime = time.Minute     // between looks at who is allowed
	countTime = 5 * time.Minute // between counts of connections, for events that were lost
	// doubtTime passes before a node that Git does not list is revoked: a roster may be late.
	// With several hubs that of another may be ahead of ours by as long as it takes to notice
	// that the reconciler is silent, a minute.
	doubtTime       = 3 * time.Second
	sharedDoubtTime = 90 * time.Second
	// maxSilent looks, lookTime apart, without a word of a server mean that it and its
	// connections are gone: it gives its statistics every 10 seconds. Looks are counted, not
	// time: a process that was stopped for a while did not listen.
	maxSilent = 35
	lookTime  = time.Second
	// endedTime is longer than an event or a count is on its way.
	endedTime = 2 * time.Minute
)

// connID names a connection to one of the servers.
type connID struct {
	server string
	id     uint64
}

// connection is one of a node.
type connection struct {
	node, key string
	issued    int64 // its JWT, Unix time
	start     time.Time
	missed    int       // times that it was not found
	doubt     time.Time // since when Git does not list it
}

// presence knows which nodes are connected, from events of all servers.
type presence struct {
	b       *Bus
	doubt   time.Duration
	recount chan struct{}

	mu     sync.Mutex
	conns  map[connID]*connection
	nodes  map[string][]connID // one, the newest
	taken  contests
	silent map[string]int // servers, by identifier: looks since one was heard
	// ended are connections whose end was told, and when. Each subject has a goroutine of its
	// own, so that an end may be heard before its beginning, and a count is older than what was
	// heard while it came; no server uses an identifier twice. One without a number is a server
	// itself, with all its connections.
	ended map[connID]time.Time
}

func newPresence(b *Bus) *presence {
	return &presence{b: b, doubt: b.cfg.Doubt, recount: make(chan struct{}, 1),
		conns: map[connID]*connection{}, nodes: map[string][]connID{}, taken: contests{}, silent: map[string]int{}, ended: map[connID]time.Time{}}
}

// again asks for a count, as events may have been lost.
func (p *presence) again() {
	select {
	case p.recount <- struct{}{}:
	default:
	}
}

func (p *presence) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.nodes)
}

// issued returns of each key when the newest JWT was issued with which it is connected, or 0.
func (p *presence) issued(keys []string) map[string]int64 {
	out := make(map[string]int64, len(keys))
	for _, k := range keys {
		out[k] = 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		if newest, asked := out[c.key]; asked {
			out[c.key] = max(newest, c.issued)
		}
	}
	return out
}

// current returns a node's newest connection.
func (p *presence) current(node string) (connID, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := p.nodes[node]
	if len(ids) == 0 {
		return connID{}, false
	}
	return ids[len(ids)-1], true
}

// listen subscribes to what is needed before nodes are let in.
func (b *Bus) listen(ctx context.Context, l *links) error {
	p := b.presence
	for subject, f := range map[string]nats.MsgHandler{
		"$SYS.ACCOUNT." + b.keys.accountID + ".CONNECT":    p.connectEvent,
		"$SYS.ACCOUNT." + b.keys.accountID + ".DISCONNECT": p.disconnectEvent,
		"$SYS.SERVER.*.SHUTDOWN":                           p.shutdownEvent,
		"$SYS.SERVER.*.STATSZ":                             p.statsEvent,
		claimsUpdate:                                       b.otherRevoked,
	} {
		if _, err := l.sys.Subscribe(subject, f); err != nil {
			return err
		}
	}
	for _, subject := range []string{"n.*.st", "n.*.ev"} {
		sub, err := l.reports.Subscribe(subject, func(m *nats.Msg) { b.inbox.take(m.Subject, m.Data) })
		if err != nil {
			return err
		}
		if err := sub.SetPendingLimits(100_000, 128<<20); err != nil {
			return err
		}
	}
	for _, nc := range []*nats.Conn{l.sys, l.reports, l.requests} {
		if err := nc.FlushTimeout(10 * time.Second); err != nil {
			return err
		}
	}
	// before nodes are let in, too: what was revoked while no server could be reached
	if err := b.pushRevoked(ctx, l.sys, false); err != nil {
		return fmt.Errorf("revocations of nodes: %w", err)
	}
	p.again()
	return nil
}

// claimsOf reads what a server has checked.
func claimsOf(token string) (c connection, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c, false
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return c, false
	}
	var u struct {
		Sub  string `json:"sub"`
		Name string `json:"name"`
		Iat  int64  `json:"iat"`
		Nats struct {
			Tags []string `json:"tags"`
		} `json:"nats"`
	}
	if json.Unmarshal(data, &u) != nil || !slices.Contains(u.Nats.Tags, nodeTag) || !nodestate.ValidNode(u.Name) {
		return c, false
	}
	return connection{node: u.Name, key: u.Sub, issued: u.Iat}, true
}

// nodeTag tells users that are nodes from hubs.
const nodeTag = "node"

// event is what servers tell of a connection.
type event struct {
	Server struct {
		ID string `json:"id"`
	} `json:"server"`
	Client struct {
		ID    uint64    `json:"id"`
		Start time.Time `json:"start"`
		JWT   string    `json:"jwt"`
	} `json:"client"`
}

func (p *presence) connectEvent(m *nats.Msg) {
	var e event
	if json.Unmarshal(m.Data, &e) != nil {
		return
	}
	if c, ok := claimsOf(e.Client.JWT); ok {
		c.start = e.Client.Start
		if !p.heard(e.Server.ID) {
			p.again()
		}
		p.add(connID{e.Server.ID, e.Client.ID}, c, true)
	}
}

func (p *presence) disconnectEvent(m *nats.Msg) {
	var e event
	if json.Unmarshal(m.Data, &e) == nil {
		id := connID{e.Server.ID, e.Client.ID}
		p.mu.Lock()
		p.ended[id] = time.Now()
		p.mu.Unlock()
		p.remove(id)
	}
}

// shutdownEvent forgets a server that ends, and its connections, also those that are only told of
// after it.
func (p *presence) shutdownEvent(m *nats.Msg) {
	parts := strings.Split(m.Subject, ".")
	if len(parts) == 4 {
		p.mu.Lock()
		delete(p.silent, parts[2])
		p.ended[connID{server: parts[2]}] = time.Now()
		p.mu.Unlock()
		p.removeServer(parts[2])
	}
}

// statsEvent notes that a server is alive.
func (p *presence) statsEvent(m *nats.Msg) {
	parts := strings.Split(m.Subject, ".")
	if len(parts) == 4 && !p.heard(parts[2]) {
		p.again()
	}
}

// heard notes that a server is alive. One that was not known is new, or was thought to be gone,
// and so were its nodes.
func (p *presence) heard(server string) (known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over(connID{server: server}) {
		return true // said before its end
	}
	_, known = p.silent[server]
	p.silent[server] = 0
	return known
}

// over tells whether a connection has ended, be it with its server. It is called with the lock.
func (p *presence) over(id connID) bool {
	_, one := p.ended[id]
	_, all := p.ended[connID{server: id.server}]
	return one || all
}

// bury removes servers that have been silent for long, while the hub itself is connected. It is
// called every lookTime.
func (p *presence) bury(connected bool) {
	p.mu.Lock()
	var gone []string
	for id, n := range p.silent {
		switch {
		case !connected:
			p.silent[id] = 0
		case n >= maxSilent:
			gone = append(gone, id)
			delete(p.silent, id)
		default:
			p.silent[id] = n + 1
		}
	}
	p.mu.Unlock()
	for _, id := range gone {
		p.b.log.Warn("a server of the bus is gone", "id", id)
		p.removeServer(id)
		p.again() // a count that is under way may know of its nodes still; or it is only slow
	}
}

func (p *presence) removeServer(id string) {
	p.mu.Lock()
	var gone []connID
	for c := range p.conns {
		if c.server == id {
			gone = append(gone, c)
		}
	}
	p.mu.Unlock()
	for _, c := range gone {
		p.remove(c)
	}
}

// add notes a connection. Of two of one node the newer one stays; live says that it was
// opened just now.
func (p *presence) add(id connID, c connection, live bool) {
	if !p.b.cfg.Allowed(c.node, c.key) {
		c.doubt = time.Now()
	}
	p.mu.Lock()
	if old := p.conns[id]; old != nil {
		old.missed = 0
		p.mu.Unlock()
		return
	}
	if p.over(id) {
		p.mu.Unlock()
		return
	}
	p.conns[id] = &c
	ids := slices.Clone(p.nodes[c.node])
	if n := len(ids); n > 0 && !p.newer(id, ids[n-1], live) {
		ids = slices.Insert(ids, n-1, id)
	} else {
		ids = append(ids, id)
	}
	older := slices.Clone(ids[:len(ids)-1])
	p.nodes[c.node] = ids[len(ids)-1:]
	for _, o := range older {
		delete(p.conns, o) // if it stays, for what reason ever, the next count finds it
	}
	twice := live && len(older) > 0 && p.taken.over(c.node, time.Now())
	p.b.inbox.connected(c.node, true)
	p.mu.Unlock()
	for _, o := range older {
		p.kick(o)
		p.b.streams.gone(c.node, o)
	}
	if twice {
		p.b.count.twice.Add(1)
		p.b.log.Warn("two machines use the key of one node: a clone, or a stolen key", "node", c.node, "key", c.key)
		p.b.cfg.Twice(c.node)
	}
}

// newer tells which of two connections of a node was opened later. Clocks may be set back, and
// differ between servers: they count only where nothing else tells. It is called with the lock.
func (p *presence) newer(id, than connID, live bool) bool {
	if id.server == than.server {
		return id.id > than.id
	}
	return live || p.conns[id].start.After(p.conns[than].start)
}

func (p *presence) remove(id connID) {
	p.mu.Lock()
	c := p.conns[id]
	if c == nil {
		p.mu.Unlock()
		return
	}
	delete(p.conns, id)
	ids := slices.DeleteFunc(p.nodes[c.node], func(o connID) bool { return o == id })
	if len(ids) > 0 {
		p.nodes[c.node] = ids
	} else {
		delete(p.nodes, c.node)
		p.b.inbox.connected(c.node, false)
	}
	p.mu.Unlock()
	p.b.streams.gone(c.node, id)
}

// kick ends a connection, whatever its server answers: it may be gone.
func (p *presence) kick(id connID) {
	nc := p.b.sys()
	if nc == nil {
		return
	}
	data, _ := json.Marshal(map[string]uint64{"cid": id.id})
	p.b.count.kicked.Add(1)
	// servers ignore what wants no answer
	if err := nc.PublishRequest("$SYS.REQ.SERVER."+id.server+".KICK", nc.NewInbox(), data); err != nil {
		p.b.log.Debug("end a connection", "error", err)
	}
}

func (p *presence) kickNode(node string) {
	p.mu.Lock()
	ids := slices.Clone(p.nodes[node])
	p.mu.Unlock()
	for _, id := range ids {
		p.kick(id)
	}
}

// run looks after connections until ctx ends.
func (p *presence) run(ctx context.Context) {
	tick := time.NewTicker(lookTime)
	defer tick.Stop()
	swept, counted := time.Now(), time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.recount:
			counted = time.Time{}
			p.b.keepRevoked(ctx)
		case <-tick.C:
			p.bury(p.b.sys().IsConnected())
		}
		now := time.Now()
		if now.Sub(counted) >= countTime {
			p.countAll(ctx)
			counted = now
		}
		if now.Sub(swept) >= sweepTime {
			p.sweep(now)
			p.b.keepRevoked(ctx)
			swept = now
		}
		p.settle(ctx, now)
	}
}

// sweep looks whether each connection is still allowed.
func (p *presence) sweep(now time.Time) {
	p.mu.Lock()
	all := make(map[connID]connection, len(p.conns))
	for id, c := range p.conns {
		all[id] = *c
	}
	maps.DeleteFunc(p.ended, func(_ connID, t time.Time) bool { return now.Sub(t) > endedTime })
	p.taken.sweep(now)
	p.mu.Unlock()
	for id, c := range all {
		if !c.doubt.IsZero() || p.b.cfg.Allowed(c.node, c.key) {
			continue
		}
		p.mu.Lock()
		if now := p.conns[id]; now != nil {
			now.doubt = time.Now()
		}
		p.mu.Unlock()
	}
}

// settle revokes what has been in doubt for long enough.
func (p *presence) settle(ctx context.Context, now time.Time) {
	p.mu.Lock()
	var old []connection
	for _, c := range p.conns {
		if !c.doubt.IsZero() && now.Sub(c.doubt) >= p.doubt {
			old = append(old, *c)
			c.doubt = time.Time{} // asked again by the next sweep
		}
	}
	p.mu.Unlock()
	var keys []string
	for _, c := range old {
		if !p.b.cfg.Allowed(c.node, c.key) {
			p.b.log.Warn("a connected node is not in Git: its key is revoked", "node", c.node, "key", c.key)
			keys = append(keys, c.key)
		}
	}
	if len(keys) == 0 {
		return
	}
	if err := p.b.Revoke(ctx, keys...); err != nil && ctx.Err() == nil {
		p.b.log.Warn("revoke what Git does not list", "error", err)
	}
}

func (b *Bus) sys() *nats.Conn {
	if l := b.link.Load(); l != nil {
		return l.sys
	}
	return nil
}
