package client_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"selvedge/reconciler/hub/api"
	"selvedge/reconciler/hub/client"
	"selvedge/reconciler/hub/ops/opstest"
	"selvedge/schema/hubapi"
)

// hub is the real API over real services, with nodes that answer as agents do.
type hub struct {
	*opstest.World
	srv *httptest.Server
}

func newHub(t *testing.T) *hub {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts a hub's services")
	}
	h := &hub{World: opstest.New(t, opstest.Config{})}
	a, err := api.New(api.Config{Ops: h.Ops, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h.srv = httptest.NewUnstartedServer(a)
	h.srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	h.srv.EnableHTTP2 = true
	h.srv.StartTLS()
	t.Cleanup(h.srv.Close)
	return h
}

func (h *hub) as(t *testing.T, who string) *client.Client {
	t.Helper()
	sum := sha256.Sum256(h.srv.Certificate().Raw)
	c, err := client.New(client.Config{URL: h.srv.URL, Token: opstest.Token(who), CA: client.DigestPrefix + hex.EncodeToString(sum[:])})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestHub makes every call to the real API: nothing that the client asks is unknown to it.
func TestHub(t *testing.T) {
	h := newHub(t)
	h.Join(t, "mu-1")
	h.Join(t, "be-1")
	ctx, c := t.Context(), h.as(t, "root")
	q := client.Query{Labels: "line in (1,2)", Folder: "folders/munich", Status: []hubapi.Readiness{hubapi.Ready, hubapi.Unknown, hubapi.NotReady, hubapi.Waiting}, Search: "mu", Sort: "-name", App: "web"}
	l, err := c.Nodes(ctx, q)
	var names []string
	for _, n := range l.Items {
		names = append(names, n.Name)
	}
	if err != nil || !slices.Equal(names, []string{"mu-3", "mu-2", "mu-1"}) {
		t.Errorf("nodes %v: %v", names, err)
	}
	for name, call := range map[string]func() error{
		"whoami":    func() error { _, err := c.Whoami(ctx); return err },
		"summary":   func() error { _, err := c.Summary(ctx); return err },
		"node":      func() error { _, err := c.Node(ctx, "mu-1"); return err },
		"metrics":   func() error { _, err := c.Metrics(ctx, "mu-1", time.Now().Add(-time.Hour)); return err },
		"apps":      func() error { _, err := c.Apps(ctx, client.Query{Folder: "folders/munich"}); return err },
		"instances": func() error { _, err := c.Instances(ctx, client.Query{App: "web"}); return err },
		"events": func() error {
			l, err := c.Events(ctx, client.EventQuery{Folder: "folders/munich", Reason: "Started", Severity: "info", Search: "HAS", Since: time.Now().Add(-time.Hour), Limit: 10})
			if err == nil && (len(l.Items) != 1 || l.Items[0].Node != "mu-1") {
				t.Errorf("events: %+v", l)
			}
			return err
		},
		"nodeEvents": func() error {
			l, err := c.Events(ctx, client.EventQuery{Node: "mu-1", App: "none", Workspace: "folders/munich/line-1", Limit: 10})
			if err == nil && len(l.Items) != 0 {
				t.Errorf("nodeEvents: %+v", l)
			}
			return err
		},
		"changes": func() error { _, err := c.Changes(ctx, 10); return err },
		"guides":  func() error { _, err := c.Guides(ctx); return err },
		"pending": func() error { _, err := c.Pending(ctx); return err },
		"restart": func() error { return c.Restart(ctx, "mu-1", hubapi.RestartRequest{App: "web"}) },
		"openapi": func() error { _, err := c.OpenAPI(ctx); return err },
		"joinTokens": func() error {
			j, err := c.JoinTokens(ctx, hubapi.JoinTokenRequest{Guide: "folders/munich/line-1/box", Count: 2})
			if err == nil && len(j.Tokens) != 2 {
				t.Errorf("%+v", j)
			}
			return err
		},
		"audit": func() error {
			l, err := c.Audit(ctx, client.AuditQuery{Subject: "nobody", Operation: "exec", Node: "mu-1", Limit: 10})
			if err == nil && len(l.Items) != 0 {
				t.Errorf("audit: %+v", l)
			}
			return err
		},
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, x := range map[string]struct {
		err    error
		reason string
	}{
		"no node":       {second(c.Node(ctx, "nobody")), hubapi.ReasonNotFound},
		"no change":     {second(c.Change(ctx, "abcdef0")), hubapi.ReasonNotFound},
		"no code":       {c.Reject(ctx, "AAAA-BBBB"), hubapi.ReasonNotFound},
		"bad selector":  {second(c.Nodes(ctx, client.Query{Labels: "(("})), hubapi.ReasonInvalid},
		"bad sort":      {second(c.Nodes(ctx, client.Query{Sort: "colour"})), hubapi.ReasonInvalid},
		"not connected": {c.Restart(ctx, "mu-3", hubapi.RestartRequest{App: "web"}), hubapi.ReasonOffline},
		"expired":       {second(h.as(t, "expired").Whoami(ctx)), hubapi.ReasonUnauthorized},
		"a stranger":    {second(h.as(t, "stranger").Whoami(ctx)), hubapi.ReasonUnauthorized},
		"a viewer":      {h.as(t, "viewer").Restart(ctx, "mu-1", hubapi.RestartRequest{App: "web"}), hubapi.ReasonForbidden},
		"not granted":   {h.as(t, "root").Logs(ctx, "mu-2", client.LogOptions{App: "web", Follow: true}, io.Discard, nil), hubapi.ReasonDenied},
	} {
		if client.Reason(x.err) != x.reason {
			t.Errorf("%s: %v (%s), want %s", name, x.err, client.Reason(x.err), x.reason)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestHubStreams reads logs, runs commands and watches, through the hub.
func TestHubStreams(t *testing.T) {
	h := newHub(t)
	n := h.Join(t, "mu-1")
	ctx, c := t.Context(), h.as(t, "editor")
	var out, errs bytes.Buffer
	if err := c.Logs(ctx, "mu-1", client.LogOptions{App: "web", Tail: 2}, &out, nil); err != nil || out.String() != "line 1\nline 2\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	in := strings.Repeat("0123456789", 100_000)
	out.Reset()
	code, err := c.Exec(ctx, "mu-1", client.ExecOptions{App: "web", Command: []string{"cat"}, Stdin: true}, client.Streams{In: strings.NewReader(in), Out: &out, Err: &errs})
	if err != nil || code != 0 || out.String() != in {
		t.Errorf("cat: %d, %d of %d bytes, %v", code, out.Len(), len(in), err)
	}
	out.Reset()
	if code, err = c.Exec(ctx, "mu-1", client.ExecOptions{App: "web", Command: []string{"x", "y z"}}, client.Streams{Out: &out, Err: &errs}); err != nil || code != 3 || out.String() != "out" || errs.String() != "err" {
		t.Errorf("%d, %q, %q, %v", code, out.String(), errs.String(), err)
	}
	if _, err = c.Exec(ctx, "mu-1", client.ExecOptions{App: "web", Command: []string{"fail"}}, client.Streams{}); err == nil || !strings.Contains(err.Error(), "it broke") {
		t.Error(err)
	}
	if _, err = h.as(t, "viewer").Exec(ctx, "mu-1", client.ExecOptions{App: "web", Command: []string{"x"}}, client.Streams{}); client.Reason(err) != hubapi.ReasonForbidden {
		t.Error(err)
	}
	enough := errors.New("enough")
	watched, cancel := context.WithCancel(ctx)
	defer cancel()
	seen := map[string]bool{}
	err = c.Watch(watched, client.WatchOptions{Initial: true}, func(u hubapi.Update) error {
		if u.Summary != nil {
			seen["summary"] = true
		}
		if u.Node != nil {
			seen[u.Node.Name] = true
		}
		if seen["summary"] && seen["mu-1"] && seen["mu-2"] && seen["mu-3"] {
			return enough
		}
		return nil
	}, nil)
	if !errors.Is(err, enough) || seen["be-1"] {
		t.Errorf("%v: %v", seen, err)
	}
	// a log that is never read to its end stops at the node when the reader leaves
	w := &full{left: 1 << 20}
	if err = c.Logs(ctx, "mu-1", client.LogOptions{App: "web", Follow: true}, w, nil); !errors.Is(err, io.ErrShortWrite) {
		t.Error(err)
	}
	for range 4 { // one a stream, and of the last one only after it was cancelled
		<-n.Ended
	}
}

// full takes so much, and no more.
type full struct{ left int }

func (f *full) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

// TestExecWaits runs commands of which one side waits for the other for longer than a sign of
// life does. The five seconds of the WebSocket library, for a frame to be written and for a
// connection to be closed, are no bound either.
func TestExecWaits(t *testing.T) {
	h := newHub(t)
	n := h.Join(t, "mu-1")
	const wait = 6 * time.Second
	as := func(silence time.Duration) *client.Client {
		c := h.as(t, "editor")
		c.Beat(10*time.Millisecond, silence)
		return c
	}
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		const size = 6 << 20 // more than fits into what is between
		time.AfterFunc(wait, func() { close(n.Take) })
		var out bytes.Buffer
		code, err := as(time.Minute).Exec(t.Context(), "mu-1", execOf("stuck"), streams(io.LimitReader(zeros{}, size), &out))
		if err != nil || code != 0 || out.String() != fmt.Sprint(size) {
			t.Errorf("a command that takes no input at first: %d, it took %s of %d: %v", code, &out, size, err)
		}
	})
	all.Go(func() {
		out := &late{wait: wait, left: 8 << 20}
		if _, err := as(wait/3).Exec(t.Context(), "mu-1", execOf("flood"), streams(nil, out)); !errors.Is(err, io.ErrShortWrite) {
			t.Error("output that nobody takes at first:", err)
		}
	})
	all.Go(func() { // of a command that has ended by then
		const size = 1 << 20
		out := &late{wait: wait, left: size}
		if code, err := as(time.Minute).Exec(t.Context(), "mu-1", execOf("cat"), streams(io.LimitReader(zeros{}, size), out)); err != nil || code != 0 || out.left != 0 {
			t.Errorf("output that is taken late: %d, %d bytes are missing, %v", code, out.left, err)
		}
	})
}

func execOf(command string) client.ExecOptions {
	return client.ExecOptions{App: "web", Command: []string{command}, Stdin: true}
}

func streams(in io.Reader, out io.Writer) client.Streams { return client.Streams{In: in, Out: out} }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// late takes its time for the first bytes.
type late struct {
	wait time.Duration
	left int
}

func (l *late) Write(p []byte) (int, error) {
	time.Sleep(l.wait)
	l.wait = 0
	if l.left -= len(p); l.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}
