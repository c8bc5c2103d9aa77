package console

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"selvedge/edge/auth"
	"selvedge/edge/uplink"
	"selvedge/schema/hubapi"
	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

// crew is nodes that are connected.
type crew struct {
	t        testing.TB
	wg       sync.WaitGroup
	up       atomic.Int64
	restarts chan string   // node, app and container
	slow     chan struct{} // while it is full, restarts wait
	links    map[string]*uplink.Uplink
}

// connect lets nodes report what tell says.
func (b *bed) connect(tell func(string, time.Time) wire.Status, names ...string) *crew {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := &crew{t: b.t, restarts: make(chan string, 100), slow: make(chan struct{}, 1), links: map[string]*uplink.Uplink{}}
	b.t.Cleanup(func() { cancel(); c.wg.Wait() })
	for _, name := range names {
		key := b.keys[name]
		public, err := key.PublicKey()
		must(b.t, err)
		a, err := auth.New(auth.Config{Hubs: []string{b.url}, Pin: b.pin, PublicKey: public, Sign: key.Sign})
		must(b.t, err)
		u := uplink.New(uplink.Config{
			Node: name, Auth: a, Tokens: auth.NewKeeper(a, func(auth.Grant) error { return nil }), Sign: key.Sign,
			Status: func() wire.Status { return tell(name, time.Now()) }, Granted: func() nodestate.Remote { return granted },
			Hands: hands{name, c}, Notice: func(wire.Notice) {}, Interval: time.Second, Retry: time.Second, Log: slog.New(slog.DiscardHandler),
			Linked: func(up bool) {
				if up {
					c.up.Add(1)
				}
			},
		})
		c.links[name] = u
		c.wg.Go(func() { _ = u.Run(ctx) }) // ends with the context
	}
	b.until(time.Minute, "nodes to be connected", func() bool { return int(c.up.Load()) >= len(names) })
	return c
}

type hands struct {
	node string
	crew *crew
}

func (h hands) Logs(ctx context.Context, r wire.LogsRequest, w io.Writer) error {
	lines := 40
	for i := range lines {
		if _, err := fmt.Fprintf(w, "2026-11-24T09:%02d:11Z INFO %s/%s: frame %d stored in 12 ms\n", i%60, r.App, r.Container, 1000+i); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(w, "\x1b[31mWARN\x1b[0m <b>not bold</b> \u202eturned <script>document.title='owned'</script>\n"); err != nil || !r.Follow {
		return err
	}
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		if _, err := fmt.Fprintf(w, "live line %d\n", i); err != nil {
			return err
		}
	}
}

func (hands) Exec(context.Context, wire.ExecRequest, uplink.Terminal) (int, error) {
	return 0, fmt.Errorf("no containers here")
}

func (h hands) Restart(ctx context.Context, r wire.RestartRequest) error {
	select {
	case h.crew.slow <- struct{}{}:
		<-h.crew.slow
	case <-ctx.Done():
		return ctx.Err()
	}
	h.crew.restarts <- h.node + " " + r.App + " " + r.Container
	return nil
}

// ask lets a machine ask to join, and returns its code.
func (b *bed) ask(guide string) string {
	b.t.Helper()
	tokens, err := b.client().JoinTokens(b.t.Context(), hubapi.JoinTokenRequest{Guide: guide})
	must(b.t, err)
	key, err := nkeys.CreateUser()
	must(b.t, err)
	public, err := key.PublicKey()
	must(b.t, err)
	a, err := auth.New(auth.Config{Hubs: []string{b.url}, Pin: b.pin, PublicKey: public, Sign: key.Sign})
	must(b.t, err)
	defer a.Close()
	joined, err := a.Join(b.t.Context(), wire.JoinRequest{Token: tokens.Tokens[0], PublicKey: public,
		Machine: wire.Machine{Hostname: "lab-pc-<b>4</b>", OS: "Debian GNU/Linux 12 (bookworm)", Kernel: "6.1.0", Arch: "arm64", CPUs: 4, Memory: 4 << 30}})
	must(b.t, err)
	return joined.Code
}
