package mirror_test

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"selvedge/edge/apply/containerd"
	"selvedge/edge/mirror"
	"selvedge/test/env"
)

func write(t *testing.T, dir string, via mirror.Via, hosts ...string) {
	t.Helper()
	if err := mirror.Write(dir, via, hosts); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var via = mirror.Via{Hub: "https://hub.example:8443", CAFile: "/var/lib/selvedge-edge/hub-ca.pem", Bearer: "one"}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs.d")
	write(t, dir, via, "ghcr.io", "registry.example:5000")
	name := filepath.Join(dir, "ghcr.io", "hosts.toml")
	for _, want := range []string{`server = "https://ghcr.io"`, `[host."https://hub.example:8443"]`, `capabilities = ["pull", "resolve"]`, `ca = "/var/lib/selvedge-edge/hub-ca.pem"`, `Authorization = ["Bearer one"]`} {
		if !strings.Contains(read(t, name), want) {
			t.Errorf("no %s in\n%s", want, read(t, name))
		}
	}
	if fi, _ := os.Stat(name); fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
	via := via
	via.Bearer = "two"
	write(t, dir, via, "ghcr.io")
	if !strings.Contains(read(t, name), "Bearer two") {
		t.Error("not renewed")
	}
	if _, err := os.Stat(filepath.Join(dir, "registry.example:5000")); err == nil {
		t.Error("what no host needs stays")
	}
	if err := mirror.Clear(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(name); err == nil {
		t.Error("not cleared")
	}
}

// What a person wrote stays, whatever the hub says.
func TestOthersFilesStay(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "ghcr.io", "hosts.toml")
	os.MkdirAll(filepath.Dir(name), 0o755)
	const mine = "server = \"https://mirror.example\"\n"
	os.WriteFile(name, []byte(mine), 0o644)
	write(t, dir, via, "ghcr.io")
	write(t, dir, via)
	if read(t, name) != mine {
		t.Error("overwritten")
	}
}

func TestHostsThatAreNone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs.d")
	for _, h := range []string{"", ".", "..", "../x", "a/b", "a\nb", `a"b`, "-", strings.Repeat("a", 256), "a:b", "_default"} {
		if mirror.Write(dir, via, []string{h}) == nil {
			t.Errorf("%q is taken", h)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("%v", entries)
	}
	write(t, dir, via, "[2001:db8::1]:5000", "10.0.0.1", "a.b-c:1")
}

// Containerd pulls through a hub that wants the token and is vouched for by its CA only; the
// registry itself does not exist. Renewing the token needs no restart of anything.
func TestPull(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a containerd: too long for -short")
	}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	plain := httptest.NewServer(inner)
	defer plain.Close()
	var mu sync.Mutex
	token, asked, refused := "one", map[string]bool{}, 0
	hub := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		ok := r.Header.Get("Authorization") == "Bearer "+token
		if asked[r.URL.Query().Get("ns")] = true; !ok {
			refused++
		}
		mu.Unlock()
		if !ok {
			w.Header().Set("WWW-Authenticate", `Bearer realm="https://hub.example"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.Header.Del("Range") // this registry knows no open-ended ranges
		inner.ServeHTTP(w, r)
	}))
	defer hub.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hub.Certificate().Raw}), 0o600)
	d := env.Containerd(t)
	conf := containerd.Config{Address: d.Address, Namespace: "mirror", DataDir: filepath.Join(d.Dir, "m"), RunDir: filepath.Join(d.Dir, "r"), HostsDir: filepath.Join(d.Dir, "certs.d"), Bridge: "slvmirror"}
	rt := containerd.New(conf)
	defer rt.Close()
	host := strings.TrimPrefix(plain.URL, "http://")
	through := func(tag string) string {
		return strings.Replace(env.Image(t, host, "hello", tag), host, "registry.invalid:5000", 1)
	}
	via := mirror.Via{Hub: hub.URL, CAFile: ca, Bearer: "wrong"}
	write(t, conf.HostsDir, via, "registry.invalid:5000")
	first := through("v1")
	if rt.Pull(t.Context(), first) == nil || refused == 0 {
		t.Fatal("pulled without the token")
	}
	via.Bearer = "one"
	write(t, conf.HostsDir, via, "registry.invalid:5000")
	if err := rt.Pull(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if !asked["registry.invalid:5000"] {
		t.Errorf("asked for %v", asked)
	}
	token = "two"
	mu.Unlock()
	via.Bearer = "two"
	write(t, conf.HostsDir, via, "registry.invalid:5000")
	if err := rt.Pull(t.Context(), through("v2")); err != nil {
		t.Fatal(err)
	}
}
