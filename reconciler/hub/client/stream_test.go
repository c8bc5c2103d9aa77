package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

// logLines are those of a log, with a time each; several share one.
func logLines(n int) []string {
	at := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	var out []string
	for i := range n {
		if i%3 != 0 {
			at = at.Add(700 * time.Millisecond)
		}
		text := fmt.Sprintf("line %d", i)
		if i%7 == 0 {
			text = "same" // as others of the same time
		}
		name := ""
		if i%2 == 0 {
			name = "[web] "
		}
		out = append(out, name+at.Format("2006-01-02T15:04:05.000000000Z07:00")+" "+text+"\n")
	}
	return out
}

// TestFollow cuts a followed log after every few lines, also within one: none is lost, and
// none comes twice.
func TestFollow(t *testing.T) {
	lines := logLines(60)
	for _, timestamps := range []bool{false, true} {
		var calls atomic.Int64
		_, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			n := int(calls.Add(1))
			if n == 3 { // the node is away for a moment
				refuse(w, hubapi.Problem{Status: 503, Reason: hubapi.ReasonOffline})
				return
			}
			since, _ := time.Parse(time.RFC3339Nano, r.URL.Query().Get("since"))
			end := min(len(lines), n*12)
			for _, l := range lines[:end] {
				if at, _, _ := stamp([]byte(l)); !at.Before(since) {
					fmt.Fprint(w, l)
				}
			}
			_ = http.NewResponseController(w).Flush()
			if end < len(lines) {
				fmt.Fprint(w, lines[end][:20]) // a piece, which is told again as a whole
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
		})
		var out bytes.Buffer
		lost := 0
		err := c.Logs(t.Context(), "gw-1", LogOptions{App: "web", Follow: true, Timestamps: timestamps}, &out, func(error) { lost++ })
		if err != nil {
			t.Fatal(err)
		}
		var want strings.Builder
		for _, l := range lines {
			if !timestamps {
				at, before, after := stamp([]byte(l))
				if at.IsZero() {
					t.Fatal(l)
				}
				l = string(before) + string(after)
			}
			want.WriteString(l)
		}
		if out.String() != want.String() || lost < 3 {
			t.Errorf("timestamps %v: lost %d times, got\n%s\nwant\n%s", timestamps, lost, out.String(), want.String())
		}
	}
}

// TestFollowTail cuts a followed log of which only the end was wanted: what was before stays away.
func TestFollowTail(t *testing.T) {
	lines := logLines(20)
	first := true
	_, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if first {
			first = false
			fmt.Fprint(w, strings.Join(lines[10:12], ""))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		since, err := time.Parse(time.RFC3339Nano, r.URL.Query().Get("since"))
		if err != nil || r.URL.Query().Has("tail") {
			t.Errorf("asked again with %s", r.URL.RawQuery)
		}
		for _, l := range lines {
			if at, _, _ := stamp([]byte(l)); !at.Before(since) {
				fmt.Fprint(w, l)
			}
		}
	})
	var out bytes.Buffer
	err := c.Logs(t.Context(), "gw-1", LogOptions{App: "web", Follow: true, Timestamps: true, Tail: 2}, &out, nil)
	if want := strings.Join(lines[10:], ""); err != nil || out.String() != want {
		t.Errorf("%v, got\n%s\nwant\n%s", err, out.String(), want)
	}
}

// TestFollowGap cuts a log of which nothing of the past was wanted before its first line:
// what comes until it is asked for again is not lost.
func TestFollowGap(t *testing.T) {
	first, began := true, time.Now()
	_, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if first {
			first = false
			if q.Get("tail") != "-1" || q.Has("since") {
				t.Errorf("asked first with %s", r.URL.RawQuery)
			}
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		if ago, err := time.ParseDuration(q.Get("since")); err != nil || ago <= 0 || ago > time.Since(began) || q.Has("tail") {
			t.Errorf("asked again with %s", r.URL.RawQuery)
		}
		fmt.Fprint(w, "2026-11-24T01:00:01Z meanwhile\n")
	})
	var out bytes.Buffer
	if err := c.Logs(t.Context(), "gw-1", LogOptions{App: "web", Follow: true, Tail: -1}, &out, nil); err != nil || out.String() != "meanwhile\n" {
		t.Errorf("%q %v", out.String(), err)
	}
}

// TestFollowSinceAgo asks for the same moment again after a log broke off before anything came.
func TestFollowSinceAgo(t *testing.T) {
	var asked []time.Duration
	_, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		ago, err := time.ParseDuration(r.URL.Query().Get("since"))
		if err != nil {
			t.Error(err)
		}
		if asked = append(asked, ago); len(asked) == 1 {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	})
	began := time.Now()
	if err := c.Logs(t.Context(), "gw-1", LogOptions{App: "web", Follow: true, Ago: 10 * time.Minute}, io.Discard, nil); err != nil {
		t.Fatal(err)
	}
	if len(asked) != 2 || asked[1] <= asked[0] || asked[0] < 10*time.Minute || asked[1] > 10*time.Minute+time.Since(began) {
		t.Errorf("asked for %v", asked)
	}
}

// TestFollowEnds tells refusals that pass from those that do not.
func TestFollowEnds(t *testing.T) {
	for _, c := range []struct {
		p     hubapi.Problem
		calls int64
	}{
		{hubapi.Problem{Status: 403, Reason: hubapi.ReasonDenied}, 1},
		{hubapi.Problem{Status: 404, Reason: hubapi.ReasonNotFound}, 1},
		{hubapi.Problem{Status: 401, Reason: hubapi.ReasonUnauthorized}, 1},
		{hubapi.Problem{Status: 503, Reason: hubapi.ReasonOffline}, 1},
	} {
		var calls atomic.Int64
		_, cl := serve(t, func(w http.ResponseWriter, _ *http.Request) { calls.Add(1); refuse(w, c.p) })
		err := cl.Logs(t.Context(), "x", LogOptions{Follow: true}, io.Discard, nil)
		if Reason(err) != c.p.Reason || calls.Load() != c.calls {
			t.Errorf("%s: %d calls, %v", c.p.Reason, calls.Load(), err)
		}
	}
	// a trailer says why a stream ended; a broken one that was not followed is an error
	_, cl := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", hubapi.TrailerError)
		fmt.Fprintln(w, "x")
		if r.URL.Query().Get("tail") == "1" {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		w.Header().Set(hubapi.TrailerError, `{"title":"busy","status":409,"reason":"conflict"}`)
	})
	for _, follow := range []bool{false, true} {
		if err := cl.Logs(t.Context(), "x", LogOptions{Follow: follow}, io.Discard, nil); Reason(err) != hubapi.ReasonConflict {
			t.Errorf("follow %v: %v", follow, err)
		}
	}
	if err := cl.Logs(t.Context(), "x", LogOptions{Tail: 1}, io.Discard, nil); err == nil || !strings.Contains(err.Error(), "broke off") {
		t.Error(err)
	}
	// the reader's own trouble is not the connection's
	full := errors.New("disk full")
	if err := cl.Logs(t.Context(), "x", LogOptions{Follow: true}, failing{full}, nil); !errors.Is(err, full) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// TestLongLine passes on a line without an end in pieces.
func TestLongLine(t *testing.T) {
	const size = 8 << 20
	_, c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "2026-11-24T00:00:00Z ")
		for range size / 1024 {
			_, _ = w.Write(bytes.Repeat([]byte("x"), 1024))
		}
	})
	var n counter
	if err := c.Logs(t.Context(), "x", LogOptions{Follow: true}, &n, nil); err != nil || n != size {
		t.Errorf("%d bytes, %v", n, err)
	}
}

type counter int

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// TestWatch goes on behind the last event, and ends when the hub says so.
func TestWatch(t *testing.T) {
	var calls atomic.Int64
	_, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n := calls.Add(1)
		if last := r.Header.Get("Last-Event-ID"); last != []string{"", "7", "8", "8"}[n] {
			t.Errorf("call %d: last event %q", n, last)
		}
		fmt.Fprintf(w, "retry: 3000\n\n: alive\r\n\r\nid: 8\nevent: event\ndata: {\"event\":\ndata: {\"id\":\"8\"}}\n\n")
		fmt.Fprintf(w, "event: summary\ndata: {\"summary\":{\"nodes\":%d}}\n\nevent: news\ndata: ?\n\n", n)
		if n == 3 {
			fmt.Fprintf(w, "event: end\ndata: {\"reason\":\"forbidden\",\"detail\":\"no more\"}\n\n")
		}
		fmt.Fprint(w, "event: summary\ndata: {\"summary\":{\"nodes\":99}}") // without its end
		_ = http.NewResponseController(w).Flush()
		if n == 1 {
			panic(http.ErrAbortHandler)
		}
	})
	var got []string
	err := c.Watch(t.Context(), WatchOptions{After: "7"}, func(u hubapi.Update) error {
		if u.Event != nil {
			got = append(got, u.Event.ID)
		}
		if u.Summary != nil {
			got = append(got, fmt.Sprint(u.Summary.Nodes))
		}
		return nil
	}, nil)
	if Reason(err) != hubapi.ReasonForbidden || strings.Join(got, " ") != "8 1 8 2 8 3" {
		t.Errorf("%v: %v", got, err)
	}
	stop := errors.New("enough")
	calls.Store(0)
	if err := c.Watch(t.Context(), WatchOptions{After: "7"}, func(hubapi.Update) error { return stop }, nil); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// TestWatchStart goes on behind the start of a watch that broke before anything was told.
func TestWatchStart(t *testing.T) {
	var calls atomic.Int64
	_, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			fmt.Fprint(w, "retry: 3000\n\nid: 41\n\n")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		if last := r.Header.Get("Last-Event-ID"); last != "41" {
			t.Errorf("last event %q", last)
		}
		fmt.Fprintf(w, "event: end\ndata: {\"reason\":\"forbidden\"}\n\n")
	})
	if err := c.Watch(t.Context(), WatchOptions{}, func(hubapi.Update) error { return nil }, nil); Reason(err) != hubapi.ReasonForbidden {
		t.Error(err)
	}
}

// TestExec runs sessions over a real WebSocket.
func TestExec(t *testing.T) {
	_, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("app") == "closed" {
			refuse(w, hubapi.Problem{Status: 403, Reason: hubapi.ReasonDenied, Detail: "not granted"})
			return
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		conn.SetReadLimit(1 + wire.MaxInput) // as a hub's
		ctx := r.Context()
		if q.Get("app") == "gone" {
			return
		}
		for { // what comes is told back
			kind, b, err := conn.Read(ctx)
			if err != nil {
				return
			}
			if kind == websocket.MessageBinary {
				_ = conn.Write(ctx, kind, append([]byte{hubapi.ChannelOut}, b[1:]...))
				continue
			}
			var m hubapi.ExecMessage
			_ = json.Unmarshal(b, &m)
			if m.Rows > 0 {
				_ = conn.Write(ctx, websocket.MessageBinary, fmt.Appendf([]byte{hubapi.ChannelErr}, "%dx%d", m.Rows, m.Columns))
			}
			if m.EOF {
				_ = conn.Write(ctx, websocket.MessageText, []byte(`{"exitCode":7}`))
				return
			}
		}
	})
	big := bytes.Repeat([]byte("0123456789abcdef"), 64<<10) // 1 MiB
	var out, errs bytes.Buffer
	resize := make(chan Size, 1)
	resize <- Size{24, 80}
	code, err := c.Exec(t.Context(), "gw-1", ExecOptions{App: "web", Command: []string{"cat"}, Stdin: true, TTY: true}, Streams{In: &slow{r: bytes.NewReader(big), after: resize}, Out: &out, Err: &errs, Resize: resize})
	if err != nil || code != 7 || !bytes.Equal(out.Bytes(), big) || errs.String() != "24x80" {
		t.Errorf("code %d, %d bytes, %q, %v", code, out.Len(), errs.String(), err)
	}
	if _, err := c.Exec(t.Context(), "gw-1", ExecOptions{App: "closed", Command: []string{"x"}}, Streams{}); Reason(err) != hubapi.ReasonDenied {
		t.Error(err)
	}
	if _, err := c.Exec(t.Context(), "gw-1", ExecOptions{App: "gone", Command: []string{"x"}}, Streams{}); err == nil || !strings.Contains(err.Error(), "before the command did") {
		t.Error(err)
	}
	// nothing is typed and nothing comes: the context ends it
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	defer w.Close()
	go func() { _, _ = w.Write([]byte("x")); cancel() }()
	if _, err := c.Exec(ctx, "gw-1", ExecOptions{App: "web", Command: []string{"cat"}, Stdin: true}, Streams{In: r}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// slow gives nothing before the channel is empty: the terminal's size goes first.
type slow struct {
	r     io.Reader
	after chan Size
}

func (s *slow) Read(p []byte) (int, error) {
	for len(s.after) > 0 {
		time.Sleep(time.Millisecond)
	}
	return s.r.Read(p)
}

func FuzzEvents(f *testing.F) {
	f.Add([]byte("event: node\nid: 1\ndata: {}\ndata\n\n"))
	f.Add([]byte(":\r\n\r\ndata:x\n\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := events(bytes.NewReader(b), func(_, _ string, data []byte) error {
			if len(data) > len(b) {
				t.Errorf("%d bytes of %d", len(data), len(b))
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
}

func FuzzFollow(f *testing.F) {
	f.Add([]byte("[a] 2026-11-24T00:00:00Z x\n"), []byte("2026-11-24T00:00:00Z y\nz"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var out bytes.Buffer
		fo := newFollower(&out, true)
		for _, p := range [][]byte{a, b} {
			fo.replay()
			if err := fo.read(bytes.NewReader(p)); err != nil {
				t.Fatal(err)
			}
		}
		if out.Len() > len(a)+len(b) {
			t.Errorf("%d bytes of %d", out.Len(), len(a)+len(b))
		}
	})
}

func BenchmarkFollow(b *testing.B) {
	line := []byte("2026-11-24T00:00:00.123456789Z " + strings.Repeat("x", 100) + "\n")
	text := bytes.Repeat(line, 10_000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		f := newFollower(io.Discard, false)
		if err := f.read(bytes.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}
