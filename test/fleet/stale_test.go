package fleet

import (
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"selvedge/reconciler/feed"
	"selvedge/reconciler/hub"
	"selvedge/reconciler/hub/bus"
	"selvedge/schema/roster"
	"selvedge/test/hubproc"
	"selvedge/test/swarm"
)

// TestStaleHub cuts one of two hubs off the reconciler. A node that Git lists since then gets
// in though it asks that hub first, and that hub puts it out nowhere.
func TestStaleHub(t *testing.T) {
	t.Parallel()
	b := newRoster(t, 2)
	first, second := filepath.Join(b.dir, "hub"), filepath.Join(b.dir, "hub2")
	ports := free(t, 3)
	text, err := bus.ServerConfig(filepath.Join(first, hub.BusDir), bus.External{Name: "nats-1", Listen: ports[0], WebSocket: ports[1], Store: filepath.Join(b.dir, "nats")})
	must(t, err)
	b.nats(filepath.Join(b.dir, "nats.conf"), text)
	addrs := []string{"nats://" + ports[0], "ws://" + ports[1]}
	stale := "https://" + ports[2]
	urls := []string{stale, b.url}
	b.hub = b.spawn(hubproc.Settings{DataDir: first, Listen: b.addr, URLs: urls, Bus: addrs})
	copyKeys(t, first, second)

	// the other hub's way to the reconciler
	dir := filepath.Join(b.dir, "other")
	must(t, os.Mkdir(dir, 0o700))
	roster2, err := feed.Open(feed.Config{Path: filepath.Join(dir, "roster")})
	must(t, err)
	l, err := feed.Listen(dir)
	must(t, err)
	way := &http.Server{Handler: roster2.Handler()}
	go way.Serve(l) // ends with Close
	must(t, roster2.Tell(roster.Event{Reset: true, Fleet: &b.fleet, Nodes: maps.Clone(b.nodes), Trust: "x"}))
	log := &hubproc.Log{}
	const doubt = time.Second
	hub2, _ := hubproc.Start(t, hubproc.Settings{DataDir: second, Listen: ports[2], URLs: urls, Bus: addrs, Doubt: doubt, Reconciler: "unix:" + filepath.Join(dir, feed.Socket)}, log, patience*time.Minute)
	t.Cleanup(func() {
		hub2.Process.Kill()
		hub2.Wait()
		if t.Failed() {
			t.Logf("the other hub's log ends with:\n%s", log.Tail(3000))
		}
	})
	must(t, way.Close())
	must(t, roster2.Close())
	b.until(20*time.Second, "the other hub to miss the reconciler", func() bool { return strings.Contains(log.Tail(1<<20), "cannot be followed") })

	b.newNode("node-2")
	b.tell(roster.Event{Nodes: map[string]roster.Node{"node-2": b.nodes["node-2"]}})
	began := time.Now()
	nodes := b.swarm(swarm.Config{Hubs: urls, Members: b.members("node-2"), Interval: time.Second, Retry: time.Second, Runs: 1})
	b.until(30*time.Second, "it to report", func() bool { return b.node("node-2").LastSeen.After(began) })
	bearer := b.bearer("node-2")
	good := b.url
	b.url = stale
	if code, text := b.ask("GET", "/v2/", bearer, nil); code != http.StatusServiceUnavailable {
		t.Errorf("a bearer of a node of which that hub knows nothing: %d %s", code, text)
	}
	b.until(30*time.Second, "that hub to see it", func() bool { return b.figure("selvedge_bus_connections") == 1 })
	time.Sleep(doubt + 3*time.Second) // then it has decided, and done so
	for _, b.url = range []string{stale, good} {
		if n, out := b.figure("selvedge_bus_connections"), b.figure("selvedge_bus_revocations_total")+b.figure("selvedge_bus_kicks_total"); n != 1 || out != 0 {
			t.Errorf("%s sees %v nodes, and has put out %v", b.url, n, out)
		}
	}
	if nodes.Connected() != 1 {
		t.Error("a hub that has lost the reconciler puts out a node that Git lists")
	}
}

// nats starts a server of that configuration; it ends with the test.
func (b *bed) nats(file, text string) *exec.Cmd {
	b.t.Helper()
	must(b.t, os.WriteFile(file, []byte(text), 0o600))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SELVEDGE_TEST_NATS="+file)
	cmd.Stderr = b.log
	in, err := cmd.StdinPipe()
	must(b.t, err)
	must(b.t, cmd.Start())
	b.t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() }) // it may have been killed
	return cmd
}

// copyKeys gives a second hub the first one's keys of the bus, and its certificate.
func copyKeys(t *testing.T, first, second string) {
	t.Helper()
	for _, dir := range []string{filepath.Join(hub.BusDir, "keys"), hub.CertDir} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(second, dir)), 0o700))
		must(t, exec.Command("cp", "-a", filepath.Join(first, dir), filepath.Join(second, dir)).Run())
	}
}
