// Package hubtest is a small hub for tests of the edge: a real NATS server in operator mode
// behind real TLS, and the exchange of package wire. It is honest unless told otherwise.
package hubtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

// Hub is the hub. Its fields may be changed under Lock.
type Hub struct {
	sync.Mutex
	T    testing.TB
	URL  string
	CA   []byte // PEM
	Pin  string // sha256: of the CA's DER
	Conn *nats.Conn

	Nodes    map[string]string // public key → name
	Pending  map[string]string // public key → code
	Tokens   map[string]bool   // join tokens that are left
	Docs     [][]byte          // root documents
	Life     time.Duration     // of bearers
	BusLife  time.Duration
	Images   []string
	Prefix   string
	Behind   time.Duration // this hub's clock against the real one
	V2       http.Handler  // behind PathV2, for those with a bearer
	Before   func(w http.ResponseWriter, r *http.Request) (answered bool)
	Asked    map[string]int // requests by path
	Joins    []wire.JoinRequest
	Bearers  map[string]string // bearer → node
	nonces   map[string]bool
	accounts nkeys.KeyPair
	server   *server.Server
	front    *httptest.Server
	conns    map[net.Conn]bool
}

// New starts a hub that ends with the test.
func New(t testing.TB) *Hub {
	t.Helper()
	return start(t, true)
}

// NewPlain starts one without TLS, as behind a tunnel that ends on the node.
func NewPlain(t testing.TB) *Hub {
	t.Helper()
	return start(t, false)
}

func start(t testing.TB, secure bool) *Hub {
	t.Helper()
	h := &Hub{T: t, Nodes: map[string]string{}, Pending: map[string]string{}, Tokens: map[string]bool{}, Life: time.Hour, BusLife: 24 * time.Hour,
		Asked: map[string]int{}, Bearers: map[string]string{}, nonces: map[string]bool{}, conns: map[net.Conn]bool{}}
	h.startBus()
	h.startFront(secure)
	return h
}

func (h *Hub) must(err error) {
	if err != nil {
		h.T.Helper()
		h.T.Fatal(err)
	}
}

func (h *Hub) startBus() {
	operator, err := nkeys.CreateOperator()
	h.must(err)
	system, err := nkeys.CreateAccount()
	h.must(err)
	h.accounts, err = nkeys.CreateAccount()
	h.must(err)
	resolver := &server.MemAccResolver{}
	for _, a := range []nkeys.KeyPair{system, h.accounts} {
		text, err := jwt.NewAccountClaims(public(a)).Encode(operator)
		h.must(err)
		h.must(resolver.Store(public(a), text))
	}
	claims := jwt.NewOperatorClaims(public(operator))
	claims.SystemAccount = public(system)
	text, err := claims.Encode(operator)
	h.must(err)
	claims, err = jwt.DecodeOperatorClaims(text)
	h.must(err)
	h.server, err = server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, TrustedOperators: []*jwt.OperatorClaims{claims},
		SystemAccount: public(system), AccountResolver: resolver, MaxPayload: wire.MaxMessage,
		Websocket: server.WebsocketOpts{Host: "127.0.0.1", Port: -1, NoTLS: true}})
	h.must(err)
	h.server.Start()
	h.T.Cleanup(h.server.Shutdown)
	if !h.server.ReadyForConnections(10 * time.Second) {
		h.T.Fatal("the bus does not start")
	}
	user, err := nkeys.CreateUser()
	h.must(err)
	token, err := jwt.NewUserClaims(public(user)).Encode(h.accounts)
	h.must(err)
	h.Conn, err = nats.Connect(h.server.ClientURL(), nats.UserJWT(func() (string, error) { return token, nil }, user.Sign))
	h.must(err)
	h.T.Cleanup(h.Conn.Close)
}

func public(k nkeys.KeyPair) string {
	p, _ := k.PublicKey()
	return p
}

func (h *Hub) startFront(secure bool) {
	ca, leaf := certificates(h)
	target, err := url.Parse("http://" + h.server.WebsocketURL()[len("ws://"):])
	h.must(err)
	mux := http.NewServeMux()
	mux.Handle(wire.PathBus, httputil.NewSingleHostReverseProxy(target))
	mux.HandleFunc("GET "+wire.PathNonce, h.nonce)
	mux.HandleFunc("POST "+wire.PathToken, h.token)
	mux.HandleFunc("POST "+wire.PathJoin, h.join)
	mux.HandleFunc("GET "+wire.PathTrust, func(w http.ResponseWriter, _ *http.Request) {
		h.Lock()
		defer h.Unlock()
		json.NewEncoder(w).Encode(wire.Trust{Documents: h.Docs})
	})
	mux.HandleFunc(wire.PathV2, h.v2)
	h.front = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.Lock()
		h.Asked[r.URL.Path]++
		before := h.Before
		h.Unlock()
		if before == nil || !before(w, r) {
			mux.ServeHTTP(w, r)
		}
	}))
	h.front.TLS = &tls.Config{Certificates: []tls.Certificate{leaf}}
	h.front.Config.ErrorLog = log.New(io.Discard, "", 0)
	h.front.Config.ConnState = func(c net.Conn, s http.ConnState) {
		h.Lock()
		defer h.Unlock()
		if s == http.StateClosed {
			delete(h.conns, c)
		} else {
			h.conns[c] = true
		}
	}
	if secure {
		h.front.StartTLS()
	} else {
		h.front.Start()
	}
	h.URL, h.CA, h.Pin = h.front.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca}), digest(ca)
	h.T.Cleanup(func() { h.Cut(); h.front.CloseClientConnections(); h.front.Close() })
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// certificates makes a CA and a certificate of it for loopback.
func certificates(h *Hub) (ca []byte, leaf tls.Certificate) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	h.must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	h.must(err)
	from := time.Now().Add(-time.Hour)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hub CA"}, NotBefore: from, NotAfter: from.AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	ca, err = x509.CreateCertificate(rand.Reader, root, root, &caKey.PublicKey, caKey)
	h.must(err)
	of := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "hub"}, NotBefore: from, NotAfter: from.AddDate(1, 0, 0),
		IPAddresses: []net.IP{net.ParseIP("127.0.0.1")}, DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, of, root, &key.PublicKey, caKey)
	h.must(err)
	return ca, tls.Certificate{Certificate: [][]byte{der, ca}, PrivateKey: key}
}

// Cut breaks all connections that nodes have.
func (h *Hub) Cut() {
	h.Lock()
	defer h.Unlock()
	for c := range h.conns {
		c.Close()
	}
	clear(h.conns)
}

func problem(w http.ResponseWriter, status int, kind, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"type": kind, "status": status, "title": detail})
}

func (h *Hub) nonce(w http.ResponseWriter, _ *http.Request) {
	h.Lock()
	defer h.Unlock()
	n := rand.Text()
	h.nonces[n] = true
	json.NewEncoder(w).Encode(wire.Nonce{Nonce: n})
}

func verify(key, signature string, message []byte) bool {
	k, err := nkeys.FromPublicKey(key)
	if err != nil {
		return false
	}
	sig, err := base64.StdEncoding.DecodeString(signature)
	return err == nil && k.Verify(message, sig) == nil
}

func (h *Hub) token(w http.ResponseWriter, r *http.Request) {
	h.Lock()
	defer h.Unlock()
	var q wire.TokenRequest
	json.NewDecoder(r.Body).Decode(&q)
	if !h.nonces[q.Nonce] || !verify(q.PublicKey, q.Signature, wire.TokenMessage(h.URL, q.Nonce)) {
		problem(w, http.StatusForbidden, "", "the signature does not fit")
		return
	}
	delete(h.nonces, q.Nonce)
	name, ok := h.Nodes[q.PublicKey]
	if !ok && h.Pending[q.PublicKey] != "" {
		problem(w, http.StatusForbidden, wire.ProblemPending, "waits for approval")
		return
	}
	if !ok {
		problem(w, http.StatusForbidden, wire.ProblemUnknownNode, "no node in Git has this key")
		return
	}
	bearer := rand.Text()
	h.Bearers[bearer] = name
	now := time.Now().Add(-h.Behind)
	json.NewEncoder(w).Encode(wire.Token{Node: name, Bus: h.NodeToken(name, q.PublicKey), Bearer: bearer, Now: now, Expires: now.Add(h.Life), Images: h.Images, Prefix: h.Prefix})
}

// NodeToken makes a bus token as the contract has it.
func (h *Hub) NodeToken(name, key string) string {
	u := jwt.NewUserClaims(key)
	u.Name = name
	u.Permissions.Pub.Allow.Add(wire.StatusSubject(name), wire.EventsSubject(name), wire.StreamSubject(name, ">"))
	u.Permissions.Sub.Allow.Add(wire.RequestSubject(name, ">"), wire.InboxPrefix(name)+".>")
	u.Permissions.Resp = &jwt.ResponsePermission{MaxMsgs: 1, Expires: wire.AnswerTime}
	u.Expires = time.Now().Add(h.BusLife).Unix()
	text, err := u.Encode(h.accounts)
	if err != nil {
		h.T.Error(err)
	}
	return text
}

func (h *Hub) join(w http.ResponseWriter, r *http.Request) {
	h.Lock()
	defer h.Unlock()
	var q wire.JoinRequest
	json.NewDecoder(r.Body).Decode(&q)
	switch {
	case !verify(q.PublicKey, q.Signature, wire.JoinMessage(h.URL, q)):
		problem(w, http.StatusForbidden, "", "the signature does not fit")
		return
	case !h.Tokens[q.Token]:
		problem(w, http.StatusForbidden, wire.ProblemJoinToken, "the token is not good")
		return
	}
	delete(h.Tokens, q.Token)
	h.Joins = append(h.Joins, q)
	h.Pending[q.PublicKey] = "CODE-" + strconv.Itoa(len(h.Joins))
	json.NewEncoder(w).Encode(wire.Joined{Code: h.Pending[q.PublicKey]})
}

// JoinUnheard does what a request to join asks for, and tells nobody.
func (h *Hub) JoinUnheard(r *http.Request) { h.join(httptest.NewRecorder(), r) }

func (h *Hub) v2(w http.ResponseWriter, r *http.Request) {
	bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	h.Lock()
	name, ok := h.Bearers[bearer]
	next := h.V2
	h.Unlock()
	own := "/v2/" + nodestate.NodeRepository(h.Prefix, name) + "/"
	switch {
	case !ok:
		problem(w, http.StatusUnauthorized, "", "no such bearer")
	case next == nil:
		problem(w, http.StatusNotFound, "", "nothing here")
	case strings.Contains(r.URL.Path, "/nodes/") && !strings.HasPrefix(r.URL.Path, own):
		problem(w, http.StatusForbidden, "", "another's")
	default:
		next.ServeHTTP(w, r)
	}
}

// Approve lets in whoever waits, under a name.
func (h *Hub) Approve(key, name string) {
	h.Lock()
	defer h.Unlock()
	delete(h.Pending, key)
	h.Nodes[key] = name
}

// Count returns how often a path was asked for.
func (h *Hub) Count(path string) int {
	h.Lock()
	defer h.Unlock()
	return h.Asked[path]
}
