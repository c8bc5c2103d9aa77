package cert

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"selvedge/internal/serve"
)

// Config configures a Certificate: either CertFile and KeyFile, or Dir and Names.
type Config struct {
	CertFile string // PEM chain
	KeyFile  string
	CAFile   string // PEM, with CertFile: what nodes shall pin; empty: a public authority

	Dir   string   // made if missing
	Names []string // DNS names and IP addresses

	Log *slog.Logger     // nil: slog.Default()
	Now func() time.Time // nil: time.Now
}

// Certificate is what the hub shows. It is safe for concurrent use.
type Certificate struct {
	c           Config
	files       func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	ca          *x509.Certificate // nil: public
	fingerprint string

	mu    sync.Mutex
	maker *authority
	leaf  *tls.Certificate
	again time.Time // try no renewal before
}

// Open loads the certificate or makes it.
func Open(c Config) (*Certificate, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	h := &Certificate{c: c}
	var err error
	switch {
	case (c.CertFile == "") != (c.KeyFile == ""):
		return nil, errors.New("a certificate needs its key, and a key its certificate")
	case c.CertFile != "":
		err = h.openFiles()
	case c.CAFile != "":
		return nil, fmt.Errorf("%s is for certificates from files; give a certificate and its key as well", c.CAFile)
	default:
		err = h.openMade()
	}
	if err != nil {
		return nil, err
	}
	if h.ca != nil {
		sum := sha256.Sum256(h.ca.Raw)
		h.fingerprint = "sha256:" + hex.EncodeToString(sum[:])
	}
	return h, nil
}

func (h *Certificate) openFiles() error {
	var err error
	if h.files, err = serve.Files(h.c.CertFile, h.c.KeyFile, h.c.Log); err != nil {
		return err
	}
	if h.c.CAFile == "" {
		return nil
	}
	b, err := os.ReadFile(h.c.CAFile)
	if err != nil {
		return fmt.Errorf("read CA: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return fmt.Errorf("read CA %s: no certificate in it", h.c.CAFile)
	}
	if h.ca, err = x509.ParseCertificate(block.Bytes); err != nil {
		return fmt.Errorf("read CA %s: %w", h.c.CAFile, err)
	}
	pair, err := h.files(nil)
	if err != nil {
		return err
	}
	if err := h.signed(pair); err != nil {
		return fmt.Errorf("%s is not signed by the CA of %s: %w", h.c.CertFile, h.c.CAFile, err)
	}
	return nil
}

// signed checks a chain as a node does that pins the CA, apart from names and time.
func (h *Certificate) signed(pair *tls.Certificate) error {
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return err
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(h.ca)
	for _, der := range pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: leaf.NotBefore.Add(time.Second)})
	return err
}

// Get is for [tls.Config]'s GetCertificate.
func (h *Certificate) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if h.files == nil {
		return h.made()
	}
	pair, err := h.files(hello)
	if err != nil || h.ca == nil {
		return pair, err
	}
	for _, der := range pair.Certificate {
		if bytes.Equal(der, h.ca.Raw) {
			return pair, nil
		}
	}
	whole := *pair // who pins the CA must see it
	whole.Certificate = append(append([][]byte(nil), pair.Certificate...), h.ca.Raw)
	return &whole, nil
}

// Fingerprint is sha256: and the digest of the CA's certificate (DER), for join lines to pin;
// empty for a public CA.
func (h *Certificate) Fingerprint() string { return h.fingerprint }

// CA returns the CA's certificate as PEM, nil for a public CA.
func (h *Certificate) CA() []byte {
	if h.ca == nil {
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.ca.Raw})
}

func (h *Certificate) path(name string) string { return filepath.Join(h.c.Dir, name) }
