package journal_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"selvedge/edge/journal"
)

func read(t *testing.T, j *journal.Journal, o journal.Options) string {
	t.Helper()
	var out bytes.Buffer
	if err := j.Logs(t.Context(), o, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestKeepsWhatIsLogged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	var out bytes.Buffer
	j := journal.New(journal.Config{Dir: dir, Out: &out})
	defer j.Close()
	log := slog.New(j.Handler())
	if got := read(t, j, journal.Options{}); got != "" {
		t.Errorf("before anything: %q", got)
	}
	log.Debug("too little")
	log.Info("first", "text", "two\nlines \x1b[31m")
	between := time.Now()
	time.Sleep(2 * time.Millisecond) // lines have milliseconds
	log.With("app", "web").Warn("second")
	all := read(t, j, journal.Options{})
	if all != out.String() || strings.Count(all, "\n") != 2 || !strings.Contains(all, `msg=first text="two\nlines \x1b[31m"`) || !strings.Contains(all, "level=WARN msg=second app=web") {
		t.Errorf("kept %q, wrote on %q", all, out.String())
	}
	if got := read(t, j, journal.Options{Tail: 1}); strings.Count(got, "\n") != 1 || !strings.Contains(got, "second") {
		t.Errorf("tail %q", got)
	}
	if got := read(t, j, journal.Options{Since: between}); strings.Count(got, "\n") != 1 || !strings.Contains(got, "second") {
		t.Errorf("since %q", got)
	}
	for name, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "agent.log"): 0o600} {
		if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: %v %v", name, fi.Mode(), err)
		}
	}
}

func TestIsBounded(t *testing.T) {
	dir := t.TempDir()
	j := journal.New(journal.Config{Dir: dir, MB: 1})
	defer j.Close()
	log := slog.New(j.Handler())
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- j.Logs(ctx, journal.Options{Follow: true}, w)
		w.Close()
	}()
	const lines = 12_000 // of 300 bytes
	written := make(chan bool)
	go func() {
		defer close(written)
		pad := strings.Repeat("x", 220)
		for n := range lines {
			log.Info("line", "n", n, "pad", pad)
			if n%1000 == 999 { // a reader must have a chance before its file goes
				time.Sleep(10 * time.Millisecond)
			}
		}
	}()
	sc := bufio.NewScanner(r)
	last := 0
	for sc.Scan() {
		var n int
		at := strings.Index(sc.Text(), " n=")
		if _, err := fmt.Sscanf(sc.Text()[max(at, 0):], " n=%d", &n); err != nil || n < last {
			t.Fatalf("after line %d came %.80q", last, sc.Text())
		}
		if last = n; n == lines-1 {
			break
		}
	}
	<-written
	cancel()
	r.Close()
	if err := <-done; !errors.Is(err, context.Canceled) && !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	var size int64
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) { // old files are removed beside
		list, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		size = 0
		for _, f := range list {
			if fi, err := os.Stat(f); err == nil {
				size += fi.Size()
			}
		}
		if len(list) <= 2 && size <= 2<<20 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d files of %d bytes", len(list), size)
		}
	}
	if got := read(t, j, journal.Options{}); !strings.Contains(got, fmt.Sprintf("n=%d ", lines-1)) || strings.Count(got, "\n") < 3000 {
		t.Errorf("kept %d lines", strings.Count(got, "\n"))
	}
}

// A disk that takes nothing costs the lines in the file and nothing else.
func TestGoesOnWithoutItsFile(t *testing.T) {
	for _, what := range []string{"full", "no folder"} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			switch what {
			case "full":
				if err := os.Symlink("/dev/full", filepath.Join(dir, "agent.log")); err != nil {
					t.Fatal(err)
				}
			case "no folder":
				dir = filepath.Join(dir, "file")
				if err := os.WriteFile(dir, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var out bytes.Buffer
			j := journal.New(journal.Config{Dir: dir, Out: &out})
			defer j.Close()
			log := slog.New(j.Handler())
			log.Info("one")
			log.Info("two")
			if got := out.String(); !strings.Contains(got, "one") || !strings.Contains(got, "two") || j.Lost() != 2 {
				t.Errorf("wrote on %q, lost %d", got, j.Lost())
			}
			if what == "no folder" {
				if err := os.Remove(dir); err != nil {
					t.Fatal(err)
				}
				log.Info("three")
				if got := read(t, j, journal.Options{}); !strings.Contains(got, "three") {
					t.Errorf("after the folder could be made: %q", got)
				}
				return
			}
			if got := read(t, j, journal.Options{}); got != "" {
				t.Errorf("a device was read: %q", got)
			}
			if err := os.Remove(filepath.Join(dir, "agent.log")); err != nil {
				t.Fatal(err)
			}
			j.Close()
			log.Info("three")
			if got := read(t, j, journal.Options{Tail: 1}); !strings.Contains(got, "three") {
				t.Errorf("after the disk came back: %q", got)
			}
		})
	}
}

func TestManyWriters(t *testing.T) {
	j := journal.New(journal.Config{Dir: t.TempDir()})
	defer j.Close()
	log := slog.New(j.Handler())
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for range 100 {
				log.Info("line", "writer", n)
			}
		})
	}
	all.Wait()
	got := read(t, j, journal.Options{})
	if strings.Count(got, "\n") != 800 || strings.Count(got, "time=") != 800 {
		t.Errorf("%d lines", strings.Count(got, "\n"))
	}
}
