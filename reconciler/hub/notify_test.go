package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"selvedge/reconciler/hub/bus"
	"selvedge/reconciler/hub/follow"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// TestNoticesOutlastTheBus: while the bus takes nothing notices are kept, the newest of each node,
// and none of a node that is removed meanwhile.
func TestNoticesOutlastTheBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		down, told := true, map[string]string{}
		n := newNotifier(func(node, verb string, msg any) error {
			mu.Lock()
			defer mu.Unlock()
			if down {
				return bus.ErrNotReady
			}
			told[node] += fmt.Sprint(verb, msg, " ")
			return nil
		}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.run(ctx) }()
		gen := func(g int64, names ...string) follow.Delta {
			d := follow.Delta{Nodes: map[string]roster.Node{}}
			for _, name := range names {
				d.Nodes[name] = roster.Node{Generation: g}
			}
			return d
		}
		v := &follow.View{}
		first := gen(1, "a", "b", "c")
		first.Reset = true
		n.changed(v, first) // nobody is told what was so before
		n.changed(v, gen(2, "a", "b"))
		n.ask([]string{"a", "c"})
		time.Sleep(10 * time.Second)
		n.changed(v, gen(3, "a"))
		n.changed(v, follow.Delta{Removed: []string{"b"}})
		time.Sleep(10 * time.Second)
		mu.Lock()
		down = false
		mu.Unlock()
		time.Sleep(10 * time.Second)
		want := map[string]string{
			"a": fmt.Sprint(wire.VerbNotice, wire.Notice{Generation: 3}, " ", wire.VerbReport, nil, " "),
			"c": fmt.Sprint(wire.VerbReport, nil, " "),
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if fmt.Sprint(told) != fmt.Sprint(want) {
			t.Errorf("told %v, not %v", told, want)
		}
	})
}
