package logfile_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"selvedge/internal/logfile"
)

// plain is a log of lines as they are.
func plain(dir string) logfile.Log {
	return logfile.Log{Dir: dir, Name: "log",
		Format: func(dst, line []byte, _ logfile.Options) []byte { return append(append(dst, line...), '\n') }}
}

func read(t *testing.T, l logfile.Log, o logfile.Options) string {
	t.Helper()
	var out bytes.Buffer
	if err := l.Read(t.Context(), o, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func write(t *testing.T, dir, name, text string, at int) {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	when := time.Unix(1_000_000+int64(at), 0)
	if err := os.Chtimes(name, when, when); err != nil {
		t.Fatal(err)
	}
}

func TestReadsFilesInTheirOrder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "log.8", "a\nb\n", 9) // the clock was set back
	write(t, dir, "log.9", "c\nd\n", 2)
	write(t, dir, "log.10", "e\nf torn", 1)
	write(t, dir, "log", "g\nh\ni torn", 0)
	for _, other := range []string{"other", "log.0", "log.01", "log.-1", "log.x", "log.", "log.1.gz", "logs"} {
		write(t, dir, other, "no\n", 5)
	}
	for _, c := range []struct {
		tail int
		want string
	}{
		{0, "a b c d e f torn g h i torn"},
		{100, "a b c d e f torn g h i torn"},
		{-1, "i torn"},
		{1, "h i torn"},
		{2, "g h i torn"},
		{3, "e f torn g h i torn"},
		{4, "d e f torn g h i torn"},
	} {
		got := strings.TrimSpace(strings.ReplaceAll(read(t, plain(dir), logfile.Options{Tail: c.tail}), "\n", " "))
		// the line that is being written counts as none, and is told only when it is whole
		if got != strings.TrimSuffix(strings.TrimSuffix(c.want, "i torn"), " ") {
			t.Errorf("tail %d: %q", c.tail, got)
		}
	}
}

func TestTailOverBlocks(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	var lines []string
	for n := range 4 {
		var b strings.Builder
		for range 3000 {
			line := fmt.Sprint(len(lines), strings.Repeat("x", r.IntN(120)))
			lines = append(lines, line)
			b.WriteString(line + "\n")
		}
		name := fmt.Sprintf("log.%d", n+1)
		if n == 3 {
			name = "log"
		}
		write(t, dir, name, b.String(), n)
	}
	for _, n := range []int{1, 2, 100, 2999, 3000, 3001, 8888, 12000, 12001} {
		want := strings.Join(lines[max(len(lines)-n, 0):], "\n") + "\n"
		if got := read(t, plain(dir), logfile.Options{Tail: n}); got != want {
			t.Errorf("tail %d: %d lines", n, strings.Count(got, "\n"))
		}
	}
}

func TestHugeLinesAreLeftOut(t *testing.T) {
	dir := t.TempDir()
	huge := strings.Repeat("x", 3<<20)
	write(t, dir, "log", "before\n"+huge+"\nafter\n"+huge, 0)
	if got := read(t, plain(dir), logfile.Options{}); got != "before\nafter\n" {
		t.Errorf("%d bytes: %.50q", len(got), got)
	}
	if got := read(t, plain(dir), logfile.Options{Tail: 1}); got != "after\n" {
		t.Errorf("tail: %d bytes: %.50q", len(got), got)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(100 << 20); err != nil { // one line of zeros, which takes no room
		t.Fatal(err)
	}
	f.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, tail := range []int{0, 5} {
		if got := read(t, plain(dir), logfile.Options{Tail: tail}); got != "" {
			t.Errorf("%d bytes", len(got))
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
		t.Errorf("allocated %d bytes", n)
	}
}

// Those who follow a log that is quiet take next to nothing.
func TestQuietFollowersAreSmall(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "log", strings.Repeat("a line\n", 20_000), 1)
	var began, ended sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	defer func() { stop(); ended.Wait() }()
	for range 100 {
		began.Add(1)
		ended.Go(func() {
			_ = plain(dir).Read(ctx, logfile.Options{Follow: true}, &counting{wait: 140_000, reached: began.Done}) // until it is stopped
		})
	}
	began.Wait()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		if m.HeapAlloc < 100*64<<10 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d bytes for 100 followers", m.HeapAlloc)
		}
	}
}

// counting tells when so many bytes came.
type counting struct {
	wait    int
	reached func()
}

func (c *counting) Write(p []byte) (int, error) {
	if c.wait -= len(p); c.wait <= 0 && c.reached != nil {
		c.reached()
		c.reached = nil
	}
	return len(p), nil
}

func TestOpensPlainFilesOnly(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, plant := range map[string]func(name string) error{
		"link":   func(name string) error { return os.Symlink(secret, name) },
		"inside": func(name string) error { return os.Symlink("own", name) },
		"pipe":   func(name string) error { return syscall.Mkfifo(name, 0o600) },
		"folder": func(name string) error { return os.Mkdir(name, 0o700) },
	} {
		dir := t.TempDir()
		write(t, dir, "own", "own\n", 0)
		for _, name := range []string{"log", "log.1"} {
			if err := plant(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		if got := read(t, plain(dir), logfile.Options{}); got != "" {
			t.Errorf("%s: %q", what, got)
		}
	}
}

func TestNoFolder(t *testing.T) {
	l := plain(filepath.Join(t.TempDir(), "gone"))
	if err := l.Read(t.Context(), logfile.Options{Follow: true}, io.Discard); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// logger writes numbered lines and rotates like the drivers of container engines.
type logger struct {
	t   *testing.T
	dir string
	f   *os.File
	n   int
	old int
}

func (l *logger) line() {
	if l.f == nil {
		f, err := os.OpenFile(filepath.Join(l.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			l.t.Error(err)
			return
		}
		l.f = f
	}
	if _, err := fmt.Fprintln(l.f, l.n); err != nil {
		l.t.Error(err)
	}
	l.n++
}

func (l *logger) rotate() {
	l.f.Close()
	l.f = nil
	l.old++
	name := filepath.Join(l.dir, fmt.Sprintf("log.%d", l.old))
	if err := os.Rename(filepath.Join(l.dir, "log"), name); err != nil {
		l.t.Error(err)
	}
	if err := os.Chtimes(name, time.Now(), time.Now()); err != nil {
		l.t.Error(err)
	}
}

func TestFollowsOverRotationsAndTheEnd(t *testing.T) {
	base := t.TempDir()
	dir, moved := filepath.Join(base, "live"), filepath.Join(base, "kept")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l := plain(dir)
	l.Moved = moved
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- l.Read(t.Context(), logfile.Options{Follow: true}, w)
		w.Close()
	}()
	const lines = 30_000
	var seen atomic.Int64
	go func() {
		g := &logger{t: t, dir: dir}
		for n := range lines {
			g.line()
			if n%997 == 996 {
				for seen.Load() < int64(n-997) && t.Context().Err() == nil { // rotations are seconds apart, and a reader keeps up with one
					time.Sleep(time.Millisecond)
				}
				g.rotate()
			}
			if n%10_000 == 0 {
				time.Sleep(30 * time.Millisecond) // let it catch up, and wait
			}
		}
		g.rotate() // unseen by the follower, then moved away
		g.line()
		g.f.Close()
		if err := os.Rename(dir, moved); err != nil {
			t.Error(err)
		}
	}()
	sc := bufio.NewScanner(r)
	n := 0
	for sc.Scan() {
		if sc.Text() != fmt.Sprint(n) {
			t.Fatalf("line %d is %q", n, sc.Text())
		}
		n++
		seen.Store(int64(n))
	}
	if err := <-done; err != nil || n != lines+1 {
		t.Errorf("%d of %d lines, %v", n, lines+1, err)
	}
}

func TestFollowAfterTruncation(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "log", "one\ntwo\nthree\n", 0)
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- plain(dir).Read(ctx, logfile.Options{Follow: true, Tail: 1}, w) }()
	sc := bufio.NewScanner(r)
	next := func(want string) {
		t.Helper()
		if !sc.Scan() || sc.Text() != want {
			t.Fatalf("%q, not %q", sc.Text(), want)
		}
	}
	next("three")
	write(t, dir, "log", "four\n", 0)
	next("four")
	f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, part := range []string{"fi", "ve\nsix\n"} { // a line in two writes is one
		if _, err := io.WriteString(f, part); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Millisecond)
	}
	next("five")
	next("six")
	cancel()
	r.Close()
	if err := <-done; !errors.Is(err, context.Canceled) && !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

type failing struct{ after int }

func (f *failing) Write(p []byte) (int, error) {
	if f.after -= len(p); f.after < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

func TestAReaderThatGoes(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "log", strings.Repeat("line\n", 100_000), 0)
	for _, follow := range []bool{false, true} {
		if err := plain(dir).Read(t.Context(), logfile.Options{Follow: follow}, &failing{after: 100_000}); !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := plain(dir).Read(ctx, logfile.Options{}, io.Discard); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("a\nb\n"), []byte("c\nd"), 2)
	f.Add([]byte{}, []byte("\n\n\n"), 1)
	f.Fuzz(func(t *testing.T, old, cur []byte, tail int) {
		dir := t.TempDir()
		write(t, dir, "log.1", string(old), 1)
		write(t, dir, "log", string(cur), 2)
		if tail %= 1000; tail < 0 {
			tail = -1
		}
		got := read(t, plain(dir), logfile.Options{Tail: tail})
		whole := string(cur[:bytes.LastIndexByte(cur, '\n')+1])
		if len(old) > 0 && old[len(old)-1] != '\n' {
			old = append(old, '\n')
		}
		if all := string(old) + whole; !strings.HasSuffix(all, got) || tail == 0 && all != got || tail > 0 && strings.Count(got, "\n") < min(tail, strings.Count(all, "\n")) {
			t.Errorf("tail %d of %q is %q", tail, all, got)
		}
	})
}
