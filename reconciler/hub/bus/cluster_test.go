package bus

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"selvedge/schema/wire"
)

// certs makes a CA, and a certificate of 127.0.0.1 for servers.
func certs(t testing.TB) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	caKey, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	now := time.Now()
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, root, root, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	ca = write("ca.pem", "CERTIFICATE", der)
	own, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: root.NotBefore, NotAfter: root.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if der, err = x509.CreateCertificate(rand.Reader, leaf, root, &own.PublicKey, caKey); err != nil {
		t.Fatal(err)
	}
	cert = write("cert.pem", "CERTIFICATE", der)
	if der, err = x509.MarshalPKCS8PrivateKey(own); err != nil {
		t.Fatal(err)
	}
	return ca, cert, write("key.pem", "PRIVATE KEY", der)
}

// freePorts returns addresses on which nobody listens, for those who must know each other's
// before they start. Ports are below those that connections get by themselves, so that none is
// taken meanwhile.
func freePorts(t testing.TB, n int) []string {
	t.Helper()
	var all []string
	for try := 0; len(all) < n; try++ {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 12000+mathrand.N(20000)))
		if err != nil {
			if try > 100 {
				t.Fatal(err)
			}
			continue
		}
		defer l.Close()
		all = append(all, l.Addr().String())
	}
	return all
}

// natsServer does what `nats-server -c FILE` does, until stdin ends.
func natsServer(name string) error {
	o, err := server.ProcessConfigFile(name)
	if err != nil {
		return err
	}
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	go s.Start()
	io.Copy(io.Discard, os.Stdin)
	s.Shutdown()
	return nil
}

// startText starts a server of exactly that text as a process of its own; it ends with the test.
func startText(t testing.TB, text string) *os.Process {
	t.Helper()
	name := filepath.Join(t.TempDir(), "server.conf")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverEnv+"="+name)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("BUS_LOG") != "" {
		cmd.Stderr = os.Stderr
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	return cmd.Process
}

// TestCluster runs two hubs and their nodes on three servers, over TLS, and kills a server.
func TestCluster(t *testing.T) {
	dir := t.TempDir()
	ca, cert, key := certs(t)
	ports := freePorts(t, 9)
	c := Config{Dir: dir, CA: ca}
	all := map[string]*os.Process{}
	for i := range 3 {
		text, err := ServerConfig(dir, External{Name: fmt.Sprint("nats-", i), Listen: ports[i], WebSocket: ports[3+i], Cluster: ports[6+i], Routes: ports[6:9],
			Store: t.TempDir(), Cert: cert, Key: key, CA: ca})
		if err != nil {
			t.Fatal(err)
		}
		all[fmt.Sprint("nats-", i)] = startText(t, text)
		c.Servers = append(c.Servers, "tls://"+ports[i], "wss://"+ports[3+i])
	}
	two := c
	two.Servers = c.Servers[:4] // a hub need not know all
	h1 := start(t, two)
	c.Dir, c.Name = t.TempDir(), "hub-2"
	copyKeys(t, dir, c.Dir)
	h2 := start(t, c)

	a, b := join(t, h1, "a"), join(t, h2, "b")
	for _, h := range []*hub{h1, h2} { // each hub sees all
		h.untilThere(t, "a", true)
		h.untilThere(t, "b", true)
	}
	for _, n := range []*node{a, b} {
		n.answer(t, wire.VerbRestart, func(*nats.Msg) any { return wire.Answer{Message: n.name} })
		n.serve(t, wire.VerbLogs, nil, func(s *source) {
			for range 100 {
				s.send(wire.FrameOut, make([]byte, 1000))
			}
			s.raw(wire.EndFrame(wire.End{}))
		})
	}
	ask := func(h *hub, node string) {
		t.Helper()
		var got wire.Answer
		for end := time.Now().Add(patience * 20 * time.Second); ; time.Sleep(20 * time.Millisecond) { // interest spreads
			ctx, cancel := context.WithTimeout(t.Context(), patience*2*time.Second)
			err := h.Request(ctx, node, wire.VerbRestart, nil, &got)
			cancel()
			if err == nil && got.Message == node {
				return
			}
			if time.Now().After(end) {
				t.Fatal(node, got, err)
			}
		}
	}
	ask(h1, "b")
	ask(h2, "a")
	s := mustOpen(t, h2, "a")
	for got := 0; ; got++ {
		if _, _, err := s.Next(t.Context()); err != nil {
			if got != 100 {
				t.Error(got, err)
			}
			break
		}
	}
	kv, err := h1.Bucket(t.Context(), "tokens", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := kv.Status(t.Context()); err != nil || st.(*jetstream.KeyValueBucketStatus).StreamInfo().Config.Replicas != 3 {
		t.Errorf("%+v %v", st, err)
	}
	if _, err := kv.PutString(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}

	// the server of a dies without a word
	id, _ := h1.presence.current("a")
	m, err := askServer(t.Context(), h1.sys(), "$SYS.REQ.SERVER."+id.server+".VARZ", nil)
	if err != nil {
		t.Fatal(err)
	}
	var who struct{ Server struct{ Name string } }
	if err := json.Unmarshal(m.Data, &who); err != nil || all[who.Server.Name] == nil {
		t.Fatal(who, err)
	}
	all[who.Server.Name].Kill()
	for _, h := range []*hub{h1, h2} {
		poll(t, "a is back elsewhere", func() bool {
			now, ok := h.presence.current("a")
			return ok && now.server != id.server
		})
	}
	ask(h2, "a")
	ask(h1, "b")
	if kv, err = h2.Bucket(t.Context(), "tokens", time.Hour); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience * 20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		e, err := kv.Get(t.Context(), "k")
		if err == nil && string(e.Value()) == "v" {
			break
		}
		if time.Now().After(end) {
			t.Fatal(e, err)
		}
	}
	// who does not trust the servers' CA does not talk to them, nor lets nodes do so
	wrong, _, _ := certs(t)
	other, err := New(Config{Dir: dir, CA: wrong, Servers: c.Servers, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	if nc, err := other.dial("x", false); err == nil {
		nc.Close()
		t.Error("connected to servers of another CA")
	}
	if up, _, err := other.tunnel.upgrade(t.Context(), other.nodes[0], "AAAAAAAAAAAAAAAAAAAAAA==", netip.Addr{}); err == nil {
		up.Close()
		t.Error("passes nodes on to servers of another CA")
	}
	// a revocation by the hub that did not let the node in holds everywhere
	drain(a.dropped)
	began := time.Now()
	if err := h2.Revoke(t.Context(), a.key); err != nil {
		t.Fatal(err)
	}
	wait(t, "the end of a", a.dropped)
	t.Logf("dropped after %v", time.Since(began))
	for _, h := range []*hub{h1, h2} {
		h.untilThere(t, "a", false)
	}
	poll(t, "the other hub knows", func() bool { return h1.revoked.at(a.key) > 0 })
}

// TestOneServerOverWebSocket: the hub itself goes where nodes go, and waits for a server that
// starts after it.
func TestOneServerOverWebSocket(t *testing.T) {
	c := Config{Dir: t.TempDir(), Log: testLog(t)}
	ports := freePorts(t, 2)
	text, err := ServerConfig(c.Dir, External{Name: "one", Listen: ports[0], WebSocket: ports[1], Store: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	c.Servers = []string{"ws://" + ports[1]}
	b, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	startText(t, text)
	wait(t, "the bus", b.Ready())
	cancel()
	if err := wait(t, "its end", done); err != nil {
		t.Error(err)
	}
	h := start(t, c)
	join(t, h, "a")
	kv, err := h.Bucket(t.Context(), "x", 0)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := kv.Status(t.Context()); err != nil || st.(*jetstream.KeyValueBucketStatus).StreamInfo().Config.Replicas != 1 {
		t.Error(st, err)
	}
}

// TestHubWithoutServers ends when it is told to.
func TestHubWithoutServers(t *testing.T) {
	b, err := New(Config{Dir: t.TempDir(), Log: testLog(t), Servers: []string{"ws://" + freePorts(t, 1)[0]}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	cancel()
	if err := wait(t, "its end", done); err != nil {
		t.Error(err)
	}
}

func copyKeys(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(from, "keys", keysFile))
	if err != nil {
		t.Fatal(err)
	}
	os.MkdirAll(filepath.Join(to, "keys"), 0o700)
	if err := os.WriteFile(filepath.Join(to, "keys", keysFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestClusterNeedsPassword: only who has it joins the cluster.
func TestClusterNeedsPassword(t *testing.T) {
	dir := t.TempDir()
	ports := freePorts(t, 6)
	text, err := ServerConfig(dir, External{Name: "one", Listen: ports[0], WebSocket: ports[1], Cluster: ports[2], Routes: ports[2:3], Store: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	o := &server.Options{}
	if err := o.ProcessConfigString(text); err != nil {
		t.Fatal(err)
	}
	o.NoSigs, o.NoLog = true, true
	clone := o.Clone()
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.Shutdown()
	k, _ := loadKeys(filepath.Join(dir, "keys"))
	for _, password := range []string{"guess", k.routes} {
		other := clone.Clone()
		other.ServerName, other.StoreDir, other.Cluster.Host, other.Cluster.Port = "two", t.TempDir(), "127.0.0.1", -1
		other.Port, other.Websocket.Port = -1, -1
		other.AccountResolver, err = server.NewDirAccResolver(t.TempDir(), 10, time.Minute, server.NoDelete)
		if err != nil {
			t.Fatal(err)
		}
		other.Routes = []*url.URL{{Scheme: "nats-route", User: url.UserPassword("server", password), Host: ports[2]}}
		two, err := server.NewServer(other)
		if err != nil {
			t.Fatal(err)
		}
		two.Start()
		wait := 300 * time.Millisecond // long enough to try, and try again
		if password == k.routes {
			wait = 15 * time.Second
		}
		for end := time.Now().Add(wait); s.NumRoutes() == 0 && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
		if got := s.NumRoutes() > 0; got != (password == k.routes) {
			t.Errorf("with %.5s… it joins: %v", password, got)
		}
		two.Shutdown()
		two.WaitForShutdown()
	}
}

// TestLateServer stops one of two servers while a hub starts and counts.
func TestLateServer(t *testing.T) {
	dir := t.TempDir()
	ports := freePorts(t, 6)
	c := Config{Dir: dir}
	var servers []*os.Process
	for i := range 2 {
		text, err := ServerConfig(dir, External{Name: fmt.Sprint("nats-", i), Listen: ports[i], WebSocket: ports[2+i], Cluster: ports[4+i], Routes: ports[4:6], Store: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, startText(t, text))
	}
	c.Servers = []string{"nats://" + ports[0], "ws://" + ports[2], "ws://" + ports[3]}
	h1 := start(t, c)
	for i := 0; ; i++ {
		if i == 50 {
			t.Fatal("no node is on the second server")
		}
		if n := join(t, h1, "a"); n.ConnectedServerName() == "nats-1" {
			break
		} else {
			n.Close()
		}
	}
	c.Dir, c.Name = t.TempDir(), "hub-2"
	copyKeys(t, dir, c.Dir)
	servers[1].Signal(syscall.SIGSTOP)
	h2 := start(t, c)
	poll(t, "the count", func() bool { return len(h2.presence.recount) == 0 })
	time.Sleep(2 * time.Second) // it is over without that server
	servers[1].Signal(syscall.SIGCONT)
	poll(t, "the node at the late server", func() bool { return h2.presence.count() == 1 })
	// and late again: a count that it is missing in says nothing
	servers[1].Signal(syscall.SIGSTOP)
	for range 3 {
		h2.presence.countAll(t.Context())
	}
	servers[1].Signal(syscall.SIGCONT)
	if h2.presence.count() != 1 {
		t.Error("a node was forgotten because its server was busy")
	}
}

// TestStallAtStart: the servers take a hub's connections and then say nothing more. The hub waits
// for them, and does not end.
func TestStallAtStart(t *testing.T) {
	dir := t.TempDir()
	ports := freePorts(t, 2)
	text, err := ServerConfig(dir, External{Name: "one", Listen: ports[0], WebSocket: ports[1], Store: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	startText(t, text)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var conns atomic.Int64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", ports[0])
			if err != nil {
				c.Close() // it is starting
				continue
			}
			stalls := conns.Add(1) <= 3
			go func() { io.Copy(s, c); s.Close() }()
			go func() {
				defer c.Close()
				b := make([]byte, 32<<10)
				for greeted := false; ; {
					n, err := s.Read(b)
					if err != nil {
						return
					}
					if !stalls || !greeted {
						c.Write(b[:n])
					}
					greeted = greeted || bytes.Contains(b[:n], pong)
				}
			}()
		}
	}()
	start(t, Config{Dir: dir, Servers: []string{"nats://" + l.Addr().String(), "ws://" + ports[1]}})
	if n := conns.Load(); n < 6 {
		t.Errorf("%d connections: it did not begin anew", n)
	}
}

func TestServerConfig(t *testing.T) {
	dir := t.TempDir()
	good := External{Name: "a", Listen: "127.0.0.1:1", WebSocket: "127.0.0.1:2", Store: `/var/lib/"odd"`}
	text, err := ServerConfig(dir, good)
	if err != nil {
		t.Fatal(err)
	}
	o := &server.Options{}
	if err := o.ProcessConfigString(text); err != nil {
		t.Fatal(err)
	}
	if o.StoreDir != good.Store || o.HTTPPort != 0 || o.HTTPSPort != 0 || o.ProfPort != 0 || !o.SyncAlways || o.Cluster.Port != 0 {
		t.Errorf("%+v", o)
	}
	k, _ := loadKeys(filepath.Join(dir, "keys"))
	for _, pair := range []interface{ Seed() ([]byte, error) }{k.operator, k.system, k.account, k.signer} {
		if seed, _ := pair.Seed(); strings.Contains(text, string(seed)) {
			t.Error("it holds a seed")
		}
	}
	for what, change := range map[string]func(*External){
		"name": func(e *External) { e.Name = "" }, "listen": func(e *External) { e.Listen = "here" }, "ws": func(e *External) { e.WebSocket = "" },
		"store": func(e *External) { e.Store = "" }, "key": func(e *External) { e.Cert = "x" }, "routes": func(e *External) { e.Routes = []string{"a:1"} },
	} {
		bad := good
		change(&bad)
		if _, err := ServerConfig(dir, bad); err == nil {
			t.Error("without", what)
		}
	}
}
