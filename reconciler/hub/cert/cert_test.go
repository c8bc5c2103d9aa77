package cert

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var quiet = slog.New(slog.DiscardHandler)

// clock is one that a test sets.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = t
}

func open(t *testing.T, c Config) *Certificate {
	t.Helper()
	c.Log = quiet
	h, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// shake dials over real TLS as a node with a pin does, and returns what it saw.
func shake(t *testing.T, h *Certificate, name, pin string, at time.Time) (*x509.Certificate, error) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetCertificate: h.Get})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := l.Accept()
		if err == nil {
			io.Copy(io.Discard, c)
			c.Close()
		}
	})
	defer wg.Wait()
	var leaf *x509.Certificate
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, ServerName: name, VerifyConnection: func(s tls.ConnectionState) error {
		leaf = s.PeerCertificates[0]
		o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), DNSName: name, CurrentTime: at}
		for _, c := range s.PeerCertificates {
			if sum := sha256.Sum256(c.Raw); "sha256:"+hex.EncodeToString(sum[:]) == pin {
				o.Roots.AddCert(c)
			} else {
				o.Intermediates.AddCert(c)
			}
		}
		_, err := leaf.Verify(o)
		return err
	}})
	if err == nil {
		c.Close()
	}
	return leaf, err
}

func TestSelfMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	now := &clock{at: time.Now()}
	c := Config{Dir: dir, Names: []string{"hub.example", "127.0.0.1", "::1", "hub.example"}, Now: now.now}
	h := open(t, c)
	pin := h.Fingerprint()
	for _, name := range []string{"hub.example", "127.0.0.1", "::1"} {
		for _, off := range []time.Duration{0, -23 * time.Hour, 23 * time.Hour} { // the node's clock
			if _, err := shake(t, h, name, pin, time.Now().Add(off)); err != nil {
				t.Errorf("%s, clock off by %v: %v", name, off, err)
			}
		}
	}
	if _, err := shake(t, h, "other.example", pin, time.Now()); err == nil {
		t.Error("good for another name")
	}
	if _, err := shake(t, h, "hub.example", "sha256:"+strings.Repeat("0", 64), time.Now()); err == nil {
		t.Error("good with another pin")
	}
	first, err := shake(t, h, "hub.example", pin, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if first.IsCA || first.NotAfter.Sub(now.at) > lifeLeaf || first.PublicKey.(*ecdsa.PublicKey).Curve != elliptic.P256() {
		t.Errorf("%+v", first)
	}
	for name, mode := range map[string]os.FileMode{"ca.pem": 0o600, "hub.pem": 0o600, "ca.crt": 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "ca.crt")); err != nil || !bytes.Equal(b, h.CA()) || bytes.Contains(b, []byte("PRIVATE")) {
		t.Errorf("%s %v", b, err)
	}
	// a restart keeps both, other names keep the authority
	again, err := shake(t, open(t, c), "hub.example", pin, time.Now())
	if err != nil || !again.Equal(first) {
		t.Error("a restart made another:", err)
	}
	c.Names = append(c.Names, "new.example")
	h = open(t, c)
	if _, err := shake(t, h, "new.example", pin, time.Now()); err != nil || h.Fingerprint() != pin {
		t.Error("another name:", err)
	}
	// a damaged certificate is made anew
	if err := os.WriteFile(filepath.Join(dir, "hub.pem"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := shake(t, open(t, c), "new.example", pin, time.Now()); err != nil {
		t.Error(err)
	}
}

func TestRenewal(t *testing.T) {
	start := time.Now()
	now := &clock{at: start}
	h := open(t, Config{Dir: t.TempDir(), Names: []string{"hub.example"}, Now: now.now})
	serial := func() string {
		t.Helper()
		leaf, err := shake(t, h, "hub.example", h.Fingerprint(), now.now())
		if err != nil {
			t.Fatal(now.now(), err)
		}
		return leaf.SerialNumber.String()
	}
	day := 24 * time.Hour
	first := serial()
	for _, step := range []struct {
		at  time.Duration
		new bool
	}{{59 * day, false}, {61 * day, true}, {120 * day, false}, {122 * day, true}, {-12 * time.Hour, true}, {0, false}, {3649 * day, true}, {3649*day + time.Hour, false}} {
		now.set(start.Add(step.at))
		if s := serial(); (s != first) != step.new {
			t.Errorf("after %v: renewed is %v", step.at, s != first)
		} else {
			first = s
		}
	}
	// a disk that takes nothing: the old one stays in use
	h.c.Dir = filepath.Join(h.c.Dir, "none")
	now.set(start.Add(200 * day))
	if pair, err := h.Get(nil); err != nil || pair.Leaf.SerialNumber.String() != first {
		t.Error(pair, err)
	}
}

func TestAuthorityIsNeverReplaced(t *testing.T) {
	for name, damage := range map[string]func(file string) error{
		"damaged": func(f string) error { return os.WriteFile(f, []byte("half"), 0o600) },
		"empty":   func(f string) error { return os.WriteFile(f, nil, 0o600) },
		"world":   func(f string) error { return os.Chmod(f, 0o644) },
		"no authority": func(f string) error {
			b, err := os.ReadFile(filepath.Join(filepath.Dir(f), "hub.pem"))
			os.WriteFile(f, b, 0o600)
			return err
		},
		"a folder here": func(f string) error { os.Remove(f); return os.Mkdir(f, 0o700) },
	} {
		c := Config{Dir: t.TempDir(), Names: []string{"hub.example"}, Log: quiet}
		open(t, c)
		if err := damage(filepath.Join(c.Dir, "ca.pem")); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(c); err == nil {
			t.Errorf("%s: a hub starts", name)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	past := func() time.Time { return time.Date(1970, 1, 1, 1, 0, 0, 0, time.UTC) }
	for name, c := range map[string]Config{
		"no names":         {Dir: t.TempDir()},
		"a name with path": {Dir: t.TempDir(), Names: []string{"hub/x"}},
		"an upper name":    {Dir: t.TempDir(), Names: []string{"HUB"}},
		"an empty name":    {Dir: t.TempDir(), Names: []string{""}},
		"two dots":         {Dir: t.TempDir(), Names: []string{"a..b"}},
		"a zone":           {Dir: t.TempDir(), Names: []string{"fe80::1%eth0"}},
		"too many names":   {Dir: t.TempDir(), Names: make([]string, 101)},
		"1970":             {Dir: t.TempDir(), Names: []string{"hub.example"}, Now: past},
		"no key":           {CertFile: "x"},
		"no certificate":   {KeyFile: "x"},
		"no such file":     {CertFile: "/none", KeyFile: "/none"},
		"a CA without":     {CAFile: "x", Dir: t.TempDir(), Names: []string{"hub.example"}},
	} {
		c.Log = quiet
		if _, err := Open(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// authorityFiles writes a root, below it an intermediate, and below that a leaf, as companies have them.
func authorityFiles(t *testing.T, dir string, serial int64) (ca, cert, key string) {
	t.Helper()
	var parent *x509.Certificate
	var parentKey *ecdsa.PrivateKey
	var chain bytes.Buffer
	ca, cert, key = filepath.Join(dir, "root.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	put := func(name string, b []byte) {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{"root", "between", "leaf"} {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: i < 2}
		if i == 2 {
			c.DNSNames, c.IPAddresses = []string{"hub.example"}, []net.IP{{127, 0, 0, 1}}
		}
		c.SerialNumber = big.NewInt(serial + int64(i))
		if parent == nil {
			parent, parentKey = c, k
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, k.Public(), parentKey)
		if err != nil {
			t.Fatal(err)
		}
		if parent, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
		parentKey = k
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		if i == 0 {
			put(ca, block)
		} else { // the leaf first
			rest := append([]byte(nil), chain.Bytes()...)
			chain.Reset()
			chain.Write(block)
			chain.Write(rest)
		}
		if i == 2 {
			b, err := x509.MarshalPKCS8PrivateKey(k)
			if err != nil {
				t.Fatal(err)
			}
			put(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}))
			put(cert, chain.Bytes())
		}
	}
	return ca, cert, key
}

func TestFromFiles(t *testing.T) {
	dir := t.TempDir()
	ca, cert, key := authorityFiles(t, dir, 1)
	if h := open(t, Config{CertFile: cert, KeyFile: key}); h.Fingerprint() != "" || h.CA() != nil {
		t.Error("a public authority has a fingerprint:", h.Fingerprint())
	}
	h := open(t, Config{CertFile: cert, KeyFile: key, CAFile: ca})
	if _, err := shake(t, h, "hub.example", h.Fingerprint(), time.Now()); err != nil {
		t.Error("the pinned CA is not sent along:", err)
	}
	other, _, _ := authorityFiles(t, t.TempDir(), 10)
	if _, err := Open(Config{CertFile: cert, KeyFile: key, CAFile: other, Log: quiet}); err == nil {
		t.Error("a CA that did not sign it was accepted")
	}
	for _, bad := range []string{key, filepath.Join(dir, "none"), dir} {
		if _, err := Open(Config{CertFile: cert, KeyFile: key, CAFile: bad, Log: quiet}); err == nil {
			t.Errorf("%s was accepted as a CA", bad)
		}
	}
}
