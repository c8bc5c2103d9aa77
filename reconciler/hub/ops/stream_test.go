package ops_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"selvedge/reconciler/access"
	"selvedge/reconciler/hub/ops"
	"selvedge/reconciler/hub/ops/opstest"
	"selvedge/schema/hubapi"
	"selvedge/schema/nodestate"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// drain reads a stream to its end.
func drain(t testing.TB, s *ops.Stream) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var b strings.Builder
	for {
		ch, data, err := s.Next(ctx)
		if err != nil {
			return b.String(), err
		}
		if len(data) < 1000 {
			fmt.Fprintf(&b, "%d%s|", ch, data)
		}
	}
}

func ended(t testing.TB, n *opstest.Node) {
	t.Helper()
	select {
	case <-n.Ended:
	case <-time.After(20 * time.Second):
		t.Error("the stream goes on at the node")
	}
}

func TestStreams(t *testing.T) {
	w := opstest.New(t, opstest.Config{})
	node := w.Join(t, "mu-1")
	ctx, c := t.Context(), w.Caller(t, "editor")
	s, err := w.Logs(ctx, c, "mu-1", ops.LogOptions{App: "web", Tail: 5})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := drain(t, s); got != "1line 1\n|2line 2\n|" || err != io.EOF {
		t.Errorf("%q, %v", got, err)
	}
	s.Close()
	ended(t, node)

	s, err = w.Exec(ctx, c, "mu-1", ops.ExecOptions{App: "web", Command: []string{"cat"}, Stdin: true, TTY: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Resize(10, 20), s.Input([]byte("hello")), s.CloseInput()); err != nil {
		t.Fatal(err)
	}
	if got, err := drain(t, s); got != "2resized|1hello|" || err != io.EOF || s.ExitCode() != 0 {
		t.Errorf("%q, %v", got, err)
	}
	s.Close()
	ended(t, node)

	s, err = w.Exec(ctx, c, "mu-1", ops.ExecOptions{App: "web", Command: []string{"fail"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := drain(t, s); problemOf(t, err).Status != http.StatusBadGateway || !strings.Contains(err.Error(), "it broke") {
		t.Error(err)
	}
	s.Close()

	node.Refuse.Store(&wire.Error{Code: wire.CodeDenied, Message: "my state does not grant it" + strings.Repeat("!", 1<<20-200)})
	_, err = w.Exec(ctx, c, "mu-1", ops.ExecOptions{App: "web", Command: []string{"id"}})
	if p := problemOf(t, err); p.Reason != hubapi.ReasonDenied || !strings.Contains(p.Detail, "my state does not grant it") || len(p.Detail) > 2*wire.MaxText {
		t.Errorf("%.200s", err)
	}
	if err := w.Restart(ctx, c, "mu-1", hubapi.RestartRequest{App: "web"}); problemOf(t, err).Reason != hubapi.ReasonDenied {
		t.Errorf("%.200s", err)
	}
}

// TestSlowReader holds that a node sends no more than the window to who does not read.
func TestSlowReader(t *testing.T) {
	w := opstest.New(t, opstest.Config{})
	node := w.Join(t, "mu-1")
	s, err := w.Logs(t.Context(), w.Caller(t, "viewer"), "mu-1", ops.LogOptions{App: "web", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	// a second stream of the same node is not held up by the first
	fast, err := w.Logs(t.Context(), w.Caller(t, "viewer"), "mu-1", ops.LogOptions{App: "web", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if _, _, err := fast.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	fast.Close()
	ended(t, node)
	if n := node.Sent.Load(); n < 200 || n > 200+3*wire.Window {
		t.Errorf("%d frames were sent of which 200 were read", n)
	}
	s.Close()
	ended(t, node)
}

// TestRightsEnd takes a right away while a stream runs, in every way that Git can.
func TestRightsEnd(t *testing.T) {
	w := opstest.New(t, opstest.Config{})
	node := w.Join(t, "mu-1")
	mu1, _ := w.Follow.View().Node("mu-1")
	openExec := func(who string) *ops.Stream {
		t.Helper()
		s, err := w.Exec(t.Context(), w.Caller(t, who), "mu-1", ops.ExecOptions{App: "web", Command: []string{"cat"}, Stdin: true})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	reset := func() {
		w.ChangeFleet(t, func(f *roster.Fleet) { *f = opstest.Fleet() })
		w.Change(t, roster.Event{Nodes: map[string]roster.Node{"mu-1": mu1}})
	}
	for _, c := range []struct {
		what   string
		reason string
		change func()
	}{
		{"the token is revoked", hubapi.ReasonUnauthorized, func() {
			w.ChangeFleet(t, func(f *roster.Fleet) { delete(f.Identities["editor"].Tokens, "laptop") })
		}},
		{"the token is narrowed", hubapi.ReasonForbidden, func() {
			w.ChangeFleet(t, func(f *roster.Fleet) {
				tok := f.Identities["editor"].Tokens["laptop"]
				tok.Role = access.Viewer
				f.Identities["editor"].Tokens["laptop"] = tok
			})
		}},
		{"the role is taken away", hubapi.ReasonForbidden, func() {
			w.ChangeFleet(t, func(f *roster.Fleet) { f.Bindings[1].Role = access.Viewer })
		}},
		{"the binding moves", hubapi.ReasonForbidden, func() {
			w.ChangeFleet(t, func(f *roster.Fleet) { f.Bindings[1].Scope = "folders/berlin" })
		}},
		{"the node grants it no more", hubapi.ReasonDenied, func() {
			n := mu1
			n.Remote = nodestate.Remote{Logs: true}
			w.Change(t, roster.Event{Nodes: map[string]roster.Node{"mu-1": n}})
		}},
		{"the node moves away", hubapi.ReasonNotFound, func() {
			n := mu1
			n.Workspace = "folders/berlin/line-2"
			w.Change(t, roster.Event{Nodes: map[string]roster.Node{"mu-1": n}})
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			mine, other := openExec("editor"), openExec("root")
			c.change()
			_, err := drain(t, mine)
			p := problemOf(t, err)
			if p.Reason != c.reason && !(c.what == "the binding moves" && p.Reason == hubapi.ReasonNotFound) {
				t.Errorf("%+v", p)
			}
			if err := mine.Input([]byte("x")); err == nil {
				t.Error("input is still taken")
			}
			mine.Close()
			ended(t, node)
			if c.reason != hubapi.ReasonDenied { // that ends it for root as well
				if err := errors.Join(other.Input([]byte("x")), other.CloseInput()); err != nil {
					t.Error("another one's stream ended:", err)
				}
				if got, err := drain(t, other); got != "1x|" || err != io.EOF {
					t.Errorf("another one's stream: %q, %v", got, err)
				}
			}
			other.Close()
			ended(t, node)
			reset()
		})
	}
}

func TestWatch(t *testing.T) {
	w := opstest.New(t, opstest.Config{})
	node := w.Join(t, "mu-1")
	updates, ended, err := w.Watch(t.Context(), w.Caller(t, "viewer"), ops.Query{Initial: true})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	take := func() (u hubapi.Update, ok bool) {
		select {
		case u, ok = <-updates:
		case <-time.After(20 * time.Second):
			t.Fatal("no update")
		}
		return u, ok
	}
	for len(seen) < 3 {
		u, ok := take()
		if !ok {
			t.Fatal("the watch ended:", ended())
		}
		if u.Node != nil {
			seen[u.Node.Name] = true
		}
	}
	if seen["be-1"] {
		t.Error("a node of elsewhere is told")
	}
	// a change of somebody else's rights ends nothing
	w.ChangeFleet(t, func(f *roster.Fleet) { f.Bindings[1].Role = access.Viewer })
	node.Report(t)
	if _, ok := take(); !ok {
		t.Fatal("the watch ended:", ended())
	}
	w.ChangeFleet(t, func(f *roster.Fleet) {
		f.Bindings = append(f.Bindings, roster.Binding{Scope: "folders/berlin", Role: access.Viewer, Subjects: []string{"user:viewer"}})
	})
	for ok := true; ok; {
		_, ok = take()
	}
	if p := problemOf(t, ended()); !strings.Contains(p.Detail, "changed in Git") {
		t.Error(p)
	}
}

func TestTokenExpires(t *testing.T) {
	w := opstest.New(t, opstest.Config{})
	node := w.Join(t, "mu-1")
	w.ChangeFleet(t, func(f *roster.Fleet) {
		f.Identities["editor"].Tokens["short"] = roster.Token{Hash: access.Hash(opstest.Token("short")), Expires: time.Now().Add(500 * time.Millisecond)}
	})
	s, err := w.Logs(t.Context(), w.Caller(t, "short"), "mu-1", ops.LogOptions{App: "web", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := drain(t, s); problemOf(t, err).Reason != hubapi.ReasonUnauthorized || !strings.Contains(err.Error(), "expired") {
		t.Error(err)
	}
	ended(t, node)
}

func TestBounds(t *testing.T) {
	w := opstest.New(t, opstest.Config{Ops: func(c *ops.Config) { c.CallerStreams, c.Streams = 2, 3 }})
	w.Join(t, "mu-1")
	open := func(who string) (*ops.Stream, error) {
		return w.Logs(t.Context(), w.Caller(t, who), "mu-1", ops.LogOptions{Agent: true, Follow: true})
	}
	var all []*ops.Stream
	for _, who := range []string{"viewer", "viewer", "editor"} {
		s, err := open(who)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	for _, who := range []string{"viewer", "root"} {
		if _, err := open(who); problemOf(t, err).Status != http.StatusTooManyRequests {
			t.Errorf("%s: %v", who, err)
		}
	}
	all[0].Close()
	all[0].Close() // gives its place back once
	ctx, cancel := context.WithCancel(t.Context())
	if _, _, err := w.Watch(ctx, w.Caller(t, "viewer"), ops.Query{}); err != nil {
		t.Error("a place was not given back:", err)
	}
	if _, err := open("root"); err == nil {
		t.Error("a place was given back twice, or a watch takes none")
	}
	cancel()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if s, err := open("root"); err == nil {
			s.Close()
			break
		} else if time.Now().After(end) {
			t.Fatal("the watch keeps its place:", err)
		}
	}
	for _, s := range all {
		s.Close()
	}
}

// BenchmarkLogs shows what a log costs from the node's connection to the reader.
func BenchmarkLogs(b *testing.B) {
	w := opstest.New(b, opstest.Config{})
	w.Join(b, "mu-1")
	s, err := w.Logs(b.Context(), w.Caller(b, "viewer"), "mu-1", ops.LogOptions{App: "web", Follow: true})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.SetBytes(wire.MaxFrame)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.Next(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// TestCallerLeaves ends a question before the node has answered: the error is one for people.
func TestCallerLeaves(t *testing.T) {
	w := opstest.New(t, opstest.Config{})
	n := w.Join(t, "mu-1")
	n.Silent.Store(true)
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		defer leave()
		for end := time.Now().Add(20 * time.Second); len(n.Requests()) == 0; time.Sleep(time.Millisecond) { // it tells nobody
			if time.Now().After(end) {
				t.Error("the node is not asked")
				return
			}
		}
	}()
	_, err := w.Logs(ctx, w.Caller(t, "editor"), "mu-1", ops.LogOptions{App: "web"})
	if p, ok := errors.AsType[*hubapi.Problem](err); !ok || p.Reason != hubapi.ReasonUnavailable || strings.Contains(p.Detail, "context") {
		t.Errorf("%v", err)
	}
}

// TestBusFull opens more streams than the bus holds, which more time will mend.
func TestBusFull(t *testing.T) {
	w := opstest.New(t, opstest.Config{Ops: func(c *ops.Config) { c.CallerStreams = 1000 }})
	w.Join(t, "mu-1")
	for range 1000 {
		s, err := w.Exec(t.Context(), w.Caller(t, "editor"), "mu-1", ops.ExecOptions{App: "web", Command: []string{"cat"}})
		if err == nil {
			t.Cleanup(func() { s.Close() })
			continue
		}
		if p, ok := errors.AsType[*hubapi.Problem](err); !ok || p.Status != http.StatusTooManyRequests || p.Reason != hubapi.ReasonBusy {
			t.Errorf("%v", err)
		}
		return
	}
	t.Error("the bus has no bound")
}
