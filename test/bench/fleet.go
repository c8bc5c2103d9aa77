package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
	"selvedge/test/bench/fleetgen"
	"selvedge/test/swarm"
)

// connecting measures the hub with a whole fleet on it: memory, processor, how soon a change is
// noticed, and how long a page takes.
func connecting(ctx context.Context, b *bench) error {
	n := b.pick(100, 10000)
	if err := files(n + 1000); err != nil {
		return err
	}
	h, err := newHub(ctx, b, n)
	if err != nil {
		return err
	}
	defer h.close()
	var heard notices
	began := time.Now()
	s, err := swarm.Start(ctx, swarm.Config{Hubs: []string{h.url}, Pin: h.pin, Members: members(n), Notice: heard.add, Granted: nodestate.Remote{Logs: true},
		Logs: func(ctx context.Context, _ wire.LogsRequest, w io.Writer) error { return pour(ctx, w, b.streamed()) }})
	if err != nil {
		return err
	}
	defer s.Close()
	wait, cancel := context.WithTimeout(ctx, 10*time.Minute)
	err = s.Await(wait, n)
	cancel()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, h.hub.tail())
	}
	joined := time.Since(began)

	pid := h.hub.cmd.Process.Pid
	t := table{head: []string{"WHAT", "MEASURED", "CPU", "MEMORY", "CPU/PEER", "MEMORY/PEER"}}
	idle, err := reporting(ctx, b, pid)
	if err != nil {
		return err
	}
	one, err := h.oneChange(ctx, &heard, n, b.pick(2, 10))
	if err != nil {
		return err
	}
	t.add("a push changes one node: from the moved branch to its notice", ms(one.median())+", "+one.spread(), "", mb(resident(pid)), "", "")
	all, err := h.wholeChange(ctx, &heard, n)
	if err != nil {
		return err
	}
	t.add("a push changes all nodes: to the last one's notice", ms(all), "", mb(resident(pid)), "", "")
	for _, page := range []struct{ what, path string }{
		{"GET /api/v1/nodes?limit=100", "/api/v1/nodes?limit=100"},
		{"GET /api/v1/summary", "/api/v1/summary"},
		{"console: all nodes, a page", "/nodes"},
	} {
		took, size, err := h.get(ctx, page.path, b.pick(3, 20))
		if err != nil {
			return err
		}
		t.add(fmt.Sprintf("%s, %.0f KB", page.what, float64(size)/1024), ms(took.median())+", "+took.spread(), "", mb(resident(pid)), "", "")
	}
	before := resident(pid)
	m := watch(pid)
	took, size, err := h.stream(ctx, fleetgen.Node(n/2), b.streamed())
	if err != nil {
		return err
	}
	u := m.end()
	proxied, pu, err := besideProxy(ctx, b.streamed())
	if err != nil {
		return fmt.Errorf("proxy: %w", err)
	}
	t.add(fmt.Sprintf("hub: a log of %s from one node", mb(size)), speed(size, took), ms(u.cpu), "+ "+mb(u.peak-before), ratio(u.cpu, pu.cpu), "")
	t.add("httputil.ReverseProxy, as many bytes", speed(size, proxied), ms(pu.cpu), "", "1.00", "")
	s.Close() // one process may have too few files for both crowds
	plain, err := besideNATS(ctx, b, n)
	if err != nil {
		return fmt.Errorf("nats-server: %w", err)
	}
	t.rows = append([][]string{
		{fmt.Sprintf("%d nodes connect, each with its own key", n), ms(joined), "", "", "", ""},
		{fmt.Sprintf("hub: they report every %v", wire.StatusInterval), "", idle.cores(), mb(idle.memory), ratio(idle.load, plain.load), ratio(idle.memory, plain.memory)},
		{"bare nats-server, as many plain connections", "", plain.cores(), mb(plain.memory), "1.00", "1.00"},
	}, t.rows...)
	t.print(b.out)
	fmt.Fprint(b.out, `
All over TLS on this machine, the nodes and those who ask among it. CPU: cores in use, or seconds in all. Memory: resident; of the log what it adds at most.
nats-server checks no keys, knows no nodes and keeps nothing; the proxy passes one response on and has no flow control but TCP's.
`)
	return nil
}

// load is what a process uses while nodes report.
type load struct {
	load   float64 // cores
	memory int64
}

func (l load) cores() string { return fmt.Sprintf("%.2f cores", l.load) }

// reporting watches a process while all that is connected reports.
func reporting(ctx context.Context, b *bench, pid int) (load, error) {
	settle, quiet := time.Duration(b.pick(1, 15))*time.Second, time.Duration(b.pick(2, 30))*time.Second
	var before time.Duration
	var at time.Time
	for i, wait := range []time.Duration{settle, quiet} {
		if i == 1 { // the garbage of connecting is gone
			before, at = cpuOf(pid), time.Now()
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return load{}, ctx.Err()
		}
	}
	return load{(cpuOf(pid) - before).Seconds() / time.Since(at).Seconds(), resident(pid)}, nil
}

// besideNATS has as many plain connections to a bare server.
func besideNATS(ctx context.Context, b *bench, n int) (load, error) {
	pid, at, end, err := startPeer("nats")
	if err != nil {
		return load{}, err
	}
	defer end()
	say, err := json.Marshal(swarm.Report(fleetgen.Node(0)))
	if err != nil {
		return load{}, err
	}
	c, err := connectCrowd(ctx, at, n, say)
	if err != nil {
		return load{}, err
	}
	defer c.close()
	return reporting(ctx, b, pid)
}

// besideProxy passes the bytes of a log through a proxy.
func besideProxy(ctx context.Context, most int) (time.Duration, used, error) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = pour(r.Context(), w, most) // the reader counts
	}))
	defer s.Close()
	pid, at, end, err := startPeer("proxy " + s.URL)
	if err != nil {
		return 0, used{}, err
	}
	defer end()
	m := watch(pid)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, http.NoBody)
	if err != nil {
		return 0, used{}, err
	}
	began := time.Now()
	_, err = read(&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}, req, most) // of our own, on loopback
	took := time.Since(began)
	return took, m.end(), err
}

func speed(size int64, took time.Duration) string {
	return fmt.Sprintf("%.0f MB/s", float64(size)/1e6/took.Seconds())
}

// read takes a whole log, which has at least so many bytes.
func read(c *http.Client, req *http.Request, least int) (int64, error) {
	res, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	size, err := io.Copy(io.Discard, res.Body)
	if err == nil && size < int64(least) {
		err = fmt.Errorf("the log ended after %d bytes, %s", size, res.Status)
	}
	return size, err
}

// streamed is how many bytes of log are read.
func (b *bench) streamed() int { return b.pick(32, 512) << 20 }

func pour(ctx context.Context, w io.Writer, most int) error {
	line := []byte(strings.Repeat("2026-01-01 00:00:00 INFO a line of a log, as many are ", 4)[:199] + "\n")
	chunk := []byte(strings.Repeat(string(line), 300))
	for n := 0; n < most && ctx.Err() == nil; n += len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func members(n int) []swarm.Member {
	out := make([]swarm.Member, n)
	for i := range out {
		key, err := fleetgen.Key(i)
		if err != nil {
			panic(err) // of fixed bytes
		}
		out[i] = swarm.Member{Name: fleetgen.Node(i), Key: key}
	}
	return out
}

// notices remembers when nodes were told of a generation.
type notices struct {
	mu  sync.Mutex
	at  map[string]time.Time
	gen map[string]int64
}

func (x *notices) add(node string, n wire.Notice, at time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.at == nil {
		x.at, x.gen = map[string]time.Time{}, map[string]int64{}
	}
	x.at[node], x.gen[node] = at, n.Generation
}

// since returns how many nodes were told after a time, and when the last one was.
func (x *notices) since(t time.Time) (n int, last time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, at := range x.at {
		if at.After(t) {
			n++
			if at.After(last) {
				last = at
			}
		}
	}
	return n, last
}

// hub is a platform with a hub.
type hub struct {
	*platform
	hub   *process
	url   string
	pin   string
	token string
	http  *http.Client
}

const benchToken = "selvedge_benchmarkbenchmarkbenchmarkbenchmarkbenchma"

func newHub(ctx context.Context, b *bench, n int) (*hub, error) {
	p, err := newPlatform(ctx, b, func(dir string) error {
		if err := fleetgen.Write(dir, n); err != nil {
			return err
		}
		text := fmt.Sprintf("package fleet\n\nidentity: bench: {kind: \"service\", token: bench: {hash: %q, expires: \"2099-01-01T00:00:00Z\"}}\nroleBinding: bench: {role: \"admin\", subjects: [\"service:bench\"]}\nnode: [string]: remote: logs: true\n",
			nodestate.Digest([]byte(benchToken)))
		return os.WriteFile(filepath.Join(dir, "bench.cue"), []byte(text), 0o644)
	})
	if err != nil {
		return nil, err
	}
	h := &hub{platform: p, token: benchToken}
	if err := h.start(ctx, n); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

func (h *hub) start(ctx context.Context, n int) error {
	commit, err := h.head(ctx)
	if err != nil {
		return err
	}
	if err := h.startReconciler(); err != nil {
		return err
	}
	if _, err := h.published(ctx, commit); err != nil {
		return err
	}
	return h.up(ctx, n)
}

// up starts the hub of a reconciler that runs, for n nodes.
func (h *hub) up(ctx context.Context, n int) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	h.url = "https://" + addr
	data := filepath.Join(h.dir, "hub")
	if h.hub, err = h.spawn("selvedge-hub", "run", "--data", data, "--listen", addr, "--url", h.url, "--reconciler", "unix:"+filepath.Join(h.data, "hub.sock"),
		"--max-connections-per-source", fmt.Sprint(2*n+100), "--auth-per-source", "1000"); err != nil {
		return err
	}
	h.http = &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		res, err := h.http.Get(h.url + "/healthz")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("the hub is not up: %w: %s", err, h.hub.tail())
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(h.b.bin, "selvedge-hub"), "ca", "--data", data, "--digest").Output()
	h.pin = strings.TrimSpace(string(out))
	return err
}

// oneChange pushes changes of one node each.
func (h *hub) oneChange(ctx context.Context, heard *notices, n, times int) (took sample, err error) {
	for i := range times {
		at := (n/2 + i*100) % n
		if _, err := fleetgen.Edit(h.clone, at, fmt.Sprint("notice ", i)); err != nil {
			return nil, err
		}
		push, err := h.push(ctx, "Change a node")
		if err != nil {
			return nil, err
		}
		last, err := heard.await(ctx, push.moved, 1)
		if err != nil {
			return nil, err
		}
		took = append(took, last.Sub(push.moved))
		time.Sleep(time.Second)
	}
	return took, nil
}

func (x *notices) await(ctx context.Context, since time.Time, n int) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		got, last := x.since(since)
		if got >= n {
			return last, nil
		}
		select {
		case <-ctx.Done():
			return last, fmt.Errorf("%d of %d nodes were told: %w", got, n, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

// wholeChange pushes a change of an app that every node runs.
func (h *hub) wholeChange(ctx context.Context, heard *notices, n int) (time.Duration, error) {
	name := filepath.Join(h.clone, "platform.cue")
	text, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	after := strings.ReplaceAll(string(text), `memory: "64MiB"`, `memory: "65MiB"`)
	if after == string(text) {
		return 0, errors.New("no app to change in platform.cue")
	}
	if err := os.WriteFile(name, []byte(after), 0o644); err != nil {
		return 0, err
	}
	push, err := h.push(ctx, "Change all nodes")
	if err != nil {
		return 0, err
	}
	last, err := heard.await(ctx, push.moved, n)
	return last.Sub(push.moved), err
}

// get asks for a page, signed in.
func (h *hub) get(ctx context.Context, path string, times int) (took sample, size int64, err error) {
	for range times {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url+path, http.NoBody)
		if err != nil {
			return nil, 0, err
		}
		req.Header.Set("Authorization", "Bearer "+h.token)
		began := time.Now()
		res, err := h.http.Do(req)
		if err != nil {
			return nil, 0, err
		}
		size, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil {
			return nil, 0, err
		}
		if res.StatusCode != http.StatusOK {
			return nil, 0, fmt.Errorf("%s: %s", path, res.Status)
		}
		took = append(took, time.Since(began))
	}
	return took, size, nil
}

// stream reads a log to its end.
func (h *hub) stream(ctx context.Context, node string, least int) (time.Duration, int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url+"/api/v1/nodes/"+node+"/logs?agent=true", http.NoBody)
	if err != nil {
		return 0, 0, err
	}
	req.Header.Set("Authorization", "Bearer "+h.token)
	began := time.Now()
	size, err := read(&http.Client{Transport: h.http.Transport}, req, least)
	return time.Since(began), size, err
}

func (h *hub) close() error {
	h.hub.end()
	h.platform.close()
	return nil
}
