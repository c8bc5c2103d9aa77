package containerd_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"selvedge/edge/apply"
	"selvedge/edge/apply/containerd"
	"selvedge/schema/nodestate"
	"selvedge/test/env"
)

func TestMain(m *testing.M) {
	if handled, err := containerd.Reexec(); handled {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if err := flag.Set("test.parallel", "4"); err != nil { // they wait more than they compute
		panic(err)
	}
	code := env.Alone(m)
	if err := site.close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// site is the containerd, and the registry with the hello image, that most tests share.
var site shared

type shared struct {
	mu     sync.Mutex
	daemon *env.Daemon
	server *httptest.Server
	image  string
	beds   int
}

func (s *shared) containerd(t *testing.T) *env.Daemon {
	t.Helper()
	env.Need(t, env.CanContainerd())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.daemon == nil {
		d, err := env.StartContainerd()
		if err != nil {
			t.Fatal(err)
		}
		s.daemon = d
	}
	return s.daemon
}

func (s *shared) registry(t *testing.T) (*httptest.Server, string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		s.server = newRegistry()
		s.image = env.Image(t, strings.TrimPrefix(s.server.URL, "http://"), "hello", "v1")
	}
	return s.server, s.image
}

// number tells beds apart.
func (s *shared) number() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beds++
	return s.beds
}

func (s *shared) close() error {
	if s.server != nil {
		s.server.Close()
	}
	if s.daemon == nil {
		return nil
	}
	return s.daemon.Stop()
}

func newRegistry() *httptest.Server {
	quiet := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range") // this registry knows no open-ended ranges
		quiet.ServeHTTP(w, r)
	}))
}

// bed is a runtime with a namespace, folders and a bridge of its own.
type bed struct {
	*containerd.Runtime
	conf   containerd.Config
	daemon *env.Daemon
	host   string // of the registry
	image  string // hello v1
}

// newBed is for tests that leave containerd and what others have there alone; they may
// run side by side. They are too long for -short.
func newBed(t *testing.T, change ...func(*containerd.Config)) *bed {
	t.Helper()
	if testing.Short() {
		t.Skip("starts containers: too long for -short")
	}
	return bedOn(t, site.containerd(t), change...)
}

// privateBed has a containerd of its own.
func privateBed(t *testing.T, change ...func(*containerd.Config)) *bed {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a containerd: too long for -short")
	}
	return bedOn(t, env.Containerd(t), change...)
}

func bedOn(t *testing.T, d *env.Daemon, change ...func(*containerd.Config)) *bed {
	t.Helper()
	srv, image := site.registry(t)
	n := site.number()
	sum := sha256.Sum256(fmt.Append(nil, d.Dir, n))
	id := hex.EncodeToString(sum[:])[:8]
	dir := filepath.Join(d.Dir, id)
	logger := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	conf := containerd.Config{Address: d.Address, Namespace: "selvedge-" + id, DataDir: filepath.Join(dir, "data"), RunDir: filepath.Join(dir, "run"),
		Bridge: "slv" + id, Log: logger, Subnet: fmt.Sprintf("10.204.%d.0/24", n)}
	for _, f := range change {
		f(&conf)
	}
	r := containerd.New(conf)
	b := &bed{Runtime: r, conf: conf, daemon: d, host: strings.TrimPrefix(srv.URL, "http://"), image: image}
	t.Cleanup(func() {
		if err := r.Purge(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// spec is a container of the hello image with everything that a state always has.
func (b *bed) spec(app, name string, change ...func(*nodestate.Container)) apply.Spec {
	c := nodestate.Container{Name: name, Image: b.image, Network: "bridge", Restart: "always", StopSignal: "SIGTERM", StopMS: 3000, LogBytes: 1 << 20, LogFiles: 2}
	for _, f := range change {
		f(&c)
	}
	return apply.Spec{App: app, Generation: 7, Hash: hashOf(c), Container: c}
}

func hashOf(c nodestate.Container) string {
	s := sha256.Sum256(fmt.Append(nil, c))
	return hex.EncodeToString(s[:8])
}

func (b *bed) start(t *testing.T, s apply.Spec) apply.Instance {
	t.Helper()
	if err := b.Pull(t.Context(), s.Container.Image); err != nil {
		t.Fatal(err)
	}
	i, err := b.Start(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// one returns the only instance of a container, or an absent one.
func (b *bed) one(t *testing.T, s apply.Spec) apply.Instance {
	t.Helper()
	list, err := b.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := apply.Instance{State: apply.Absent}
	for _, i := range list {
		if i.Key() == s.Key() {
			if found.ID != "" {
				t.Fatalf("two instances of %s", s.Key())
			}
			found = i
		}
	}
	return found
}

var freePorts sync.Map

// port returns a port of loopback that nothing listens on.
func port(t *testing.T) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p := l.Addr().(*net.TCPAddr).Port
		l.Close()
		if _, taken := freePorts.LoadOrStore(p, true); !taken {
			return p
		}
	}
	t.Fatal("no free port")
	return 0
}

func get(t *testing.T, url string) string {
	t.Helper()
	var last error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		c := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := c.Get(url)
		if err != nil {
			last = err
			continue
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err == nil {
			return string(b)
		}
		last = err
	}
	t.Fatalf("no answer from %s: %v", url, last)
	return ""
}

// eventually polls until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(25 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func portOf(t *testing.T, host string) int {
	t.Helper()
	_, p, err := net.SplitHostPort(host)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(p)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func kill(t *testing.T, pid string) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}
