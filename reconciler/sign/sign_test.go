package sign_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/sigstore/sigstore/pkg/signature"

	"selvedge/reconciler/sign"
	"selvedge/schema/nodestate"
)

// keyPair and signer are made once: scrypt is slow on purpose, and ten times so with -race.
var (
	keyPair = sync.OnceValues(func() ([2][]byte, error) {
		private, public, err := sign.GenerateKeyPair([]byte("secret"))
		return [2][]byte{private, public}, err
	})
	signer = sync.OnceValues(func() (*sign.Signer, error) {
		k, err := keyPair()
		if err != nil {
			return nil, err
		}
		return sign.Load(k[0], []byte("secret"))
	})
)

func load(t testing.TB) *sign.Signer {
	t.Helper()
	s, err := signer()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLoad(t *testing.T) {
	k, err := keyPair()
	if err != nil {
		t.Fatal(err)
	}
	pub, err := load(t).PublicPEM()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(pub, k[1]) {
		t.Fatal("the public key is not that of the pair")
	}
}

func meta(node string, generation int64) sign.Meta {
	return sign.Meta{Node: node, Generation: generation, Commit: strings.Repeat("ab", 20), Created: time.Unix(1700000000, 0)}
}

func TestSign(t *testing.T) {
	s := load(t)
	content := []byte(strings.Repeat(`{"apiVersion":"selvedge.dev/node-state/v1"}`, 50))
	a, err := s.Sign(content, meta("gw-7", 42))
	if err != nil {
		t.Fatal(err)
	}
	if a.Node != "gw-7" || a.Generation != 42 || a.ContentDigest != nodestate.Digest(content) {
		t.Fatalf("%+v", a)
	}
	u, err := nodestate.Unpack(a.Signed)
	if err != nil {
		t.Fatal(err)
	}
	if u.Node != "gw-7" || u.Generation != 42 {
		t.Fatalf("unpacked %s %d", u.Node, u.Generation)
	}
	for key, want := range map[string]string{
		nodestate.AnnotationCommit: strings.Repeat("ab", 20), nodestate.AnnotationCreated: "2023-11-14T22:13:20Z",
	} {
		if got := u.Inner.Annotations[key]; got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	if got, err := dec.DecodeAll(u.Layer, nil); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("layer: %v, %d bytes", err, len(got))
	}

	var b struct {
		VerificationMaterial struct{ PublicKey struct{ Hint string } }
		DsseEnvelope         struct {
			Payload    []byte
			Signatures []struct{ Sig []byte }
		}
	}
	if err := json.Unmarshal(u.Bundle, &b); err != nil {
		t.Fatal(err)
	}
	if b.VerificationMaterial.PublicKey.Hint != s.Hint() {
		t.Error("hint")
	}
	if !bytes.Contains(b.DsseEnvelope.Payload, []byte(strings.TrimPrefix(u.ManifestDigest, "sha256:"))) {
		t.Error("the statement is not about the manifest")
	}

	// the same state makes the same manifest
	other, err := sign.New(s.Key())
	if err != nil {
		t.Fatal(err)
	}
	again, err := other.Sign(content, meta("gw-7", 42))
	if err != nil {
		t.Fatal(err)
	}
	u2, err := nodestate.Unpack(again.Signed)
	if err != nil {
		t.Fatal(err)
	}
	if u2.ManifestDigest != u.ManifestDigest {
		t.Error("the manifest is not deterministic")
	}
}

func TestSignLargest(t *testing.T) {
	content := make([]byte, nodestate.MaxStateSize)
	if _, err := rand.Read(content); err != nil { // does not compress
		t.Fatal(err)
	}
	s := load(t)
	a, err := s.Sign(content, meta("gw-7", 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nodestate.Unpack(a.Signed); err != nil {
		t.Fatal(err)
	}
}

func TestSignRefuses(t *testing.T) {
	s := load(t)
	for name, m := range map[string]sign.Meta{
		"no node":        meta("", 1),
		"bad node":       meta("GW", 1),
		"slash":          meta("a/b", 1),
		"generation 0":   meta("a", 0),
		"too high":       meta("a", nodestate.MaxGeneration+1),
		"commit no hex":  {Node: "a", Generation: 1, Commit: "main"},
		"commit endless": {Node: "a", Generation: 1, Commit: strings.Repeat("a", 65)},
	} {
		if _, err := s.Sign([]byte("{}"), m); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	if _, err := s.Sign(nil, meta("a", 1)); err == nil {
		t.Error("nothing: signed")
	}
	if _, err := s.Sign(make([]byte, nodestate.MaxStateSize+1), meta("a", 1)); err == nil {
		t.Error("too large: signed")
	}
}

func TestLoadRefuses(t *testing.T) {
	k, err := keyPair()
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	other, err := signature.LoadECDSASignerVerifier(p384, crypto.SHA384)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sign.New(other); !errors.Is(err, sign.ErrKey) || !strings.Contains(err.Error(), "P-256") {
		t.Error(err)
	}
	block := func(typ string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: b}) }
	for name, tc := range map[string]struct {
		key      []byte
		password string
		want     error
		text     string
	}{
		"wrong password": {k[0], "Secret", sign.ErrPassword, "COSIGN_PASSWORD"},
		"public half":    {k[1], "secret", sign.ErrKey, "public key"},
		"not PEM":        {[]byte("secret"), "secret", sign.ErrKey, "no PEM block"},
		"empty":          {nil, "secret", sign.ErrKey, "no PEM block"},
		"plain key":      {block("PRIVATE KEY", der), "secret", sign.ErrKey, "import-key-pair"},
		"rubbish in it":  {block("ENCRYPTED SIGSTORE PRIVATE KEY", []byte("rubbish")), "secret", sign.ErrKey, ""},
		"too large":      {make([]byte, 1<<20), "secret", sign.ErrKey, "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := sign.Load(tc.key, []byte(tc.password))
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("error %v", err)
			}
		})
	}
}

func TestLoadFile(t *testing.T) {
	k, err := keyPair()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "cosign.key")
	if _, err := sign.LoadFile(name, nil); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), name) {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, k[0], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sign.LoadFile(name, []byte("")); !errors.Is(err, sign.ErrPassword) || !strings.Contains(err.Error(), name) {
		t.Fatal(err)
	}
}

func TestSignConcurrently(t *testing.T) {
	s := load(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for g := range int64(50) {
				if _, err := s.Sign([]byte("{}"), meta("a", g+1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkSign(b *testing.B) {
	s := load(b)
	content := []byte(strings.Repeat(`{"apiVersion":"selvedge.dev/node-state/v1","node":"gw-7"}`, 80)) // 4.5 KB
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		if _, err := s.Sign(content, meta("gw-7", 42)); err != nil {
			b.Fatal(err)
		}
	}
}
