package env

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	gcrtypes "github.com/google/go-containerregistry/pkg/v1/types"
)

// Image pushes the hello image of a version to a registry ("127.0.0.1:5000") and
// returns its reference with digest.
func Image(t testing.TB, registry, repository, version string) string {
	t.Helper()
	ref, err := PushImage(t.Context(), registry, repository, version)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// PushImage is Image outside of tests.
func PushImage(ctx context.Context, registry, repository, version string) (string, error) {
	img, err := BuildImage(version)
	if err != nil {
		return "", err
	}
	return Push(ctx, registry, repository, version, img)
}

// Push pushes an image under a tag and returns its reference with digest. Plain
// http is used for loopback only.
func Push(ctx context.Context, registry, repository, tag string, img v1.Image) (string, error) {
	ref, err := name.ParseReference(registry + "/" + repository + ":" + tag)
	if err != nil {
		return "", err
	}
	if err := remote.Write(ref, img, remote.WithContext(ctx)); err != nil {
		return "", fmt.Errorf("push %s: %w", ref, err)
	}
	d, err := img.Digest()
	if err != nil {
		return "", err
	}
	return ref.Context().Name() + "@" + d.String(), nil
}

// BuildImage makes the hello image of a version: the same bytes each time.
func BuildImage(version string) (v1.Image, error) {
	bin, err := hello()
	if err != nil {
		return nil, err
	}
	return BuildImageOf(bin, version)
}

// BuildImageOf makes an image of one static program, /hello.
func BuildImageOf(program []byte, version string) (v1.Image, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b) // no times, no owners: reproducible
	for _, h := range []tar.Header{
		{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777},
		{Name: "hello", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program))},
	} {
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(program); err != nil {
				return nil, err
			}
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil },
		tarball.WithMediaType(gcrtypes.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, gcrtypes.OCIManifestSchema1), gcrtypes.OCIConfigJSON)
	img, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return nil, err
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", runtime.GOARCH
	cf.Config.Entrypoint = []string{"/hello"}
	cf.Config.Env = []string{"PATH=/", "VERSION=" + version}
	return mutate.ConfigFile(img, cf)
}

// hello builds the program once a process.
var hello = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "selvedge-hello-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "hello")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "selvedge/test/env/hello")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=")
	if b, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the hello program: %w: %s", err, b)
	}
	return os.ReadFile(out)
})
