// Package control lets a command talk to a daemon on the same machine, over a unix socket
// that only the daemon's user can open.
//
// What goes over it is JSON over HTTP: GET for a question, POST for a request.
package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Socket is the file's name in a daemon's directory.
const Socket = "control.sock"

const (
	maxAnswer = 64 << 20
	maxPath   = 107 // sun_path of unix(7), less the zero byte
)

// ErrNotRunning is returned by Ask if no daemon answers.
var ErrNotRunning = errors.New("not running")

// Serve answers on dir's socket until the context ends. The caller holds the directory's
// lock: a socket that is there was left by a crash.
func Serve(ctx context.Context, dir string, h http.Handler) error {
	name := filepath.Join(dir, Socket)
	if len(name) > maxPath {
		return fmt.Errorf("control socket: %s: %d bytes, a unix socket's path has at most %d; choose a shorter directory", name, len(name), maxPath)
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("control socket: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", name)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(name, 0o600); err != nil { // the directory is its owner's alone, too
		return errors.Join(fmt.Errorf("control socket: %w", err), l.Close())
	}
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		s.Shutdown(stop) // an answer that takes longer is cut off
		s.Close()
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket: %w", err)
	}
	<-done
	return ctx.Err()
}

// Reply answers a request with a value, or with an error and a status.
func Reply(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusConflict)
		v = map[string]string{"error": err.Error()}
	}
	json.NewEncoder(w).Encode(v) // a client that went away needs no answer
}

// Ask sends a request to the daemon of a directory and decodes its answer. The error
// wraps ErrNotRunning if none runs there.
func Ask(ctx context.Context, dir, method, path string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, Socket))
	}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://daemon"+path, http.NoBody)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w with the directory %s", ErrNotRunning, dir)
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; ask as the user that the daemon runs as", err)
	}
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		var e struct{ Error string }
		if json.Unmarshal(b, &e) != nil || e.Error == "" {
			e.Error = string(bytes.TrimSpace(b))
		}
		return errors.New(e.Error)
	}
	return json.Unmarshal(b, answer)
}
