package containerd_test

import (
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sys/unix"

	"selvedge/edge/apply/containerd"
	"selvedge/test/env"
)

func impatient(c *containerd.Config) { c.Stall = 2 * time.Second }

func TestPullErrors(t *testing.T) {
	t.Parallel()
	b := newBed(t, impatient)
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(nil))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().String()
	l.Close()
	release := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-release:
		}
	}))
	defer hangs.Close()
	defer close(release)
	for _, c := range []struct{ name, ref, want string }{
		{"no digest", b.host + "/hello:v1", "has no digest; write it as name@sha256:…"},
		{"not a digest", b.host + "/hello@sha256:1234", "write it as name@sha256:…"},
		{"not in the registry", b.host + "/hello@" + digest, "the registry does not have it"},
		{"no such repository", b.host + "/nothing@" + digest, "the registry does not have it"},
		{"nobody there", closed + "/hello@" + digest, "the registry cannot be reached"},
		{"slow", strings.TrimPrefix(hangs.URL, "http://") + "/hello@" + digest, "the registry sends nothing since 2s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := b.Pull(t.Context(), c.ref); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("pull says %v", err)
			}
		})
	}
}

// An index without an image for this node's processor says so.
func TestPullOtherPlatform(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	img, err := env.BuildImage("1")
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{
		Add:        img,
		Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "mips64"}},
	})
	repo, err := name.NewTag(b.host+"/elsewhere:v1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(repo, index); err != nil {
		t.Fatal(err)
	}
	d, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Pull(t.Context(), b.host+"/elsewhere@"+d.String()); err == nil || !strings.Contains(err.Error(), "not made for this node's processor") {
		t.Errorf("pull says %v", err)
	}
}

// A blob that trickles to a stop ends the pull too, and a later try succeeds.
func TestPullStallsInABlob(t *testing.T) {
	t.Parallel()
	b := privateBed(t, impatient) // a shared one may have the layer already
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	var stall = make(chan bool, 100)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			select {
			case <-stall:
				whole := httptest.NewRecorder()
				inner.ServeHTTP(whole, r)
				w.Header().Set("Content-Length", fmt.Sprint(whole.Body.Len()))
				w.Write(whole.Body.Bytes()[:8])
				w.(http.Flusher).Flush()
				<-r.Context().Done()
				return
			default:
			}
		}
		r.Header.Del("Range") // this registry knows no open-ended ranges
		inner.ServeHTTP(w, r)
	}))
	defer srv.Close()
	ref := env.Image(t, strings.TrimPrefix(srv.URL, "http://"), "hello", "v2")
	for range cap(stall) {
		stall <- true
	}
	if err := b.Pull(t.Context(), ref); err == nil || !strings.Contains(err.Error(), "sends nothing") {
		t.Errorf("pull says %v", err)
	}
	for len(stall) > 0 {
		<-stall
	}
	patient := b.conf
	patient.Stall = 0
	again := containerd.New(patient)
	defer again.Close()
	if err := again.Pull(t.Context(), ref); err != nil {
		t.Error(err)
	}
}

// InsecureRegistry would turn certificate checks off everywhere: hosts.toml says whom to trust.
func TestCertificatesAreChecked(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	srv := httptest.NewTLSServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer srv.Close()
	host := strings.Replace(strings.TrimPrefix(srv.URL, "https://"), "127.0.0.1", "localhost", 1)
	l, err := net.Listen("tcp", env.LAN+":0")
	if err != nil {
		t.Fatal(err)
	}
	plain := &httptest.Server{Listener: l, Config: &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}}
	plain.Start()
	defer plain.Close()
	err = b.Pull(t.Context(), l.Addr().String()+"/hello@"+strings.SplitN(b.image, "@", 2)[1])
	if err == nil || !strings.Contains(err.Error(), "plain http is for loopback only") {
		t.Errorf("plain http beyond loopback: %v", err)
	}
	img, err := env.BuildImage("v3")
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.ParseReference(strings.TrimPrefix(srv.URL, "https://") + "/hello:v3")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img, remote.WithTransport(srv.Client().Transport)); err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	ref := host + "/hello@" + d.String()
	if err := b.Pull(t.Context(), ref); err == nil {
		t.Error("pulled from a registry with an unknown certificate")
	}
	dir := filepath.Join(b.conf.DataDir, "certs.d", host)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	toml := fmt.Sprintf("server = \"https://%s\"\n[host.\"%s\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = %q\n", host, srv.URL, filepath.Join(dir, "ca.crt"))
	for n, c := range map[string][]byte{"ca.crt": ca, "hosts.toml": []byte(toml)} {
		if err := os.WriteFile(filepath.Join(dir, n), c, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Pull(t.Context(), ref); err != nil {
		t.Errorf("with its CA in hosts.toml: %v", err)
	}
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	b := privateBed(t)
	content := filepath.Join(b.daemon.Dir, "root", "io.containerd.content.v1.content")
	if err := unix.Mount("tmpfs", content, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(content, "ingest"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := b.Pull(t.Context(), b.image); err == nil || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("pull says %v", err)
	}
	if err := unix.Mount("tmpfs", content, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	if err := b.Pull(t.Context(), b.image); err != nil {
		t.Errorf("with space again: %v", err)
	}
}
