package containerd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"selvedge/internal/logfile"
)

// tailBytes bounds how far back Tail reads in a file.
const tailBytes = 128 << 10

// Tail returns the last lines of a container's log. It reads the files itself:
// nerdctl's reader takes over the process's signals.
func (r *Runtime) Tail(_ context.Context, id string, lines int) ([]string, error) {
	store, err := r.store()
	if err != nil {
		return nil, err
	}
	dir, err := os.OpenRoot(filepath.Join(store, "containers", r.c.Namespace, filepath.Base(id)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the log of %.12s: %w", id, err)
	}
	defer dir.Close()
	name := id + "-json.log"
	var out []string
	for range 5 { // files that are renamed under us may be missed, all of them at once
		out, err = tail(dir, name)
		older := rotated(dir, name)
		if err == nil && len(out) < lines && older != "" { // it has just been rotated
			var before []string
			if before, err = tail(dir, older); err == nil {
				out = append(before, out...)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("read the log of %.12s: %w", id, err)
		}
		if len(out) > 0 || older == "" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return out[max(len(out)-lines, 0):], nil
}

// rotated names the newest of the files that a log was before; empty if there is none.
func rotated(dir *os.Root, name string) string {
	newest, number := "", int64(0)
	entries, _ := fs.ReadDir(dir.FS(), ".") // what cannot be listed is not there
	for _, e := range entries {
		if n, ok := logfile.Number(name, e.Name()); ok && e.Name() != name && n > number {
			newest, number = e.Name(), n
		}
	}
	return newest
}

// tail returns the last lines of a file of JSON lines; none if it is not there.
func tail(dir *os.Root, name string) ([]string, error) {
	if name == "" {
		return nil, nil
	}
	f, err := dir.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	from := max(fi.Size()-tailBytes, 0)
	b, err := io.ReadAll(io.NewSectionReader(f, from, tailBytes))
	if err != nil {
		return nil, err
	}
	if from > 0 { // begin at a whole line
		_, b, _ = bytes.Cut(b, []byte("\n"))
	}
	var out []string
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, tailBytes)
	for sc.Scan() {
		var e struct {
			Log string `json:"log"`
		}
		if json.Unmarshal(sc.Bytes(), &e) == nil {
			out = append(out, strings.TrimRight(e.Log, "\r\n"))
		}
	}
	return out, nil
}
