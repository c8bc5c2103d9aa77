package uplink_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"selvedge/edge/auth"
	"selvedge/edge/hubtest"
	"selvedge/edge/uplink"
	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

const patience = 20 * time.Second

// rig is one node's uplink and an honest hub.
type rig struct {
	*testing.T
	hub *hubtest.Hub
	up  *uplink.Uplink
	key nkeys.KeyPair
	log *safe

	keeper *auth.Keeper

	mu      sync.Mutex
	remote  nodestate.Remote
	status  wire.Status
	notices []wire.Notice
	logs    func(context.Context, wire.LogsRequest, io.Writer) error
	exec    func(context.Context, wire.ExecRequest, uplink.Terminal) (int, error)
	restart func(context.Context, wire.RestartRequest) error

	statuses, events *nats.Subscription
	stop             func()
}

func newRig(t *testing.T, change ...func(*rig, *uplink.Config)) *rig {
	t.Helper()
	t.Parallel()
	return lonelyRig(t, change...)
}

// lonelyRig has the process for itself: tests side by side begin after all others.
func lonelyRig(t *testing.T, change ...func(*rig, *uplink.Config)) *rig {
	t.Helper()
	return rigOf(t, []*hubtest.Hub{hubtest.New(t)}, change...)
}

// rigOf has hubs that are alike; what a test asks for is asked of the first one.
func rigOf(t *testing.T, hubs []*hubtest.Hub, change ...func(*rig, *uplink.Config)) *rig {
	t.Helper()
	r := &rig{T: t, hub: hubs[0], log: &safe{}, remote: nodestate.Remote{Logs: true, Exec: true, Restart: true}}
	var err error
	if r.key, err = nkeys.CreateUser(); err != nil {
		t.Fatal(err)
	}
	public, _ := r.key.PublicKey()
	var urls []string
	for _, h := range hubs {
		h.Nodes[public] = "gw-1"
		urls = append(urls, h.URL)
	}
	client, err := auth.New(auth.Config{Hubs: urls, CA: r.hub.CA, PublicKey: public, Sign: r.key.Sign})
	if err != nil {
		t.Fatal(err)
	}
	r.keeper = auth.NewKeeper(client, nil)
	cfg := uplink.Config{Node: "gw-1", Auth: client, Tokens: r.keeper, Sign: r.key.Sign,
		Status:  func() wire.Status { r.mu.Lock(); defer r.mu.Unlock(); return r.status },
		Granted: func() nodestate.Remote { r.mu.Lock(); defer r.mu.Unlock(); return r.remote },
		Hands:   r, Notice: func(n wire.Notice) { r.mu.Lock(); defer r.mu.Unlock(); r.notices = append(r.notices, n) },
		Interval: 200 * time.Millisecond, Retry: 100 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(r.log, nil))}
	for _, f := range change {
		f(r, &cfg)
	}
	r.up = uplink.New(cfg)
	r.statuses = r.subscribe("n.*.st")
	r.events = r.subscribe("n.*.ev")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.up.Run(ctx) }()
	r.stop = func() {
		cancel()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("the uplink does not end")
		}
		client.Close()
	}
	t.Cleanup(func() {
		r.stop()
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
	return r
}

func (r *rig) Logs(ctx context.Context, q wire.LogsRequest, w io.Writer) error {
	return r.logs(ctx, q, w)
}
func (r *rig) Exec(ctx context.Context, q wire.ExecRequest, t uplink.Terminal) (int, error) {
	return r.exec(ctx, q, t)
}
func (r *rig) Restart(ctx context.Context, q wire.RestartRequest) error { return r.restart(ctx, q) }

func (r *rig) subscribe(subject string) *nats.Subscription {
	r.Helper()
	s, err := r.hub.Conn.SubscribeSync(subject)
	if err != nil {
		r.Fatal(err)
	}
	s.SetPendingLimits(-1, -1)
	r.hub.Conn.Flush()
	return s
}

func (r *rig) next(s *nats.Subscription) *nats.Msg {
	r.Helper()
	m, err := s.NextMsg(patience)
	if err != nil {
		r.Fatalf("%s: %v", s.Subject, err)
	}
	return m
}

// seen waits for a status that fits.
func (r *rig) seen(what string, fits func(wire.Status) bool) (s wire.Status) {
	r.Helper()
	for {
		if err := json.Unmarshal(r.next(r.statuses).Data, &s); err != nil {
			r.Fatal(err)
		}
		if fits(s) {
			return s
		}
	}
}

// happened waits for an event.
func (r *rig) happened(reason string) wire.Event {
	r.Helper()
	for {
		var all wire.Events
		if err := json.Unmarshal(r.next(r.events).Data, &all); err != nil {
			r.Fatal(err)
		}
		for _, e := range all.Events {
			if e.Reason == reason {
				return e
			}
		}
	}
}

func (r *rig) connected() { r.Helper(); r.seen("connected", func(wire.Status) bool { return true }) }

func (r *rig) grant(g nodestate.Remote) {
	r.mu.Lock()
	r.remote = g
	r.mu.Unlock()
	r.up.Changed()
}

// ask sends a request as a hub does.
func (r *rig) ask(verb string, q any) wire.Answer {
	r.Helper()
	b, ok := q.([]byte)
	if !ok {
		b, _ = json.Marshal(q)
	}
	m, err := r.hub.Conn.Request(wire.RequestSubject("gw-1", verb), b, patience)
	if err != nil {
		r.Fatalf("%s: %v", verb, err)
	}
	var a wire.Answer
	if err := json.Unmarshal(m.Data, &a); err != nil {
		r.Fatal(err)
	}
	return a
}

func (r *rig) refused(verb string, q any, code string) {
	r.Helper()
	if a := r.ask(verb, q); a.Error == nil || a.Error.Code != code {
		r.Errorf("%s: answer %+v, want %s", verb, a.Error, code)
	}
}

// open opens a stream.
func (r *rig) open(verb, id string, q any) *far {
	r.Helper()
	f := &far{r: r, id: id, sub: r.subscribe(wire.StreamSubject("gw-1", id))}
	if a := r.ask(verb, q); a.Error != nil {
		r.Fatalf("%s: %v", verb, a.Error)
	}
	return f
}

// far is the hub's end of a stream.
type far struct {
	r   *rig
	id  string
	sub *nats.Subscription
	seq uint64
}

func (f *far) say(c wire.Control) {
	b, _ := json.Marshal(c)
	f.r.hub.Conn.Publish(wire.ControlSubject("gw-1", f.id), b)
}

func (f *far) input(p string) {
	f.seq++
	f.say(wire.Control{Input: []byte(p), Seq: f.seq})
}

func (f *far) frame() (byte, []byte) {
	f.r.Helper()
	kind, payload, err := wire.ParseFrame(f.r.next(f.sub).Data)
	if err != nil {
		f.r.Fatal(err)
	}
	return kind, payload
}

// all reads to the end, with credit for each frame.
func (f *far) all() (out, errs string, end wire.End) {
	f.r.Helper()
	var o, e bytes.Buffer
	for {
		kind, p := f.frame()
		switch kind {
		case wire.FrameOut:
			o.Write(p)
			f.say(wire.Control{Credit: 1})
		case wire.FrameErr:
			e.Write(p)
			f.say(wire.Control{Credit: 1})
		case wire.FrameEnd:
			if err := json.Unmarshal(p, &end); err != nil {
				f.r.Fatal(err)
			}
			return o.String(), e.String(), end
		}
	}
}

func (r *rig) until(what string, ok func() bool) {
	r.Helper()
	for began := time.Now(); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Since(began) > patience {
			r.Fatalf("waited for %s in vain", what)
		}
	}
}

type safe struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *safe) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safe) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

var errTest = errors.New("no such thing")
