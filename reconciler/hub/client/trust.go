package client

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// DigestPrefix begins a pinned CA.
const DigestPrefix = "sha256:"

// errPin is the error of a chain without the pinned CA.
var errPin = errors.New("its certificate is not of the CA that is pinned")

// trust makes what the hub's certificate is checked by.
func trust(ca, host string) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	switch {
	case ca == "":
	case strings.HasPrefix(ca, DigestPrefix):
		want, err := hex.DecodeString(strings.TrimPrefix(ca, DigestPrefix))
		if err != nil || len(want) != sha256.Size {
			return nil, fmt.Errorf("CA %q: want sha256: and 64 hex digits, as the hub prints it", ca)
		}
		// instead of the usual check, and not without one: VerifyConnection runs on resumed
		// connections, too
		conf.InsecureSkipVerify = true
		conf.VerifyConnection = func(s tls.ConnectionState) error { return pinned(s.PeerCertificates, [32]byte(want), host) }
	default:
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, errors.New("CA: no certificate in PEM is in it")
		}
	}
	return conf, nil
}

// pinned checks a chain against the one CA of that digest.
func pinned(chain []*x509.Certificate, want [32]byte, host string) error {
	if len(chain) == 0 {
		return errPin
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	found := false
	for _, c := range chain {
		if sha256.Sum256(c.Raw) == want {
			roots.AddCert(c)
			found = true
		} else {
			between.AddCert(c)
		}
	}
	if !found {
		return errPin
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: host})
	return err
}

// untrusted gives the next step if an error is about the hub's certificate.
func untrusted(err error, ca string) string {
	if errors.Is(err, errPin) {
		return "ask who runs the hub whether its CA changed, and then log in again with the new one"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		if ca == "" {
			return "if the hub made its own certificate, log in with --ca sha256:… as the hub prints it"
		}
		return "log in again with the CA that the hub's certificate is of"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "use the name that the hub's certificate is for"
	}
	return ""
}
