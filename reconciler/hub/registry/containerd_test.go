package registry

import (
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"selvedge/schema/roster"
	"selvedge/test/env"
)

// A real containerd pulls through the hub, as hosts.toml of a node tells it, from a registry
// that it cannot reach itself.
func TestContainerdPullsThroughTheHub(t *testing.T) {
	daemon := env.Containerd(t)
	addr, up := registry(t)
	img, err := env.BuildImage("v1")
	if err != nil {
		t.Fatal(err)
	}
	to, err := name.ParseReference(addr + "/team/hello:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(to, img, remote.WithAuth(&authn.Basic{Username: user, Password: password})); err != nil {
		t.Fatal(err)
	}
	p := pushed{repository: "team/hello", image: img}
	ref := images + "/team/hello@" + p.digest(t)

	f := &fleet{nodes: map[string]roster.Node{"a": {Images: []string{ref}}, "b": {}}}
	base, err := url.Parse("http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(Config{States: http.DefaultTransport, Base: base, Images: []Upstream{up}, Node: f.node, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	hub := httptest.NewTLSServer(r)
	defer hub.Close()
	c, err := client.New(daemon.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, node := range []string{"b", "a"} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, images), 0o755); err != nil {
			t.Fatal(err)
		}
		toml := fmt.Sprintf("server = \"https://127.0.0.1:1\"\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = %q\n  [host.%q.header]\n    Authorization = [%q]\n",
			hub.URL, filepath.Join(dir, "ca.crt"), hub.URL, "Bearer "+node)
		for n, b := range map[string][]byte{"ca.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hub.Certificate().Raw}), images + "/hosts.toml": []byte(toml)} {
			if err := os.WriteFile(filepath.Join(dir, n), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		ctx := namespaces.WithNamespace(t.Context(), "hub")
		resolver := docker.NewResolver(docker.ResolverOptions{Hosts: config.ConfigureHosts(ctx, config.HostOptions{HostDir: config.HostDirFromRoot(dir)})})
		got, err := c.Pull(ctx, ref, client.WithResolver(resolver))
		if node == "b" {
			if err == nil {
				t.Error("b pulled what a needs")
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if size, err := got.Size(ctx); err != nil || size == 0 || got.Target().Digest.String() != p.digest(t) {
			t.Error(got.Target(), size, err)
		}
		if err := c.ImageService().Delete(ctx, ref); err != nil && !errdefs.IsNotFound(err) {
			t.Error(err)
		}
	}
}
