// Package hubproc runs a hub as a process of its own, so that a test can kill it.
//
// The process is the test's own program, which calls Be first thing in TestMain. The hub's
// roster comes from a real feed in the test, over a socket.
package hubproc

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"selvedge/reconciler/feed"
	"selvedge/reconciler/hub"
)

// variable tells a process that it is a hub, and which.
const variable = "SELVEDGE_TEST_HUB"

// Settings are what the hub's process is told.
type Settings struct {
	DataDir, Listen string
	URLs            []string
	Reconciler      string // unix:PATH; see Feed
	Bus             []string
	BusCA           string
	Doubt           time.Duration // before a node that Git does not list is put out; 0: the product's
	Clock           string        // file that says by how much the hub's clock is ahead, as a Go duration; empty: it is right
}

// Be is a hub until it is told to end, and exits, in a process that Start began; in any other
// it returns at once.
func Be() {
	text := os.Getenv(variable)
	if text == "" {
		return
	}
	if err := be(text); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func be(text string) error {
	var s Settings
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	cfg := hub.Config{DataDir: s.DataDir, Listen: s.Listen, URLs: s.URLs, Reconciler: s.Reconciler, BusServers: s.Bus, BusCA: s.BusCA, Doubt: s.Doubt,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if s.Clock != "" {
		cfg.Now = clock(s.Clock)
	}
	debug.SetGCPercent(30) // as the product's
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	h, err := hub.New(cfg)
	if err != nil {
		return err
	}
	return h.Run(ctx)
}

// clock is the machine's, moved by as much as the file says, whenever it says so.
func clock(name string) func() time.Time {
	var ahead atomic.Int64
	go func() {
		for ; ; time.Sleep(10 * time.Millisecond) {
			if b, err := os.ReadFile(name); err == nil {
				if d, err := time.ParseDuration(string(b)); err == nil {
					ahead.Store(int64(d))
				}
			}
		}
	}()
	return func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
}

// Feed serves a roster, and a store of states, on the socket of a directory, whose name must
// be short. The address is for Settings.Reconciler.
func Feed(t testing.TB, dir string, states http.Handler) (f *feed.Feed, address string) {
	t.Helper()
	f, err := feed.Open(feed.Config{Path: filepath.Join(dir, "roster"), States: states})
	if err != nil {
		t.Fatal(err)
	}
	l, err := feed.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: f.Handler()}
	go srv.Serve(l) // ends with Close
	t.Cleanup(func() {
		if err := errors.Join(srv.Close(), f.Close()); err != nil {
			t.Error(err)
		}
	})
	return f, "unix:" + filepath.Join(dir, feed.Socket)
}

// FreeAddr returns an address on loopback that nobody listens on. Its port is below those that
// connections get by themselves: it is still free when a hub is started there, and started again.
func FreeAddr(t testing.TB) string {
	t.Helper()
	var err error
	for range 100 {
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprint("127.0.0.1:", 12000+rand.N(20000))); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal(err)
	return ""
}

// Start begins a hub and waits until it is ready for nodes, most of that time at most. The pin
// is of its CA. End what it returns.
func Start(t testing.TB, s Settings, log *Log, most time.Duration) (cmd *exec.Cmd, pin string) {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), variable+"="+string(text))
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // its certificate is looked at by who asks more
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport, Timeout: most}
	for end := time.Now().Add(most); !ready(c, s.Listen); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			End(cmd, syscall.SIGKILL)
			t.Fatalf("waited %v for the hub to be ready in vain", most)
		}
	}
	if _, pin, err = hub.CA(s.DataDir); err != nil {
		End(cmd, syscall.SIGKILL)
		t.Fatal(err)
	}
	return cmd, pin
}

func ready(c *http.Client, addr string) bool {
	res, err := c.Get("https://" + addr + "/healthz")
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// End sends a signal to a hub and waits for its end; nil is ended already.
func End(cmd *exec.Cmd, s syscall.Signal) {
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(s)
	_ = cmd.Wait() // how it ended is in its log
}

// Log is what hubs print. The zero value is ready.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// Tail returns the last n bytes at most.
func (l *Log) Tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b.Bytes()[max(0, l.b.Len()-n):])
}
