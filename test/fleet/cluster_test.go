package fleet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"selvedge/reconciler/hub"
	"selvedge/reconciler/hub/bus"
	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/test/hubproc"
	"selvedge/test/swarm"
)

// beNATS does what `nats-server -c FILE` does, until stdin ends.
func beNATS(name string) int {
	o, err := server.ProcessConfigFile(name)
	if err == nil {
		o.NoLog, o.NoSigs = true, true
		var s *server.Server
		if s, err = server.NewServer(o); err == nil {
			go s.Start()
			_, _ = io.Copy(io.Discard, os.Stdin)
			s.Shutdown()
			return 0
		}
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// free are addresses on which nobody listens.
func free(t *testing.T, n int) (all []string) {
	t.Helper()
	for len(all) < n {
		if addr := hubproc.FreeAddr(t); !slices.Contains(all, addr) {
			all = append(all, addr)
		}
	}
	return all
}

// authority makes a CA, and a certificate of it for servers on 127.0.0.1.
func authority(t *testing.T, dir string) (ca, cert, key string) {
	t.Helper()
	write := func(name, kind string, der []byte) string {
		name = filepath.Join(dir, name)
		must(t, os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return name
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bus"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, root, root, &caKey.PublicKey, caKey)
	must(t, err)
	ca = write("bus-ca.pem", "CERTIFICATE", der)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: root.NotBefore, NotAfter: root.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err = x509.CreateCertificate(rand.Reader, leaf, root, &own.PublicKey, caKey)
	must(t, err)
	cert = write("bus.pem", "CERTIFICATE", der)
	der, err = x509.MarshalPKCS8PrivateKey(own)
	must(t, err)
	return ca, cert, write("bus-key.pem", "PRIVATE KEY", der)
}

// TestCluster runs two hubs on three real NATS servers, then kills a server and a hub. Nodes
// go on through what is left, and both hubs tell the same.
func TestCluster(t *testing.T) {
	t.Parallel()
	n := 12
	b := newRoster(t, n)
	first, second := filepath.Join(b.dir, "hub"), filepath.Join(b.dir, "hub2")
	ca, cert, key := authority(t, b.dir)
	ports := free(t, 10)
	var addrs []string
	var servers []*exec.Cmd
	for i := range 3 {
		text, err := bus.ServerConfig(filepath.Join(first, hub.BusDir), bus.External{Name: fmt.Sprint("nats-", i), Listen: ports[i], WebSocket: ports[3+i], Cluster: ports[6+i], Routes: ports[6:9],
			Store: filepath.Join(b.dir, fmt.Sprint("nats-", i)), Cert: cert, Key: key, CA: ca})
		must(t, err)
		servers = append(servers, b.nats(filepath.Join(b.dir, fmt.Sprint("nats-", i, ".conf")), text))
		addrs = append(addrs, "tls://"+ports[i], "wss://"+ports[3+i])
	}
	other := "https://" + ports[9]
	urls := []string{b.url, other}
	b.hub = b.spawn(hubproc.Settings{DataDir: first, Listen: b.addr, URLs: urls, Bus: addrs, BusCA: ca})
	copyKeys(t, first, second)
	hub2 := b.spawn(hubproc.Settings{DataDir: second, Listen: ports[9], URLs: urls, Bus: addrs, BusCA: ca})
	t.Cleanup(func() { hub2.Process.Kill(); hub2.Wait() }) // it is killed

	s := b.swarm(swarm.Config{Hubs: urls, Interval: 300 * time.Millisecond, Retry: 500 * time.Millisecond, Ping: time.Second, Runs: 1, Granted: everything, Logs: pour})
	agree := func(what string, of ...string) {
		t.Helper()
		for _, url := range of {
			since := time.Now()
			b.until(40*time.Second, what+": all ready at "+url, func() bool {
				all, err := b.clientOf(url, "ana").Nodes(t.Context(), client.Query{})
				if err != nil {
					return false
				}
				for _, x := range all.Items {
					if x.Status != hubapi.Ready || !x.Connected || x.LastSeen.Before(since) {
						return false
					}
				}
				return len(all.Items) == n
			})
		}
	}
	agree("at first", urls...)
	for _, url := range urls { // whichever server and hub a node came by
		for name := range b.keys {
			if err := b.clientOf(url, "ana").Restart(t.Context(), name, hubapi.RestartRequest{App: "app-0"}); client.Reason(err) == hubapi.ReasonOffline || client.Reason(err) == hubapi.ReasonTimeout {
				t.Errorf("%s by %s: %v", name, url, err)
			}
		}
	}

	must(t, servers[0].Process.Kill())
	agree("a server was killed", urls...)

	must(t, hub2.Process.Signal(syscall.SIGKILL))
	agree("a hub was killed as well", b.url)
	if s.Connected() != n {
		t.Errorf("%d of %d nodes are connected", s.Connected(), n)
	}
	// what Git takes away holds on the rest of the cluster
	b.tell(roster.Event{Removed: []string{"node-3"}})
	b.until(20*time.Second, "the removed node to be out", func() bool { return s.Connected() == n-1 })
	// the hub comes back, and knows the same
	_ = hub2.Wait()
	n--
	hub2 = b.spawn(hubproc.Settings{DataDir: second, Listen: ports[9], URLs: urls, Bus: addrs, BusCA: ca})
	agree("the hub is back", urls...)
}
