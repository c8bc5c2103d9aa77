package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"selvedge/schema/wire"
)

// peerEnv makes this program one of the hub's peers, in a process of its own.
const peerEnv = "SELVEDGE_BENCH_PEER"

// peer runs until its input ends, and prints where it listens.
func peer(what string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	conf, err := selfSigned()
	if err != nil {
		return err
	}
	kind, to, _ := strings.Cut(what, " ")
	switch kind {
	case "nats":
		err = natsPeer(l, conf)
	case "proxy":
		err = proxyPeer(l, conf, to)
	default:
		err = fmt.Errorf("no peer %q", what)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, os.Stdin)
	}
	return err
}

// natsPeer is a bare NATS server with its own WebSocket, and one who listens.
func natsPeer(l net.Listener, conf *tls.Config) error {
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	s, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true, MaxConn: 1 << 16,
		Websocket: server.WebsocketOpts{Host: "127.0.0.1", Port: port, TLSConfig: conf}})
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("nats-server does not start")
	}
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err == nil {
		_, err = nc.Subscribe("n.>", func(*nats.Msg) {})
	}
	if err == nil {
		err = nc.Flush()
	}
	fmt.Printf("wss://127.0.0.1:%d\n", port)
	return err
}

// proxyPeer passes requests on.
func proxyPeer(l net.Listener, conf *tls.Config, to string) error {
	u, err := url.Parse(to)
	if err != nil {
		return err
	}
	p := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(u) },
		FlushInterval: -1,
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, // of our own, on loopback
	}
	fmt.Printf("https://%s\n", l.Addr())
	go func() { log.Print(http.Serve(tls.NewListener(l, conf), p)) }()
	return nil
}

func selfSigned() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, err
}

// startPeer starts this program as a peer and returns where it listens, and what ends it.
func startPeer(what string) (pid int, at string, end func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, "", nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), peerEnv+"="+what)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return 0, "", nil, err
	}
	end = sync.OnceFunc(func() { in.Close(); cmd.Wait() }) // it ends with its input
	at, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		end()
		return 0, "", nil, fmt.Errorf("peer %q: %w", what, err)
	}
	return cmd.Process.Pid, strings.TrimSpace(at), end, nil
}

// crowd is many plain connections that say as much as nodes do.
type crowd struct {
	conns []*nats.Conn
	wg    sync.WaitGroup
	stop  context.CancelFunc
}

func connectCrowd(ctx context.Context, at string, n int, say []byte) (*crowd, error) {
	ctx, stop := context.WithCancel(ctx)
	c := &crowd{stop: stop, conns: make([]*nats.Conn, n)}
	pace := rate.NewLimiter(500, 50)
	var g errgroup.Group
	g.SetLimit(100)
	var up atomic.Int64
	for i := range n {
		g.Go(func() (err error) {
			if err := pace.Wait(ctx); err != nil {
				return err
			}
			for range 5 { // a slow machine
				c.conns[i], err = nats.Connect(at, nats.Secure(&tls.Config{InsecureSkipVerify: true}), nats.Timeout(10*time.Second)) // of our own, on loopback
				if err == nil {
					up.Add(1)
					return nil
				}
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		c.close()
		return nil, fmt.Errorf("%d of %d connected to nats-server: %w", up.Load(), n, err)
	}
	c.wg.Go(func() { // each in turn, all within an interval
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for range max(1, n*10/int(wire.StatusInterval/time.Millisecond)) {
				c.conns[i%n].Publish(fmt.Sprintf("n.%d.st", i%n), say)
				i++
			}
		}
	})
	return c, nil
}

func (c *crowd) close() {
	c.stop()
	c.wg.Wait()
	for _, nc := range c.conns {
		if nc != nil {
			nc.Close()
		}
	}
}
