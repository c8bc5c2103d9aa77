package fleet

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"selvedge/edge/uplink"
	"selvedge/reconciler/hub/client"
	"selvedge/schema/nodestate"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
	"selvedge/test/swarm"
)

var everything = nodestate.Remote{Logs: true, Restart: true, Exec: true}

// held is a writer that takes nothing until it is let go, and then counts.
type held struct {
	go1  chan struct{}
	size atomic.Int64
}

func (h *held) Write(p []byte) (int, error) {
	<-h.go1
	h.size.Add(int64(len(p)))
	return len(p), nil
}

// TestSlowReaders reads nothing of a command's output, and of a log, for a while: the node is
// held back, not the hub's memory filled; afterwards all of it comes.
func TestSlowReaders(t *testing.T) {
	size := int64(64 << 20)
	if testing.Short() || patience > 1 {
		size = 16 << 20
	}
	b := newBed(t, 1)
	var poured atomic.Int64
	fill := func(w io.Writer) error {
		chunk := []byte(strings.Repeat("a line of it\n..", 4096))
		for n := int64(0); n < size; n += int64(len(chunk)) {
			if _, err := w.Write(chunk[:min(int64(len(chunk)), size-n)]); err != nil {
				return err
			}
			poured.Add(int64(len(chunk)))
		}
		return nil
	}
	b.swarm(swarm.Config{Granted: everything,
		Exec: func(_ context.Context, _ wire.ExecRequest, t uplink.Terminal) (int, error) { return 3, fill(t.Stdout) },
		Logs: func(_ context.Context, _ wire.LogsRequest, w io.Writer) error { return fill(w) }})
	before := rss(t, b.hub.Process.Pid)
	out, log := &held{go1: make(chan struct{})}, &held{go1: make(chan struct{})}
	type end struct {
		code int
		err  error
	}
	ended := make(chan end, 2)
	go func() {
		code, err := b.client("ana").Exec(t.Context(), "node-0", client.ExecOptions{App: "app-0", Command: []string{"cat"}}, client.Streams{Out: out})
		ended <- end{code, err}
	}()
	go func() {
		ended <- end{3, b.client("ana").Logs(t.Context(), "node-0", client.LogOptions{Agent: true}, log, nil)}
	}()
	b.until(10*time.Second, "both to begin", func() bool { return poured.Load() > 1<<20 })
	last := int64(-1)
	b.until(20*time.Second, "the node to be held back", func() bool {
		now := poured.Load()
		time.Sleep(400 * time.Millisecond)
		still := now == last
		last = now
		return still
	})
	if last >= size {
		t.Errorf("%d MB left the node for readers that take nothing", last>>20)
	}
	if grown := rss(t, b.hub.Process.Pid) - before; grown > 60<<20 {
		t.Errorf("the hub grew by %d MB for readers that take nothing", grown>>20)
	}
	if _, err := b.client("ana").Summary(t.Context()); err != nil {
		t.Error(err)
	}
	close(out.go1)
	close(log.go1)
	for range 2 {
		select {
		case e := <-ended:
			if e.err != nil || e.code != 3 {
				t.Errorf("it ended with code %d, %v", e.code, e.err)
			}
		case <-time.After(patience * 40 * time.Second):
			t.Fatal("the rest does not come")
		}
	}
	if out.size.Load() != size || log.size.Load() != size {
		t.Errorf("of %d bytes %d of the command and %d of the log came", size, out.size.Load(), log.size.Load())
	}
}

// endless is input that never ends.
type endless struct{ n atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.n.Add(int64(len(p)))
	return len(p), nil
}

// TestInputThatNobodyTakes sends a command more than it reads: slowly read, all of it
// arrives; not read at all, the session ends with a reason and fills no memory.
func TestInputThatNobodyTakes(t *testing.T) {
	b := newBed(t, 1)
	b.swarm(swarm.Config{Granted: everything, Exec: func(ctx context.Context, r wire.ExecRequest, term uplink.Terminal) (int, error) {
		switch r.Command[0] {
		case "sum": // reads slowly, and all of it
			h := sha256.New()
			p := make([]byte, 16<<10)
			for {
				n, err := term.Stdin.Read(p)
				h.Write(p[:n])
				if err != nil {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			_, err := fmt.Fprintf(term.Stdout, "%x", h.Sum(nil))
			return 0, err
		case "head": // reads a little, and ends
			_, err := io.ReadFull(term.Stdin, make([]byte, 10))
			return 7, err
		}
		<-ctx.Done()
		return 0, ctx.Err()
	}})
	before := rss(t, b.hub.Process.Pid)
	c := b.client("ana")

	in := &endless{}
	ctx, cancel := context.WithTimeout(t.Context(), patience*40*time.Second)
	defer cancel()
	code, err := c.Exec(ctx, "node-0", client.ExecOptions{App: "app-0", Command: []string{"head"}, Stdin: true}, client.Streams{In: in})
	if err != nil || code != 7 {
		t.Errorf("a command that ends before its input: code %d, %v", code, err)
	}

	var sum strings.Builder
	size := 10 << 20 // more than fits anywhere on the way
	if testing.Short() {
		size = 1 << 20
	}
	text := strings.Repeat("0123456789abcdef", size/16)
	code, err = c.Exec(ctx, "node-0", client.ExecOptions{App: "app-0", Command: []string{"sum"}, Stdin: true}, client.Streams{In: strings.NewReader(text), Out: &sum})
	if want := fmt.Sprintf("%x", sha256.Sum256([]byte(text))); err != nil || code != 0 || sum.String() != want {
		t.Errorf("input that is read slowly: code %d, %v, digest %.10s, not %.10s", code, err, sum.String(), want)
	}

	stuck := &endless{}
	ended := make(chan error, 1)
	go func() {
		_, err := c.Exec(ctx, "node-0", client.ExecOptions{App: "app-0", Command: []string{"sleep"}, Stdin: true}, client.Streams{In: stuck})
		ended <- err
	}()
	select {
	case err := <-ended:
		t.Logf("input that nobody reads: after %d MB: %v", stuck.n.Load()>>20, err)
		if err == nil {
			t.Error("it ended as if all were well")
		}
	case <-time.After(5 * time.Second):
		t.Logf("input that nobody reads is held back after %d KB", stuck.n.Load()>>10)
	}
	if got := stuck.n.Load(); got > 64<<20 {
		t.Errorf("%d MB of input were taken that nobody reads", got>>20)
	}
	if grown := rss(t, b.hub.Process.Pid) - before; grown > 60<<20 {
		t.Errorf("the hub grew by %d MB", grown>>20)
	}
}

// TestSlowWatch opens a watch and reads nothing of it while the fleet reports, then goes on.
func TestSlowWatch(t *testing.T) {
	n := crowd(t)
	b := newBed(t, n)
	b.swarm(swarm.Config{Interval: 250 * time.Millisecond, Rate: 2000, Runs: 1})
	b.until(30*time.Second, "all to be heard of", func() bool { return b.ready(time.Time{}) == n })
	before := rss(t, b.hub.Process.Pid)
	var all []*http.Response
	for range 20 {
		req, err := http.NewRequestWithContext(t.Context(), "GET", b.url+"/api/v1/watch", nil)
		must(t, err)
		req.Header.Set("Authorization", "Bearer "+b.tokens["ana"])
		res, err := b.calls.Do(req)
		for try := 0; err != nil && try < 3; try++ { // a connection that was closed in the same moment
			res, err = b.calls.Do(req)
		}
		must(t, err)
		defer res.Body.Close()
		if res.StatusCode != 200 {
			t.Fatal(res.Status)
		}
		all = append(all, res)
	}
	time.Sleep(3 * time.Second) // of about a thousand statuses a second
	if grown := rss(t, b.hub.Process.Pid) - before; grown > 100<<20 {
		t.Errorf("the hub grew by %d MB for watchers that read nothing", grown>>20)
	}
	asked := time.Now()
	if _, err := b.client("ana").Summary(t.Context()); err != nil || time.Since(asked) > patience*5*time.Second {
		t.Errorf("others meanwhile: %v after %v", err, time.Since(asked))
	}
	b.change("node-1", func(x *roster.Node) { x.Generation = 2 })
	found := make(chan bool, 1)
	go func() {
		lines := bufio.NewReader(all[len(all)-1].Body)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				found <- false
				return
			}
			if strings.Contains(line, `"node-1"`) && strings.Contains(line, `"generation":2`) {
				found <- true
				return
			}
		}
	}()
	select {
	case ok := <-found:
		if !ok {
			t.Error("a watch that was slow was ended")
		}
	case <-time.After(patience * 15 * time.Second):
		t.Error("a watch that was slow does not catch up")
	}
}

// lazy opens pages of the console on connections that take little in advance.
func (b *bed) lazy(path string) io.Reader {
	b.t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			err = c.(*net.TCPConn).SetReadBuffer(64 << 10)
		}
		return c, err
	}}
	b.t.Cleanup(transport.CloseIdleConnections)
	req, err := http.NewRequestWithContext(b.t.Context(), "GET", b.url+path, nil)
	must(b.t, err)
	req.Header.Set("Authorization", "Bearer "+b.tokens["ana"])
	res, err := transport.RoundTrip(req)
	must(b.t, err)
	b.t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		b.t.Fatal(path, res.Status)
	}
	return res.Body
}

// finds reads on until something comes.
func (b *bed) finds(in io.Reader, what string) {
	b.t.Helper()
	found := make(chan error, 1)
	go func() {
		lines := bufio.NewReaderSize(in, 256<<10)
		for {
			line, err := lines.ReadString('\n')
			if err != nil || strings.Contains(line, what) {
				found <- err
				return
			}
		}
	}()
	select {
	case err := <-found:
		if err != nil {
			b.t.Errorf("a page that was slow was ended: %v", err)
		}
	case <-time.After(patience * 40 * time.Second):
		b.t.Errorf("a page that was slow does not come to %q", what)
	}
}

// TestSlowPages opens pages of the console, and logs in them, and reads nothing while the fleet
// reports and the logs pour: nodes are held back, and afterwards all goes on.
func TestSlowPages(t *testing.T) {
	n := crowd(t)
	b := newBed(t, n)
	var poured atomic.Int64
	b.swarm(swarm.Config{Granted: everything, Interval: 250 * time.Millisecond, Rate: 2000, Runs: 1,
		Logs: func(_ context.Context, _ wire.LogsRequest, w io.Writer) error {
			text := []byte(strings.Repeat("a line of it\n", 400))
			for {
				if _, err := w.Write(text); err != nil {
					return err
				}
				poured.Add(int64(len(text)))
			}
		}})
	b.until(30*time.Second, "all to be heard of", func() bool { return b.ready(time.Time{}) == n })
	before := rss(t, b.hub.Process.Pid)
	var pages, logs []io.Reader
	for range 4 {
		for _, path := range []string{"/live/", "/live/nodes", "/live/nodes/node-1"} {
			pages = append(pages, b.lazy(path))
		}
		logs = append(logs, b.lazy("/nodes/node-0/log?agent=true"))
	}
	b.until(10*time.Second, "logs to begin", func() bool { return poured.Load() > 1<<20 })
	last, since := int64(-1), time.Now()
	b.until(60*time.Second, "the node to be held back", func() bool {
		if now := poured.Load(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 2*time.Second
	})
	if grown := rss(t, b.hub.Process.Pid) - before; grown > 100<<20 {
		t.Errorf("the hub grew by %d MB for pages that read nothing", grown>>20)
	}
	asked := time.Now()
	if code, _ := b.ask("GET", "/nodes", b.tokens["ana"], nil); code != 200 || time.Since(asked) > patience*5*time.Second {
		t.Errorf("other pages meanwhile: %d after %v", code, time.Since(asked))
	}
	b.change("node-1", func(x *roster.Node) { x.Labels = map[string]string{"slow": "reader"} })
	b.finds(pages[len(pages)-2], "slow=reader") // of all nodes
	b.finds(pages[len(pages)-1], "slow=reader") // of that node
	go io.Copy(io.Discard, logs[0])             // ends with the test
	b.until(40*time.Second, "the node to send more", func() bool { return poured.Load() > last })
}
