package status

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// live runs a store by the bubble's clock.
func live(t *testing.T, do func(t *testing.T, s *Store)) {
	path := filepath.Join(t.TempDir(), "status.db")
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(Config{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		do(t, s)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func send(s *Store, r *wire.Status) {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	s.Report(r.Node, b)
}

func TestWatch(t *testing.T) {
	live(t, func(t *testing.T, s *Store) {
		oslo := wanted(7)
		oslo.Workspace = "folders/oslo"
		s.Want(true, map[string]roster.Node{"a": wanted(7), "b": wanted(7), "hidden": oslo}, nil)
		ctx, stop := context.WithCancel(t.Context())
		c := s.Watch(ctx, Query{Initial: true, Visible: func(w string) bool { return w == site }})
		// until gathers updates until none came for some seconds: those that repeat once, and the last summary
		until := func() (got string) {
			summary, last := "", ""
			for {
				select {
				case u := <-c:
					this := ""
					switch u.Kind {
					case "node":
						this = fmt.Sprintf(" %s=%s", u.Node.Name, u.Node.Status)
					case "removed":
						this = " -" + u.Removed
					case "event":
						this = " " + u.Event.Node + "!" + u.Event.Reason
					case "summary":
						summary = fmt.Sprintf(" (%d)", u.Summary.Nodes)
					}
					if this != "" && this != last {
						got, last = got+this, this
					}
				case <-time.After(3 * time.Second):
					return got + summary
				}
			}
		}
		expect := func(what, want string) {
			t.Helper()
			if got := until(); got != want {
				t.Errorf("%s:%s, want%s", what, got, want)
			}
		}
		expect("first", " a=Unknown b=Unknown (2)")
		send(s, good("a", 1, 7, time.Now()))
		send(s, good("hidden", 1, 7, time.Now()))
		expect("a reported", " a=Ready (2)")
		for i := range uint64(5) {
			send(s, good("a", 2+i, 7, time.Now()))
		}
		expect("usage", " a=Ready")
		s.Note("b", wire.Event{Reason: "Joined"})
		s.Note("hidden", wire.Event{Reason: "Secret"})
		s.Note("", wire.Event{Reason: "Hub"})
		expect("events", " b!Joined")
		s.Want(false, nil, []string{"b", "hidden"})
		expect("removed", " -b (1)")
		time.Sleep(40 * time.Second)
		expect("time passed", " a=Unknown a!Unknown (1)")
		moved := wanted(7)
		moved.Workspace = "folders/oslo"
		s.Want(false, map[string]roster.Node{"a": moved}, nil)
		expect("moved out of sight", " -a (0)")
		stop()
		if _, ok := <-c; ok {
			if _, ok := <-c; ok {
				t.Error("it goes on")
			}
		}
	})
}

// TestSlowWatcher reads nothing for a while.
func TestSlowWatcher(t *testing.T) {
	live(t, func(t *testing.T, s *Store) {
		nodes := map[string]roster.Node{}
		for i := range 200 {
			nodes[fmt.Sprintf("gw-%03d", i)] = wanted(7)
		}
		s.Want(true, nodes, nil)
		ctx, stop := context.WithCancel(t.Context())
		c := s.Watch(ctx, Query{})
		<-c // the start
		<-c // the summary
		for seq := range uint64(20) {
			for n := range nodes {
				r := good(n, seq+1, 7, time.Now())
				r.Well, r.Why = false, fmt.Sprint("problem ", seq)
				send(s, r)
				s.Note(n, wire.Event{Reason: "Tick"})
			}
			time.Sleep(5 * time.Second)
		}
		updates, events, last := 0, 0, map[string]string{}
		for open := true; open; {
			select {
			case u := <-c:
				switch u.Kind {
				case "node":
					updates++
					last[u.Node.Name] = u.Node.Why
				case "event":
					events++
				}
			case <-time.After(3 * time.Second):
				open = false
			}
		}
		if updates > 3*200 || events > 2*watchEvents || len(last) != 200 {
			t.Errorf("%d updates of %d nodes, %d events", updates, len(last), events)
		}
		for n, why := range last {
			if why != "problem 19" {
				t.Fatalf("%s: the last update says %q", n, why)
			}
		}
		stop()
		for range c {
		}
	})
}

func TestBadWatch(t *testing.T) {
	live(t, func(t *testing.T, s *Store) {
		if _, ok := <-s.Watch(t.Context(), Query{Labels: "("}); ok {
			t.Error("an update of nothing")
		}
	})
}

// TestTogether does everything at once, for the race detector.
func TestTogether(t *testing.T) {
	live(t, func(t *testing.T, s *Store) {
		ctx, stop := context.WithCancel(t.Context())
		nodes := map[string]roster.Node{}
		for i := range 50 {
			nodes[fmt.Sprintf("gw-%02d", i)] = wanted(7)
		}
		s.Want(true, nodes, nil)
		c := s.Watch(ctx, Query{})
		done := make(chan bool)
		for g := range 4 {
			go func() {
				defer func() { done <- true }()
				for seq := range uint64(20) {
					for n := range nodes {
						send(s, good(n, seq*4+uint64(g), 7, time.Now()))
						s.Presence(n, seq%2 == 0)
						s.Events(n, fmt.Appendf(nil, `{"node":%q,"epoch":"e","events":[{"seq":%d,"reason":"X"}]}`, n, seq))
					}
					s.Changes([]roster.Change{commit(fmt.Sprintf("%d-%d", g, seq), time.Now(), map[string]int64{"gw-01": 7})})
					s.Nodes(Query{Sort: "cpu", Labels: "tier"})
					s.Instances(Query{})
					s.Apps(Query{})
					s.EventList(EventQuery{Search: "x"})
					s.Metrics("gw-01", time.Time{})
					s.ChangeList(nil, 0, "")
					s.Change("1-1", nil)
					s.Summary(nil)
					s.Want(false, map[string]roster.Node{"gw-new": wanted(int64(seq))}, []string{"gw-03"})
					s.Want(false, map[string]roster.Node{"gw-03": wanted(7)}, []string{"gw-new"})
					time.Sleep(time.Second)
				}
			}()
		}
		go func() {
			for range c {
			}
		}()
		for range 4 {
			<-done
		}
		if l, err := s.Nodes(Query{Status: []hubapi.Readiness{hubapi.Ready}}); err != nil || l.Total < 49 {
			t.Error(l.Total, err)
		}
		stop()
	})
}

// TestWatchAfter goes on behind an event, with what the query chooses and nothing else.
func TestWatchAfter(t *testing.T) {
	live(t, func(t *testing.T, s *Store) {
		other := wanted(7)
		other.Labels = map[string]string{"line": "2"}
		nodes := map[string]roster.Node{"other": other}
		for i := range 8 {
			n := wanted(7)
			n.Labels = map[string]string{"line": "1"}
			nodes[fmt.Sprint("gw-", i)] = n
		}
		s.Want(true, nodes, nil)
		// events returns those that a watch tells, and its start
		events := func(q Query) (got []string, start string) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			for u := range s.Watch(ctx, q) {
				switch u.Kind {
				case "start":
					start = u.ID
				case "event":
					if u.ID != u.Event.ID {
						t.Errorf("%s is told as %s", u.Event.ID, u.ID)
					}
					got = append(got, u.Event.Message)
				case "summary": // the last thing of what is there at first
					stop()
				}
			}
			return got, start
		}
		if got, start := events(Query{}); len(got) > 0 || start != "0" {
			t.Errorf("%v, %q", got, start)
		}
		for i := range 1200 {
			s.Note(fmt.Sprint("gw-", i%8), wire.Event{Reason: "Tick", Message: fmt.Sprint(i)})
			if i%10 == 0 {
				s.Note("other", wire.Event{Reason: "Tick", Message: "of another"})
			}
		}
		for _, initial := range []bool{false, true} {
			got, start := events(Query{Labels: "line=1", After: "0", Initial: initial})
			if len(got) != watchAfter || got[0] != "200" || got[watchAfter-1] != "1199" || slices.Contains(got, "of another") || start != "0" {
				t.Errorf("%d events from %v on, start %q", len(got), got[:min(1, len(got))], start)
			}
		}
		_, last := events(Query{})
		s.Note("gw-0", wire.Event{Reason: "Tick", Message: "in between"})
		s.Note("other", wire.Event{Reason: "Tick", Message: "of another"})
		if got, start := events(Query{Labels: "line=1", After: last}); len(got) != 1 || got[0] != "in between" || start != last {
			t.Errorf("%v, start %q, was %q", got, start, last)
		}
		for _, after := range []string{"", "x", "9999999999999999999"} {
			if got, _ := events(Query{After: after}); len(got) > 0 {
				t.Errorf("after %q: %v", after, got)
			}
		}
	})
}
