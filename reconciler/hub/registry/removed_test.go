package registry

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"selvedge/schema/roster"
)

// TestRemovedInTheMiddleOfALayer: who is put out gets no rest of what it is pulling.
func TestRemovedInTheMiddleOfALayer(t *testing.T) {
	layer := "sha256:" + strings.Repeat("a", 64)
	manifest := fmt.Sprintf(`{"mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [{"digest": %q}]}`, layer)
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(manifest)))
	part, more := strings.Repeat("x", 1<<20), make(chan struct{})
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/manifests/") {
			io.WriteString(w, manifest)
			return
		}
		for {
			if _, err := io.WriteString(w, part); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-more:
			case <-r.Context().Done():
				return
			}
		}
	}))
	defer up.Close()
	var gone atomic.Bool
	node := roster.Node{PublicKey: "U1", Images: []string{images + "/app@" + digest}}
	r, err := New(Config{States: http.DefaultTransport, Base: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}, Log: slog.New(slog.DiscardHandler),
		Images: []Upstream{{Host: images, URL: up.URL, PlainHTTP: true}},
		Node:   func(*http.Request) (string, roster.Node, error) { return "a", node, nil },
		Listed: func(name, key string) bool { return name == "a" && key == "U1" && !gone.Load() },
	})
	if err != nil {
		t.Fatal(err)
	}
	r.again = 0
	hub := httptest.NewServer(r)
	defer hub.Close()
	res, err := http.Get(hub.URL + "/v2/app/blobs/" + layer + "?ns=" + images)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatal(res, err)
	}
	defer res.Body.Close()
	for range 2 { // as long as it is listed, all comes; the end of a part may wait in a buffer for the next one
		if _, err := io.ReadFull(res.Body, make([]byte, len(part)/2)); err != nil {
			t.Fatal(err)
		}
		more <- struct{}{}
	}
	gone.Store(true)
	go func() {
		for {
			select {
			case more <- struct{}{}:
			case <-t.Context().Done():
				return
			}
		}
	}()
	n, err := io.Copy(io.Discard, io.LimitReader(res.Body, 1<<30))
	if err == nil || n >= 1<<30 {
		t.Errorf("%d bytes came, and then: %v", n, err)
	}
}
