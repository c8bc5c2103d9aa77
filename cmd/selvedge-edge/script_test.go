package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/sigstore/sigstore/pkg/signature"

	"selvedge/edge/hubtest"
	"selvedge/schema/trust"
	"selvedge/schema/wire"
	"selvedge/test/script"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"selvedge-edge": func() { os.Exit(run()) }})
}

// TestScripts gives each script a root document, 1.root.json with its $FINGERPRINT, and
// that of another platform below other/.
func TestScripts(t *testing.T) {
	doc, fingerprint := root(t)
	other, _ := root(t)
	script.RunWith(t, func(e *testscript.Env) error {
		e.Setenv("FINGERPRINT", fingerprint)
		if err := os.Mkdir(filepath.Join(e.WorkDir, "other"), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(e.WorkDir, "other", "1.root.json"), other, 0o644); err != nil {
			return err
		}
		hub(t, e, doc)
		return os.WriteFile(filepath.Join(e.WorkDir, "1.root.json"), doc, 0o644)
	})
}

// hub gives a script a hub at $HUB whose CA has the digest $PIN and stands in ca.pem, with the
// join tokens one and two. The first who asks to join finds it busy. It
// lets in who waits once a file named approve holds a name.
func hub(t *testing.T, e *testscript.Env, doc []byte) {
	h := hubtest.New(t)
	h.Docs = [][]byte{doc}
	h.Tokens["one"], h.Tokens["two"] = true, true
	h.Before = func(w http.ResponseWriter, r *http.Request) bool {
		busy := r.URL.Path == wire.PathJoin && h.Count(wire.PathJoin) == 1
		if busy {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return busy
	}
	e.Setenv("HUB", h.URL)
	e.Setenv("PIN", h.Pin)
	if err := os.WriteFile(filepath.Join(e.WorkDir, "ca.pem"), h.CA, 0o644); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	e.Defer(func() { close(stop); <-stopped })
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			name, err := os.ReadFile(filepath.Join(e.WorkDir, "approve"))
			if err != nil {
				continue
			}
			h.Lock()
			for key := range h.Pending {
				delete(h.Pending, key)
				h.Nodes[key] = strings.TrimSpace(string(name))
			}
			h.Unlock()
		}
	}()
}

func root(t *testing.T) (doc []byte, fingerprint string) {
	t.Helper()
	var keys [2]*ecdsa.PrivateKey
	for i := range keys {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = k
	}
	d, err := trust.New([]crypto.PublicKey{keys[0].Public()}, 1, []crypto.PublicKey{keys[1].Public()})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := signature.LoadECDSASignerVerifier(keys[0], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Sign(signer); err != nil {
		t.Fatal(err)
	}
	if doc, err = d.Bytes(); err != nil {
		t.Fatal(err)
	}
	r, err := trust.Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	return doc, r.Fingerprint()
}
