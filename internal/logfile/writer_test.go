package logfile_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"selvedge/internal/logfile"
)

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestWriterKeepsTheNewest(t *testing.T) {
	dir := t.TempDir()
	open := func() *logfile.Writer {
		return &logfile.Writer{Path: filepath.Join(dir, "log"), Size: 10, Keep: 2}
	}
	write(t, dir, "log.1.gz", "not ours\n", 1)
	w := open()
	for n := range 50 {
		if _, err := fmt.Fprintf(w, "%d\n", n); err != nil {
			t.Fatal(err)
		}
		if n%7 == 6 { // a restart counts on
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			w = open()
		}
	}
	defer w.Close()
	var want []string
	for n := 50 - len(strings.Fields(read(t, plain(dir), logfile.Options{}))); n < 50; n++ {
		want = append(want, fmt.Sprint(n))
	}
	if got := strings.Fields(read(t, plain(dir), logfile.Options{})); len(got) < 7 || !slices.Equal(got, want) {
		t.Errorf("kept %v of %v", got, names(t, dir))
	}
	if all := names(t, dir); len(all) != 4 {
		t.Errorf("files %v", all)
	}
}

// A clock that is set back, by hand or when a time server is met, changes no order: neither of
// what is kept nor of what is read, nor is anything told twice.
func TestTheClockSaysNothing(t *testing.T) {
	dir := t.TempDir()
	w := &logfile.Writer{Path: filepath.Join(dir, "log"), Size: 4, Keep: 3}
	defer w.Close()
	clock := time.Now()
	put := func(line string) {
		t.Helper()
		if _, err := io.WriteString(w, line+"\n"); err != nil {
			t.Fatal(err)
		}
		clock = clock.Add(-time.Hour)
		for _, n := range names(t, dir) { // as if it had been written by that clock
			if fi, err := os.Stat(filepath.Join(dir, n)); err == nil && fi.ModTime().After(clock.Add(30*time.Minute)) {
				if err := os.Chtimes(filepath.Join(dir, n), clock, clock); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, line := range []string{"1", "2", "3", "4"} {
		put(line)
	}
	r, pipe := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- plain(dir).Read(t.Context(), logfile.Options{Follow: true}, pipe) }()
	got := make([]byte, 0, 100)
	next := func(want string) {
		t.Helper()
		for len(got) < len(want) {
			n, err := r.Read(got[len(got):cap(got)])
			if err != nil {
				t.Fatal(err)
			}
			got = got[:len(got)+n]
		}
		if string(got) != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	next("1\n2\n3\n4\n")
	put("5")
	next("1\n2\n3\n4\n5\n")
	put("6")
	put("7")
	next("1\n2\n3\n4\n5\n6\n7\n")
	r.Close()
	put("8")
	if err := <-done; !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	if got := read(t, plain(dir), logfile.Options{}); !strings.HasSuffix(got, "5\n6\n7\n8\n") {
		t.Errorf("read %q", got)
	}
	if got := read(t, plain(dir), logfile.Options{Tail: 2}); got != "7\n8\n" {
		t.Errorf("tail %q", got)
	}
}

// What a power cut or a full disk left of a line is a line of its own.
func TestAfterHalfALine(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "log", "one\nha", 1)
	w := &logfile.Writer{Path: filepath.Join(dir, "log"), Size: 100, Keep: 1}
	defer w.Close()
	for _, line := range []string{"two\n", "three\n"} {
		if n, err := io.WriteString(w, line); err != nil || n != len(line) {
			t.Errorf("%d, %v", n, err)
		}
	}
	if got := read(t, plain(dir), logfile.Options{}); got != "one\nha\ntwo\nthree\n" {
		t.Errorf("%q", got)
	}
}

// A folder that goes and comes loses what was written meanwhile, and no more.
func TestWriterTriesAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log.d")
	w := &logfile.Writer{Path: filepath.Join(dir, "log"), Size: 100, Keep: 1}
	defer w.Close()
	if _, err := io.WriteString(w, "lost\n"); err == nil {
		t.Error("no error")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "kept\n"); err != nil {
		t.Error(err)
	}
	if got := read(t, plain(dir), logfile.Options{}); got != "kept\n" {
		t.Errorf("%q", got)
	}
}

// What is wrong with an older file costs no new line.
func TestWriterGoesOnBesideOldTrouble(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"log.1", "log.7"} { // not files: neither moved over nor removed
		if err := os.MkdirAll(filepath.Join(dir, name, "full"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w := &logfile.Writer{Path: filepath.Join(dir, "log"), Size: 20, Keep: 100}
	defer w.Close()
	var want []string
	for n := range 100 {
		want = append(want, fmt.Sprint(n))
		if _, err := fmt.Fprintf(w, "%d\n", n); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Fields(read(t, plain(dir), logfile.Options{})); !slices.Equal(got, want) {
		t.Errorf("%d of %d lines: %v", len(got), len(want), got)
	}
}

// TestFollowsManyRotations has a follower look again and again while files are being renamed.
func TestFollowsManyRotations(t *testing.T) {
	dir := t.TempDir()
	w := &logfile.Writer{Path: filepath.Join(dir, "log"), Size: 2000, Keep: 1 << 20}
	defer w.Close()
	if _, err := io.WriteString(w, "0\n"); err != nil {
		t.Fatal(err)
	}
	const lines = 20000
	from, to := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- plain(dir).Read(ctx, logfile.Options{Follow: true}, to) }()
	go func() {
		for n := 1; n < lines; n++ {
			fmt.Fprintf(w, "%d\n", n)
			if n%500 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	s := bufio.NewScanner(from)
	for n := range lines {
		if !s.Scan() {
			t.Fatal(s.Err())
		}
		if s.Text() != fmt.Sprint(n) {
			t.Fatalf("line %s came, and not %d", s.Text(), n)
		}
	}
	stop()
	from.Close()
	<-ended
}
