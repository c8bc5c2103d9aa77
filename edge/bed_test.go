package edge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"selvedge/edge"
	"selvedge/edge/apply"
	"selvedge/edge/apply/runtimetest"
	"selvedge/edge/verify/verifytest"
	"selvedge/internal/control"
	"selvedge/reconciler/publish"
	"selvedge/schema/nodestate"
)

// patience bounds every wait; it is no measure of anything.
const patience = 30 * time.Second

// bed is one node with its agent, a runtime in memory, and the reconciler's real store
// behind a front that can misbehave.
type bed struct {
	*testing.T
	cloud *verifytest.Cloud
	store *publish.Store
	front *httptest.Server
	rt    *runtimetest.Fake
	cfg   edge.Config
	key   string // public
	log   *logs
	agent *edge.Agent // started last

	answer atomic.Pointer[http.HandlerFunc] // in place of the store's; nil: the store's
	asked  atomic.Int64                     // for states

	stop func()
}

func newBed(t *testing.T) *bed {
	t.Helper()
	t.Parallel()
	dir, err := os.MkdirTemp("", "selvedge-edge-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return newBedIn(t, dir)
}

func newBedIn(t *testing.T, dir string) *bed {
	t.Helper()
	b := &bed{T: t, cloud: verifytest.NewCloud(t), rt: runtimetest.NewFake(), log: &logs{}}
	var err error
	if b.store, err = publish.Open(publish.Config{Path: filepath.Join(t.TempDir(), "states.db"), Prefix: "eu"}); err != nil {
		t.Fatal(err)
	}
	b.publishTrust()
	real := b.store.Handler()
	b.front = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/manifests/signed") {
			b.asked.Add(1)
		}
		if f := b.answer.Load(); f != nil {
			(*f)(w, r)
			return
		}
		real.ServeHTTP(w, r)
	}))
	b.cfg = edge.Config{Dir: dir, Runtime: b.rt, Interval: 20 * time.Millisecond, Drift: 20 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	b.key = b.init()
	t.Cleanup(func() {
		b.halt()
		b.store.Close()
		b.front.CloseClientConnections()
		b.front.Close()
		if t.Failed() {
			t.Log(b.log.String())
		}
	})
	return b
}

func (b *bed) init() string {
	b.Helper()
	public, err := edge.Init(b.cfg.Dir, edge.Settings{Node: "gw-1", Registry: b.front.URL, Prefix: "eu"}, b.cloud.Docs[0])
	if err != nil {
		b.Fatal(err)
	}
	return public
}

func (b *bed) publishTrust() {
	b.Helper()
	if err := b.store.PutTrust(b.Context(), b.cloud.Docs); err != nil {
		b.Fatal(err)
	}
}

// start starts the agent; halt ends it, and its containers stay.
func (b *bed) start() {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	b.agent = edge.New(b.cfg)
	go func(a *edge.Agent) { done <- a.Run(ctx) }(b.agent)
	b.stop = func() {
		cancel()
		select {
		case err := <-done:
			if !errors.Is(err, context.Canceled) {
				b.Errorf("the agent ended with %v", err)
			}
		case <-time.After(patience):
			b.Error("the agent does not end")
		}
	}
}

func (b *bed) halt() {
	if b.stop != nil {
		b.stop()
		b.stop = nil
	}
}

func (b *bed) restart() {
	b.Helper()
	b.halt()
	b.start()
}

// with has the front answer by itself; with nil the store answers again.
func (b *bed) with(f http.HandlerFunc) {
	if f == nil {
		b.answer.Store(nil)
	} else {
		b.answer.Store(&f)
	}
	b.front.CloseClientConnections()
}

func away(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// publish puts a state of these apps into the store.
func (b *bed) publish(generation int64, apps ...nodestate.App) {
	b.Helper()
	if err := b.store.Put(b.Context(), []nodestate.Artifact{b.sign(generation, apps...)}); err != nil {
		b.Fatal(err)
	}
}

func (b *bed) sign(generation int64, apps ...nodestate.App) nodestate.Artifact {
	b.Helper()
	return b.signWith(generation, func(*nodestate.State) {}, apps...)
}

// signWith signs a state that differs from the usual one.
func (b *bed) signWith(generation int64, change func(*nodestate.State), apps ...nodestate.App) nodestate.Artifact {
	b.Helper()
	s := verifytest.Fill(nodestate.State{Identity: nodestate.Identity{PublicKey: b.key}, Apps: apps})
	change(&s)
	content, err := s.Canonical()
	if err != nil {
		b.Fatal(err)
	}
	return nodestate.Artifact{Node: s.Node, Generation: generation, ContentDigest: nodestate.Digest(content), Signed: b.cloud.Sign(b, s, generation)}
}

// app is an app of one container whose image and probe tell its version.
func app(name, version string, change ...func(*nodestate.App)) nodestate.App {
	a := nodestate.App{Name: name, DeadlineMS: 60000, Containers: []nodestate.Container{{
		Name: "main", Image: image(version), Network: "bridge", Restart: "always", StopSignal: "SIGTERM", StopMS: 1000, LogBytes: 1 << 20, LogFiles: 1,
		Probe: &nodestate.Probe{Exec: &nodestate.ExecProbe{Command: []string{"/hello", "check"}}, IntervalMS: 50, TimeoutMS: 1000, Failures: 3},
	}}}
	for _, f := range change {
		f(&a)
	}
	return a
}

func image(version string) string {
	return "registry.example/hello:" + version + "@" + nodestate.Digest([]byte(version))
}

// failing never gets healthy; its deadline is soon.
func failing(a *nodestate.App) {
	a.DeadlineMS = 300
	a.Containers[0].Env = map[string]string{"FAIL": "exit"}
}

// hopeless never gets healthy, and nobody will know for an hour.
func hopeless(a *nodestate.App) {
	failing(a)
	a.DeadlineMS = 3600e3
}

func file(content string) func(*nodestate.App) {
	return func(a *nodestate.App) {
		a.Containers[0].Files = []nodestate.File{{Path: "/etc/app.conf", Content: content}}
	}
}

func (b *bed) until(what string, ok func() bool) {
	b.Helper()
	for began := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > patience {
			b.Fatalf("waited for %s in vain; status: %+v", what, b.status())
		}
	}
}

// stays checks for a while that something remains so: a fault may be missed, never invented.
func (b *bed) stays(what string, ok func() bool) {
	b.Helper()
	for began := time.Now(); time.Since(began) < 300*time.Millisecond; time.Sleep(5 * time.Millisecond) {
		if !ok() {
			b.Fatalf("not so any more: %s; status: %+v", what, b.status())
		}
	}
}

func (b *bed) status() (s edge.Status) {
	if control.Ask(context.Background(), b.cfg.Dir, http.MethodGet, "/status", &s) != nil {
		s, _ = edge.ReadStatus(b.cfg.Dir)
	}
	return s
}

// runs reports whether an app's container runs a version.
func (b *bed) runs(name, version string) bool {
	i := b.rt.Get(apply.Key{App: name, Container: "main"})
	return i.State == apply.Running && i.Image == image(version)
}

// good waits until a generation is healthy and last-good.
func (b *bed) good(generation int64) {
	b.Helper()
	b.until(fmt.Sprintf("generation %d to be good", generation), func() bool {
		s := b.status()
		return s.Running && s.Store.LastGood != nil && s.Store.LastGood.Generation == generation && s.Store.Current.Generation == generation &&
			s.Update.Generation != generation // the store knows a moment before the loop says so
	})
}

func (b *bed) rejected(generation int64) {
	b.Helper()
	b.until(fmt.Sprintf("generation %d to be rejected", generation), func() bool {
		s := b.status()
		return len(s.Store.Rejected) > 0 && s.Store.Rejected[len(s.Store.Rejected)-1].Generation == generation
	})
}

func (b *bed) release() {
	b.Helper()
	if err := edge.Release(b.cfg.Dir); err != nil {
		b.Fatal(err)
	}
	b.wake()
}

func (b *bed) hold(reason string) {
	b.Helper()
	if err := edge.Hold(b.cfg.Dir, reason); err != nil {
		b.Fatal(err)
	}
	b.wake()
}

func (b *bed) wake() {
	b.Helper()
	var none struct{}
	_ = control.Ask(b.Context(), b.cfg.Dir, http.MethodPost, "/wake", &none) // it may just begin or end; who waits asks again
}

// content returns what the config files of the node hold.
func (b *bed) content() (all []string) {
	names, _ := filepath.Glob(filepath.Join(b.cfg.Dir, "files", "*", "0"))
	for _, n := range names {
		c, _ := os.ReadFile(n)
		all = append(all, string(c))
	}
	slices.Sort(all)
	return all
}

// logs is what the agent said.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
