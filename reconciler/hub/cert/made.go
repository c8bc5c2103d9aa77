package cert

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/netip"
	"os"
	"slices"
	"time"

	"selvedge/internal/atomicfile"
)

const (
	lifeCA    = 10 * 365 * 24 * time.Hour
	lifeLeaf  = 90 * 24 * time.Hour
	clocksOff = 24 * time.Hour // nodes' clocks may be behind by this
	tryAgain  = time.Minute    // after a renewal that did not work
	maxNames  = 100
)

// authority signs the hub's own certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (h *Certificate) openMade() error {
	if len(h.c.Names) == 0 || len(h.c.Names) > maxNames {
		return errors.New("a certificate of the hub's own needs 1 to 100 names or addresses that nodes dial")
	}
	if _, _, err := split(h.c.Names); err != nil {
		return err
	}
	if err := os.MkdirAll(h.c.Dir, 0o700); err != nil {
		return fmt.Errorf("make the hub's certificate: %w", err)
	}
	var err error
	if h.maker, err = h.loadAuthority(); err != nil {
		return err
	}
	h.ca = h.maker.cert
	if left := h.ca.NotAfter.Sub(h.c.Now()); left < 365*24*time.Hour {
		h.c.Log.Warn("the hub's own authority ends; nodes pin it, so plan to let them join anew with another", "at", h.ca.NotAfter, "file", h.path("ca.pem"))
	}
	if old, err := os.ReadFile(h.path("ca.crt")); err != nil || !bytes.Equal(old, h.CA()) {
		if err := atomicfile.Write(h.path("ca.crt"), h.CA(), 0o644); err != nil {
			return fmt.Errorf("write the authority's certificate: %w", err)
		}
	}
	if pair, err := load(h.path("hub.pem")); err == nil && h.current(pair) {
		h.leaf = pair
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h.c.Log.Warn("the hub's certificate is made anew", "error", err)
	}
	return h.renew()
}

// loadAuthority reads ca.pem, or makes it if there is none. One that is there and damaged is
// never replaced: nodes pin it.
func (h *Certificate) loadAuthority() (*authority, error) {
	name := h.path("ca.pem")
	pair, err := load(name)
	if errors.Is(err, fs.ErrNotExist) {
		return h.makeAuthority(name)
	}
	if err != nil {
		return nil, fmt.Errorf("the hub's authority %s cannot be read: %w; restore it, as nodes pin it, or remove it and let nodes join anew", name, err)
	}
	if info, err := os.Stat(name); err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s holds the key of the hub's authority and others may read it: chmod 600 it", name)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("%s is not the hub's authority: restore it, or remove it and let nodes join anew", name)
	}
	return &authority{pair.Leaf, key}, nil
}

func (h *Certificate) makeAuthority(name string) (*authority, error) {
	now := h.c.Now()
	if now.Year() < 2025 {
		return nil, fmt.Errorf("make the hub's authority: the clock says %s; set it first", now.UTC().Format(time.RFC3339))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Selvedge hub CA " + now.UTC().Format("2006-01-02")},
		NotBefore: now.Add(-clocksOff), NotAfter: now.Add(lifeCA),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	cert, err := write(name, template, template, key, key)
	if err != nil {
		return nil, fmt.Errorf("make the hub's authority: %w", err)
	}
	return &authority{cert.Leaf, key}, nil
}

// made returns the certificate, a new one if it is time.
func (h *Certificate) made() (*tls.Certificate, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// of all that current asks only the time changes; a handshake is no place for signatures
	if now := h.c.Now(); !h.timely(h.leaf) && (now.After(h.again) || now.Before(h.again.Add(-tryAgain))) {
		h.again = now.Add(tryAgain)
		if err := h.renew(); err != nil {
			h.c.Log.Error("the hub's certificate was not renewed; the old one stays in use, and it is tried again within a minute", "until", h.leaf.Leaf.NotAfter, "error", err)
		}
	}
	return h.leaf, nil
}

// current tells whether a certificate serves for now.
func (h *Certificate) current(pair *tls.Certificate) bool {
	dns, ips, err := split(h.c.Names)
	if err != nil || pair.Leaf == nil || pair.Leaf.CheckSignatureFrom(h.maker.cert) != nil {
		return false
	}
	var has []string
	for _, ip := range pair.Leaf.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok {
			has = append(has, a.Unmap().String())
		}
	}
	return slices.Equal(dns, pair.Leaf.DNSNames) && slices.Equal(ips, has) && h.timely(pair)
}

// timely tells whether a certificate is valid, and not yet to be renewed.
func (h *Certificate) timely(pair *tls.Certificate) bool {
	now, from, to := h.c.Now(), pair.Leaf.NotBefore, pair.Leaf.NotAfter
	renew := from.Add(clocksOff).Add((to.Sub(from) - clocksOff) * 2 / 3)
	if last := h.maker.cert.NotAfter; !to.Before(last) {
		renew = last // a newer one would not live longer
	}
	return now.After(from) && now.Before(renew)
}

func (h *Certificate) renew() error {
	dns, ips, err := split(h.c.Names)
	if err != nil {
		return err
	}
	now, last := h.c.Now(), h.maker.cert.NotAfter
	if !now.Before(last) || now.Before(h.maker.cert.NotBefore) {
		return fmt.Errorf("renew the hub's certificate: its authority %s is valid from %s to %s, and the clock says %s",
			h.path("ca.pem"), h.maker.cert.NotBefore.Format(time.RFC3339), last.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "Selvedge hub"},
		NotBefore: now.Add(-clocksOff), NotAfter: now.Add(lifeLeaf),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, DNSNames: dns,
	}
	if template.NotAfter.After(last) {
		template.NotAfter = last
	}
	for _, ip := range ips {
		template.IPAddresses = append(template.IPAddresses, netip.MustParseAddr(ip).AsSlice())
	}
	pair, err := write(h.path("hub.pem"), template, h.maker.cert, key, h.maker.key)
	if err != nil {
		return fmt.Errorf("renew the hub's certificate: %w", err)
	}
	h.leaf = pair
	h.c.Log.Info("the hub has a new certificate", "names", h.c.Names, "until", template.NotAfter)
	return nil
}

// write signs a certificate and keeps it with its key, and with its issuer's certificate, in
// one file: the halves cannot part.
func write(name string, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (*tls.Certificate, error) {
	var err error
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	blocks := []*pem.Block{{Type: "PRIVATE KEY", Bytes: keyDER}, {Type: "CERTIFICATE", Bytes: der}}
	if parent != template {
		blocks = append(blocks, &pem.Block{Type: "CERTIFICATE", Bytes: parent.Raw})
	}
	for _, block := range blocks {
		if err := pem.Encode(&b, block); err != nil {
			return nil, err
		}
	}
	if err := atomicfile.Write(name, b.Bytes(), 0o600); err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(b.Bytes(), b.Bytes())
	return &pair, err
}

func load(name string) (*tls.Certificate, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(b, b)
	return &pair, err
}

// split parts names from addresses, each sorted and once.
func split(names []string) (dns, ips []string, err error) {
	for _, n := range names {
		if a, err := netip.ParseAddr(n); err == nil && a.Zone() == "" {
			ips = append(ips, a.Unmap().String())
		} else if validDNS(n) {
			dns = append(dns, n)
		} else {
			return nil, nil, fmt.Errorf("%q is neither a DNS name nor an IP address that a certificate could be for", n)
		}
	}
	slices.Sort(dns)
	slices.Sort(ips)
	return slices.Compact(dns), slices.Compact(ips), nil
}

// validDNS is for names as x509 takes them: lower-case letters, digits, dashes, a wildcard in front.
func validDNS(n string) bool {
	if n == "" || len(n) > 253 {
		return false
	}
	labels := bytes.Split([]byte(n), []byte("."))
	for i, l := range labels {
		if i == 0 && len(labels) > 2 && string(l) == "*" {
			continue
		}
		if len(l) == 0 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for _, c := range l {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}
