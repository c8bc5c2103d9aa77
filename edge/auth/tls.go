package auth

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"regexp"
	"time"
)

// unset is before any time at which this program ran: a clock before it is a machine's without a battery.
var unset = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

var pinRE = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// ErrPin marks a hub whose certificate does not go back to the one that was pinned.
var ErrPin = errors.New("the hub's certificate is not vouched for by the one that was pinned")

// TLS returns a configuration for connections to the hubs, the caller's own.
func (c *Client) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// verified below: a pinned digest, and a clock that was never set, are beyond crypto/tls
		InsecureSkipVerify: true,
		VerifyConnection:   c.verify,
	}
}

func (c *Client) verify(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the hub has no certificate")
	}
	names := []string{s.ServerName}
	if s.ServerName == "" { // an IP address, which the handshake does not carry
		names = c.addresses
	}
	var err error
	for _, name := range names {
		if err = c.chain(s.PeerCertificates, name); err == nil {
			return nil
		}
	}
	if err == nil {
		err = errors.New("no name to check the certificate against")
	}
	return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
}

func (c *Client) chain(certs []*x509.Certificate, name string) error {
	now := c.cfg.Now()
	opts := x509.VerifyOptions{DNSName: name, Intermediates: x509.NewCertPool(), Roots: c.roots, CurrentTime: now}
	for _, cert := range certs {
		opts.Intermediates.AddCert(cert)
		if now.Before(unset) {
			opts.CurrentTime = latest(opts.CurrentTime, cert.NotBefore)
		}
	}
	if c.cfg.Pin == "" {
		_, err := certs[0].Verify(opts)
		return err
	}
	for _, cert := range certs {
		if Digest(cert.Raw) != c.cfg.Pin {
			continue
		}
		opts.Roots = x509.NewCertPool()
		opts.Roots.AddCert(cert)
		if _, err := certs[0].Verify(opts); err != nil {
			return err
		}
		c.mu.Lock()
		c.pinned = cert
		c.mu.Unlock()
		return nil
	}
	return fmt.Errorf("%w (%s): either the join line is for another hub, or somebody stands between", ErrPin, c.cfg.Pin)
}

// CA returns the pinned certificate in PEM form, once a hub has shown it, or the CA that was given.
func (c *Client) CA() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pinned != nil {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.pinned.Raw})
	}
	return c.cfg.CA
}

// Digest returns what a pin is compared with: sha256: and the hex digest of a certificate's DER.
func Digest(der []byte) string {
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ValidPin reports whether a text is a digest as Digest writes it.
func ValidPin(s string) bool { return pinRE.MatchString(s) }

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func isAddress(host string) bool { return net.ParseIP(host) != nil }
