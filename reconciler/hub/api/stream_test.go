package api

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"selvedge/reconciler/access"
	"selvedge/reconciler/hub/ops/opstest"
	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

// open sends a request and leaves its answer open.
func (w *world) open(t testing.TB, c *http.Client, r *http.Request) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 60*time.Second)
	t.Cleanup(cancel)
	res, err := c.Do(r.WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res
}

// http1 speaks that version only.
func (w *world) http1() *http.Transport {
	h1 := w.http.Client().Transport.(*http.Transport).Clone()
	h1.ForceAttemptHTTP2, h1.TLSClientConfig.NextProtos, h1.TLSNextProto = false, []string{"http/1.1"}, map[string]func(string, *tls.Conn) http.RoundTripper{}
	return h1
}

func ended(t testing.TB, n *opstest.Node) {
	t.Helper()
	select {
	case <-n.Ended:
	case <-time.After(20 * time.Second):
		t.Error("the stream goes on at the node")
	}
}

func TestLogs(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	node := w.Join(t, "mu-1")
	a := w.get(t, "viewer", "/nodes/mu-1/logs?app=web&tail=-1&since=10m&timestamps=true")
	if string(a.body) != "line 1\nline 2\n" || a.Header.Get("Content-Type") != "text/plain; charset=utf-8" || a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%q %v", a.body, a.Header)
	}
	ended(t, node)
	asked := node.Requests()[0]
	for _, want := range []string{`"tail":-1`, `"timestamps":true`, `"agoMs":600000`, `"by":"user:viewer"`, `"app":"web"`} {
		if !strings.Contains(asked, want) {
			t.Errorf("%s lacks %s", asked, want)
		}
	}
	if strings.Contains(asked, `"since"`) {
		t.Errorf("%s: the hub's clock says nothing of the node's", asked)
	}
	w.get(t, "viewer", "/nodes/mu-1/logs?app=web&since=2027-01-31T08:00:00Z")
	ended(t, node)
	if asked := node.Requests()[1]; !strings.Contains(asked, `"since":"2027-01-31T08:00:00Z"`) || strings.Contains(asked, "agoMs") {
		t.Errorf("%s", asked)
	}
	// who leaves ends it at the node
	ctx, cancel := context.WithCancel(t.Context())
	res := w.open(t, w.http.Client(), w.request(t, "viewer", "GET", "/nodes/mu-1/logs?app=web&follow=true", "").WithContext(ctx))
	if _, err := io.ReadFull(res.Body, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	cancel()
	ended(t, node)

	// a right taken away breaks it off; the next try says why
	res = w.open(t, w.http.Client(), w.request(t, "viewer", "GET", "/nodes/mu-1/logs?app=web&follow=true", ""))
	w.ChangeFleet(t, func(f *roster.Fleet) { f.Bindings[0].Scope = "folders/berlin" })
	if _, err := io.Copy(io.Discard, res.Body); err == nil {
		t.Error("the log seems to be whole")
	}
	ended(t, node)
	if a := w.get(t, "viewer", "/nodes/mu-1/logs?app=web"); a.StatusCode != 404 {
		t.Error(a.StatusCode)
	}

	// what the node says at the end comes in the trailer
	a = w.get(t, "root", "/nodes/mu-1/logs?app=web&previous=true")
	var p hubapi.Problem
	if err := json.Unmarshal([]byte(a.Trailer.Get(hubapi.TrailerError)), &p); err != nil || string(a.body) != "line 1\n" || !strings.Contains(p.Detail, "the file is damaged") {
		t.Errorf("%q, trailer %v", a.body, a.Trailer)
	}
	ended(t, node)
	node.Refuse.Store(&wire.Error{Code: wire.CodeBusy, Message: "too many streams"})
	if a := w.get(t, "root", "/nodes/mu-1/logs?agent=true"); a.StatusCode != 429 || !strings.Contains(string(a.body), "too many streams") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	node.Close()
	w.Status.Presence("mu-1", false)
	if a := w.get(t, "root", "/nodes/mu-1/logs?agent=true"); a.StatusCode != 503 && a.StatusCode != 504 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// deadlines notes which deadline there is.
type deadlines struct {
	*httptest.ResponseRecorder
	now time.Time
}

func (d *deadlines) SetWriteDeadline(t time.Time) error { d.now = t; return nil }

// A stream that has nothing to tell has no deadline: that would end it.
func TestQuietStream(t *testing.T) {
	d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	out := writer{w: d, control: http.NewResponseController(d)}
	for range 2 {
		if err := out.write([]byte("x")); err != nil || d.now.IsZero() {
			t.Errorf("a write has no bound: %v", err)
		}
		if err := out.flush(); err != nil || !d.now.IsZero() {
			t.Errorf("the deadline stays: %v", err)
		}
	}
}

// TestSlowHTTPReader follows an endless log and reads nothing, over both versions of HTTP: what the
// node sends stays bounded, and so does the hub's memory.
func TestSlowHTTPReader(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	node := w.Join(t, "mu-1")
	for name, c := range map[string]*http.Client{"HTTP/1.1": {Transport: w.http1()}, "HTTP/2": w.http.Client()} {
		before := node.Sent.Load()
		var heap runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&heap)
		start := heap.HeapAlloc
		var all []*http.Response
		for range 5 {
			res := w.open(t, c, w.request(t, "viewer", "GET", "/nodes/mu-1/logs?app=web&follow=true", ""))
			if want := strings.TrimPrefix(name, "HTTP/"); !strings.HasPrefix(strings.TrimPrefix(res.Proto, "HTTP/"), want) {
				t.Errorf("%s, want %s", res.Proto, name)
			}
			all = append(all, res)
		}
		// it stands still when no frame comes for a while; how long that takes proves nothing
		for last := int64(-1); last != node.Sent.Load(); time.Sleep(500 * time.Millisecond) {
			last = node.Sent.Load()
		}
		sent := (node.Sent.Load() - before) * wire.MaxFrame
		runtime.GC()
		runtime.ReadMemStats(&heap)
		if grown := int64(heap.HeapAlloc) - int64(start); sent > 5*(64<<20) || grown > 5*(16<<20) {
			t.Errorf("%s: %d MiB sent and %d MiB of memory for five who read nothing", name, sent>>20, grown>>20)
		} else {
			t.Logf("%s: five who read nothing: %d KiB sent each, %d KiB of memory each (client and node included)", name, sent>>10/5, grown>>10/5)
		}
		for _, res := range all {
			res.Body.Close()
		}
		for range all {
			ended(t, node)
		}
	}
}

// event is a server-sent event.
type event struct{ id, kind, data string }

func readEvent(t testing.TB, r *bufio.Reader) (e event, err error) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return e, err
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "id":
			e.id = value
		case "event":
			e.kind = value
		case "data":
			e.data = value
		case "":
			if e.kind != "" {
				return e, nil
			}
		}
	}
}

func TestWatch(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	w.Join(t, "mu-1")
	watch := func(who, query, last string) *bufio.Reader {
		t.Helper()
		r := w.request(t, who, "GET", "/watch"+query, "")
		if last != "" {
			r.Header.Set("Last-Event-ID", last)
		}
		res := w.open(t, w.http.Client(), r)
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("%d %v", res.StatusCode, res.Header)
		}
		return bufio.NewReader(res.Body)
	}
	in := watch("viewer", "", "")
	schema := w.doc.Components.Schemas["Update"].Value
	seen := map[string]bool{}
	for len(seen) < 3 {
		e, err := readEvent(t, in)
		if err != nil {
			t.Fatal(err)
		}
		var u hubapi.Update
		var v any
		if err := errors.Join(json.Unmarshal([]byte(e.data), &u), json.Unmarshal([]byte(e.data), &v)); err != nil {
			t.Fatal(err)
		}
		if err := schema.VisitJSON(v); err != nil {
			t.Error(err)
		}
		if e.kind == "node" {
			seen[u.Node.Name] = true
		}
	}
	// an event that came while nobody watched
	w.Status.Note("mu-1", wire.Event{Severity: "info", Reason: "Seen", Message: "first"})
	var first event
	for first.kind != "event" || !strings.Contains(first.data, "first") {
		var err error
		if first, err = readEvent(t, in); err != nil {
			t.Fatal(err)
		}
	}
	if first.id == "" {
		t.Error("an event has no id")
	}
	w.Status.Note("mu-1", wire.Event{Severity: "info", Reason: "Seen", Message: "second"})
	w.Status.Note("be-1", wire.Event{Severity: "info", Reason: "Seen", Message: "of elsewhere"})
	again := watch("viewer", "?initial=false", first.id)
	if e, err := readEvent(t, again); err != nil || e.kind != "event" || !strings.Contains(e.data, "second") {
		t.Errorf("%+v, %v", e, err)
	}
	// one that saw no event yet knows from its start where to go on, and filters hold for the past
	fresh := watch("root", "?labels=line%3D1&initial=false", "")
	start := ""
	for start == "" {
		line, err := fresh.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			start = strings.TrimSpace(id)
		}
	}
	w.Status.Note("be-1", wire.Event{Severity: "info", Reason: "Seen", Message: "of elsewhere"})
	w.Status.Note("mu-1", wire.Event{Severity: "info", Reason: "Seen", Message: "third"})
	if e, err := readEvent(t, watch("root", "?labels=line%3D1&initial=false", start)); err != nil || e.kind != "event" || !strings.Contains(e.data, "third") {
		t.Errorf("%+v, %v", e, err)
	}
	odd := watch("viewer", "?node=mu-1", "no such id")
	if _, err := readEvent(t, odd); err != nil {
		t.Error("an unknown Last-Event-ID:", err)
	}
	// the right goes away
	w.ChangeFleet(t, func(f *roster.Fleet) { f.Bindings[0].Role = access.Editor })
	for {
		e, err := readEvent(t, in)
		if err != nil {
			t.Fatal("no end is told:", err)
		}
		if e.kind == "end" {
			if !strings.Contains(e.data, "changed in Git") {
				t.Errorf("%+v", e)
			}
			break
		}
	}
	if a := w.get(t, "viewer", "/watch?labels=%3D"); a.StatusCode != 400 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
}

// dial opens an exec WebSocket.
func (w *world) dial(t testing.TB, who, query string, header http.Header) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	if header == nil {
		header = http.Header{}
	}
	if who != "" {
		header.Set("Authorization", "Bearer "+opstest.Token(who))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, res, err := websocket.Dial(ctx, w.http.URL+Base+"/nodes/mu-1/exec?"+query, &websocket.DialOptions{HTTPClient: w.http.Client(), HTTPHeader: header})
	if c != nil {
		c.SetReadLimit(1 << 20)
		t.Cleanup(func() { c.CloseNow() })
	}
	return c, res, err
}

// read collects what a session gives until its last message.
func read(t testing.TB, c *websocket.Conn) (out string, last hubapi.ExecMessage) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		kind, b, err := c.Read(ctx)
		if err != nil {
			t.Fatalf("%v after %q", err, out)
		}
		if kind == websocket.MessageText {
			if err := json.Unmarshal(b, &last); err != nil {
				t.Fatal(err)
			}
			return out, last
		}
		out += string('0'+rune(b[0])) + string(b[1:]) + "|"
	}
}

func TestExec(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	node := w.Join(t, "mu-1")
	ctx := t.Context()
	c, _, err := w.dial(t, "editor", "app=web&command=id&command=-u", nil)
	if err != nil {
		t.Fatal(err)
	}
	if out, last := read(t, c); out != "1out|2err|" || last.ExitCode == nil || *last.ExitCode != 3 {
		t.Errorf("%q %+v", out, last)
	}
	if _, _, err := c.Read(ctx); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Error(err)
	}
	ended(t, node)
	if asked := node.Requests()[0]; !strings.Contains(asked, `"command":["id","-u"]`) {
		t.Error(asked)
	}

	if c, _, err = w.dial(t, "editor", "app=web&command=cat&stdin=true&tty=true&rows=5&columns=7", nil); err != nil {
		t.Fatal(err)
	}
	send := func(kind websocket.MessageType, b string) {
		if err := c.Write(ctx, kind, []byte(b)); err != nil {
			t.Fatal(err)
		}
	}
	send(websocket.MessageText, `{"rows":10,"columns":20}`)
	send(websocket.MessageBinary, "\x00hello")
	send(websocket.MessageText, `{"eof":true}`)
	if out, last := read(t, c); out != "2resized|1hello|" || last.ExitCode == nil || *last.ExitCode != 0 {
		t.Errorf("%q %+v", out, last)
	}
	ended(t, node)

	// messages that are none
	for _, b := range []string{"\x01to stdout", "", "{", strings.Repeat("x", maxMessage+1)} {
		if c, _, err = w.dial(t, "editor", "app=web&command=cat&stdin=true", nil); err != nil {
			t.Fatal(err)
		}
		kind := websocket.MessageBinary
		if b == "{" {
			kind = websocket.MessageText
		}
		send(kind, b)
		for err == nil {
			_, _, err = c.Read(ctx)
		}
		if s := websocket.CloseStatus(err); s != websocket.StatusUnsupportedData && s != websocket.StatusMessageTooBig {
			t.Errorf("%.20q: %v", b, err)
		}
		ended(t, node)
	}

	// who leaves without a word ends the command
	if c, _, err = w.dial(t, "editor", "app=web&command=flood", nil); err != nil {
		t.Fatal(err)
	}
	c.CloseNow()
	ended(t, node)

	// a right taken away
	if c, _, err = w.dial(t, "editor", "app=web&command=cat&stdin=true", nil); err != nil {
		t.Fatal(err)
	}
	w.ChangeFleet(t, func(f *roster.Fleet) { f.Bindings[1].Role = access.Viewer })
	if _, last := read(t, c); last.Error == nil || last.Error.Code != hubapi.ReasonForbidden {
		t.Errorf("%+v", last)
	}
	ended(t, node)
}

// TestExecRefused holds that nothing runs for who may not, or for a page of elsewhere.
func TestExecRefused(t *testing.T) {
	w := newWorld(t, opstest.Config{})
	node := w.Join(t, "mu-1")
	own, err := url.Parse(w.http.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		who    string
		header http.Header
		want   int
	}{
		{"", nil, 401}, {"expired", nil, 401}, {"nobody", nil, 403}, {"viewer", nil, 403}, {"berlin", nil, 404},
		{"root", http.Header{"Origin": {"https://evil.example"}}, 403},
		{"root", http.Header{"Origin": {"null"}}, 403},
		{"root", http.Header{"Origin": {"https://" + own.Host + ".evil.example"}}, 403},
		{"", http.Header{"Cookie": {"token=" + opstest.Token("root")}}, 401},
	} {
		_, res, err := w.dial(t, c.who, "app=web&command=id", c.header)
		if err == nil || res == nil || res.StatusCode != c.want {
			t.Errorf("%q %v: %v, %v", c.who, c.header, res, err)
		}
	}
	if asked := node.Requests(); len(asked) > 0 {
		t.Fatalf("the node was asked: %q", asked)
	}
	c, _, err := w.dial(t, "root", "app=web&command=id", http.Header{"Origin": {"https://" + own.Host}})
	if err != nil {
		t.Fatal("the hub's own page:", err)
	}
	read(t, c)
}

// BenchmarkLogs shows what a log costs from the node's connection to an HTTPS client.
func BenchmarkLogs(b *testing.B) {
	w := newWorld(b, opstest.Config{})
	w.Join(b, "mu-1")
	for name, c := range map[string]*http.Client{"http1": {Transport: w.http1()}, "http2": w.http.Client()} {
		b.Run(name, func(b *testing.B) {
			res := w.open(b, c, w.request(b, "viewer", "GET", "/nodes/mu-1/logs?app=web&follow=true", ""))
			defer res.Body.Close()
			p := make([]byte, wire.MaxFrame)
			b.SetBytes(wire.MaxFrame)
			for b.Loop() {
				if _, err := io.ReadFull(res.Body, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
