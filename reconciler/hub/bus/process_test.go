package bus

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"selvedge/schema/wire"
)

// The test binary is also a server with that configuration file, or a hub with that folder,
// until its stdin ends.
const (
	serverEnv = "SELVEDGE_TEST_SERVER"
	hubEnv    = "SELVEDGE_TEST_HUB"
)

func TestMain(m *testing.M) {
	run, arg := func(string) error { os.Exit(m.Run()); return nil }, ""
	if name := os.Getenv(serverEnv); name != "" {
		run, arg = natsServer, name
	} else if dir := os.Getenv(hubEnv); dir != "" {
		run, arg = serveHub, dir
	}
	if err := run(arg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// hubStat is what the hub process tells, at the start and for each line that it reads.
type hubStat struct {
	URL      string
	Cert     []byte
	Nodes    int
	Statuses int64
	RSS      int64 // KB
}

func serveHub(dir string) error {
	b, err := New(Config{Dir: dir})
	if err != nil {
		return err
	}
	var statuses atomic.Int64
	b.Subscribe(func(string, []byte) { statuses.Add(1) }, func(string, []byte) {}, func(string, bool) {})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { err = errors.Join(err, b.Run(ctx)) })
	<-b.Ready()
	s := httptest.NewTLSServer(b.Tunnel())
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewReader(os.Stdin); err == nil; _, err = in.ReadString('\n') {
		debug.FreeOSMemory()
		out.Encode(hubStat{URL: s.URL, Cert: s.Certificate().Raw, Nodes: b.presence.count(), Statuses: statuses.Load(), RSS: rss()})
	}
	if err == io.EOF {
		err = nil
	}
	return err
}

// rss returns the resident memory of this process in KB.
func rss() int64 {
	data, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}

// BenchmarkConnect connects nodes through the tunnel to a hub of its own process, and tells
// what one costs it. For a fleet: -bench Connect -benchtime 10000x, with ulimit -n 40000.
func BenchmarkConnect(b *testing.B) {
	dir := b.TempDir()
	keys, err := New(Config{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), hubEnv+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	dec := json.NewDecoder(stdout)
	stat := func(ask bool) (s hubStat) {
		if ask {
			io.WriteString(in, "\n")
		}
		if err := dec.Decode(&s); err != nil {
			b.Fatal(err)
		}
		return s
	}
	before := stat(false)
	cert, err := x509.ParseCertificate(before.Cert)
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	conf := &tls.Config{RootCAs: roots}

	var made sync.WaitGroup
	var mu sync.Mutex
	var nodes []*nats.Conn
	gate := make(chan struct{}, 64)
	b.ResetTimer()
	for i := range b.N {
		gate <- struct{}{}
		made.Go(func() {
			defer func() { <-gate }()
			n := newNode(b, keys, fmt.Sprintf("gw-%06d", i))
			nc, err := nats.Connect(strings.Replace(before.URL, "https", "wss", 1), append(n.options(), nats.ProxyPath(wire.PathBus), nats.Secure(conf))...)
			if err != nil {
				b.Error(err)
				return
			}
			nc.Subscribe(wire.RequestSubject(n.name, ">"), func(*nats.Msg) {})
			nc.Publish(wire.StatusSubject(n.name), make([]byte, 2000))
			mu.Lock()
			nodes = append(nodes, nc)
			mu.Unlock()
		})
	}
	made.Wait()
	after := stat(true)
	for end := time.Now().Add(time.Minute); after.Statuses < int64(b.N) && time.Now().Before(end); after = stat(true) {
		time.Sleep(50 * time.Millisecond)
	}
	b.StopTimer()
	if after.Nodes != b.N || after.Statuses < int64(b.N) {
		b.Errorf("%d nodes, %d statuses, of %d", after.Nodes, after.Statuses, b.N)
	}
	b.ReportMetric(float64(after.RSS-before.RSS)/float64(b.N), "KB/node")
	b.ReportMetric(float64(after.RSS)/1024, "MB")
	for _, nc := range nodes {
		nc.Close()
	}
}
