package control

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAskAndServe(t *testing.T) {
	dir := t.TempDir()
	if err := Ask(t.Context(), dir, "GET", "/status", nil); !errors.Is(err, ErrNotRunning) {
		t.Fatalf("without a daemon: %v", err)
	}
	// a crash leaves its socket
	if err := os.WriteFile(filepath.Join(dir, Socket), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { Reply(w, map[string]int{"n": 7}, nil) })
	mux.HandleFunc("POST /do", func(w http.ResponseWriter, _ *http.Request) {
		Reply(w, nil, errors.New("cannot be done; do that first"))
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, dir, mux) }()

	var got struct{ N int }
	for ask := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := Ask(t.Context(), dir, "GET", "/status", &got)
		if err == nil {
			break
		}
		if time.Since(ask) > 10*time.Second {
			t.Fatal(err)
		}
	}
	if got.N != 7 {
		t.Errorf("answer %+v", got)
	}
	if fi, err := os.Stat(filepath.Join(dir, Socket)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v; only its owner may open it", fi.Mode(), err)
	}
	if err := Ask(t.Context(), dir, "POST", "/do", &got); err == nil || err.Error() != "cannot be done; do that first" {
		t.Errorf("refusal: %v", err)
	}
	if err := Ask(t.Context(), dir, "GET", "/nothing", &got); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("unknown path: %v", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve ended with %v", err)
	}
}
