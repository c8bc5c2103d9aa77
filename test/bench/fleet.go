package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
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
	h, err := newHub(ctx, b, n)
	if err != nil {
		return err
	}
	defer h.close()
	var heard notices
	began := time.Now()
	s, err := swarm.Start(ctx, swarm.Config{Hubs: []string{h.url}, Pin: h.pin, Members: members(n), Notice: heard.add, Granted: nodestate.Remote{Logs: true},
		Logs: func(ctx context.Context, _ wire.LogsRequest, w io.Writer) error { return pour(ctx, w, streamed) }})
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

	t := table{head: []string{"WHAT", "MEASURED", "HUB'S CPU", "HUB'S MEMORY"}}
	quiet := time.Duration(b.pick(5, 60)) * time.Second
	time.Sleep(quiet / 3) // garbage of the connecting
	before, at := cpuOf(h.hub.cmd.Process.Pid), time.Now()
	select {
	case <-time.After(quiet):
	case <-ctx.Done():
		return ctx.Err()
	}
	used := cpuOf(h.hub.cmd.Process.Pid) - before
	pid := h.hub.cmd.Process.Pid
	t.add(fmt.Sprintf("%d nodes connect, over TLS, each with its own key", n), ms(joined), "", mb(resident(pid)))
	t.add(fmt.Sprintf("they report every %v", wire.StatusInterval), fmt.Sprintf("for %v", quiet), fmt.Sprintf("%.2f cores", used.Seconds()/time.Since(at).Seconds()), mb(resident(pid)))

	one, err := h.oneChange(ctx, &heard, n, b.pick(2, 10))
	if err != nil {
		return err
	}
	t.add("a push changes one node: from the moved branch to its notice", ms(one.median())+", "+one.spread(), "", mb(resident(pid)))
	all, err := h.wholeChange(ctx, &heard, n)
	if err != nil {
		return err
	}
	t.add("a push changes all nodes: to the last one's notice", ms(all), "", mb(resident(pid)))
	for _, page := range []struct{ what, path string }{
		{"GET /api/v1/nodes?limit=100", "/api/v1/nodes?limit=100"},
		{"GET /api/v1/summary", "/api/v1/summary"},
		{"console: all nodes, a page", "/nodes"},
	} {
		took, size, err := h.get(ctx, page.path, b.pick(3, 20))
		if err != nil {
			return err
		}
		t.add(page.what, ms(took.median())+", "+took.spread(), fmt.Sprintf("%.0f KB", float64(size)/1024), mb(resident(pid)))
	}
	m := watch(pid)
	took, size, err := h.stream(ctx, fleetgen.Node(n/2))
	if err != nil {
		return err
	}
	u := m.end()
	t.add(fmt.Sprintf("a log of %s from one node through the hub", mb(size)), fmt.Sprintf("%.0f MB/s", float64(size)/1e6/took.Seconds()), ms(u.cpu), mb(u.peak)+" at most")
	t.print(b.out)
	return nil
}

// streamed is how many bytes of log are read.
const streamed = 512 << 20

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
	if err := h.start(ctx); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

func (h *hub) start(ctx context.Context) error {
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
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	h.url = "https://" + addr
	data := filepath.Join(h.dir, "hub")
	if h.hub, err = h.spawn("selvedge-hub", "run", "--data", data, "--listen", addr, "--url", h.url, "--reconciler", "unix:"+filepath.Join(h.data, "hub.sock"),
		"--max-connections-per-source", "30000"); err != nil {
		return err
	}
	h.http = &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // a hub of our own, on loopback
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
func (h *hub) stream(ctx context.Context, node string) (time.Duration, int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url+"/api/v1/nodes/"+node+"/logs?agent=true", http.NoBody)
	if err != nil {
		return 0, 0, err
	}
	req.Header.Set("Authorization", "Bearer "+h.token)
	began := time.Now()
	res, err := (&http.Client{Transport: h.http.Transport}).Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer res.Body.Close()
	size, err := io.Copy(io.Discard, res.Body)
	if err == nil && size < streamed {
		err = fmt.Errorf("the log ended after %d bytes, %s", size, res.Status)
	}
	return time.Since(began), size, err
}

func (h *hub) close() error {
	h.hub.end()
	h.platform.close()
	return nil
}
