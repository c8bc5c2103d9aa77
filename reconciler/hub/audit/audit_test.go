package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"selvedge/schema/hubapi"
)

func open(t testing.TB, c Config) *Log {
	t.Helper()
	l, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func add(t testing.TB, l *Log, n int) {
	t.Helper()
	for i := range n {
		if err := l.Append(t.Context(), hubapi.AuditEntry{Operation: "exec", Outcome: hubapi.OutcomeBegun, Node: fmt.Sprint("gw-", i)}); err != nil {
			t.Fatal(err)
		}
	}
}

func whole(t testing.TB, path string, lines int) Report {
	t.Helper()
	r, err := Verify(path)
	if err != nil || r.Broken != nil || r.Lines != lines {
		t.Fatalf("%+v, %v; want %d lines", r, err, lines)
	}
	return r
}

func TestChain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := open(t, Config{Path: path})
	add(t, l, 3)
	head := l.Head()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), hubapi.AuditEntry{}); !errors.Is(err, ErrClosed) {
		t.Error("after Close:", err)
	}
	l = open(t, Config{Path: path})
	if l.Head() != head {
		t.Errorf("head %v, was %v", l.Head(), head)
	}
	add(t, l, 2)
	if r := whole(t, path, 5); r.Head != l.Head() || r.First != 1 {
		t.Errorf("%+v", r)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if _, err := Open(Config{Path: path}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Error("a second writer:", err)
	}
}

// TestTampered changes a log in every way that one would try.
func TestTampered(t *testing.T) {
	made := filepath.Join(t.TempDir(), "a")
	l := open(t, Config{Path: made})
	add(t, l, 5)
	l.Close()
	text, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(text, []byte("\n"))[:5]
	join := func(ls ...[]byte) []byte { return bytes.Join(ls, nil) }
	for what, c := range map[string]struct {
		text []byte
		line int
	}{
		"a word changed":        {bytes.Replace(text, []byte("gw-1"), []byte("gw-9"), 1), 3},
		"a line taken out":      {join(lines[0], lines[2], lines[3]), 2},
		"a line put in":         {join(lines[0], lines[0], lines[1]), 2},
		"two lines swapped":     {join(lines[1], lines[0]), 2},
		"another number":        {bytes.Replace(text, []byte(`"seq":2`), []byte(`"seq":7`), 1), 2},
		"no JSON":               {join(lines[0], []byte("hello\n"), lines[1]), 2},
		"an empty line":         {join(lines[0], []byte("\n"), lines[1]), 2},
		"a line without end":    {join(lines[0], lines[1][:20]), 2},
		"a very long line":      {join(lines[0], bytes.Repeat([]byte("x"), 2*MaxLine), []byte("\n")), 2},
		"a beginning that lies": {bytes.Replace(lines[0], []byte(zero), []byte(strings.Repeat("a", 64)), 1), 1},
	} {
		path := filepath.Join(t.TempDir(), "a")
		if err := os.WriteFile(path, c.text, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Verify(path)
		if err != nil || r.Broken == nil || r.Broken.Line != c.line {
			t.Errorf("%s: %+v (%v), want line %d", what, r, err, c.line)
		}
	}
	// what no chain can show, and the report's head does
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, join(lines[:4]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := whole(t, path, 4); r.Head == l.Head() {
		t.Error("a line cut off the end is not seen against a head kept elsewhere")
	}
	if _, err := Verify(path + "x"); err == nil {
		t.Error("no log is whole")
	}
}

// TestMeddled changes the log under a hub that runs: what it is told next is in the log all the
// same, which says what happened and does not pass for whole.
func TestMeddled(t *testing.T) {
	for what, c := range map[string]struct {
		do   func(path string) error
		says string
	}{
		"taken away": {os.Remove, "taken away"},
		"moved":      {func(path string) error { return os.Rename(path, path+".old") }, "taken away"},
		"in a folder that was taken away": {func(path string) error {
			return errors.Join(os.RemoveAll(filepath.Dir(path)), os.Mkdir(filepath.Dir(path), 0o700))
		}, "taken away"},
		"replaced": {func(path string) error {
			text, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path+"~", text[:bytes.LastIndexByte(text[:len(text)-1], '\n')+1], 0o600), os.Rename(path+"~", path))
		}, "another file"},
		"emptied": {func(path string) error { return os.Truncate(path, 0) }, "has 0 bytes"},
		"with a line cut off its end": {func(path string) error {
			text, err := os.ReadFile(path)
			return errors.Join(err, os.Truncate(path, int64(bytes.LastIndexByte(text[:len(text)-1], '\n')+1)))
		}, "and not the"},
		"with a forged line": {func(path string) error {
			text, err := os.ReadFile(path)
			lines := bytes.SplitAfter(text, []byte("\n"))
			e, _ := parse(lines[2][:len(lines[2])-1])
			e.Node = "forged"
			line, _, err2 := encode(Head{e.Seq, hash(lines[2][:len(lines[2])-1])}, e, e.Time)
			return errors.Join(err, err2, os.WriteFile(path, append(text, line...), 0o600))
		}, "and not the"},
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x", "audit.jsonl")
			l := open(t, Config{Path: path, Log: slog.New(slog.DiscardHandler)})
			add(t, l, 3)
			if err := c.do(path); err != nil {
				t.Fatal(err)
			}
			add(t, l, 1)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
			if len(lines) < 2 {
				t.Fatalf("%s", text)
			}
			note, _ := parse(lines[len(lines)-2])
			last, ok := parse(lines[len(lines)-1])
			if !ok || last.Seq != 5 || note.Outcome != hubapi.OutcomeNoted || !strings.Contains(note.Detail, c.says) || l.Head() != (Head{5, hash(lines[len(lines)-1])}) {
				t.Errorf("%s", text)
			}
			if r, err := Verify(path); err != nil || r.Broken == nil && r.First == 1 {
				t.Errorf("it passes for whole: %+v, %v", r, err)
			}
		})
	}
	// as long as there is no place for it, what is to be audited is refused
	dir := filepath.Join(t.TempDir(), "x")
	path := filepath.Join(dir, "audit.jsonl")
	l := open(t, Config{Path: path, Log: slog.New(slog.DiscardHandler)})
	add(t, l, 3)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.Append(t.Context(), hubapi.AuditEntry{Operation: "exec"}); err == nil {
			t.Error("it was not refused")
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	add(t, l, 1)
	if r, err := Verify(path); err != nil || r.Broken != nil || r.First != 4 || r.Head != l.Head() || r.Lines != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestTorn cuts the last line at every byte, as a crash may.
func TestTorn(t *testing.T) {
	made := filepath.Join(t.TempDir(), "a")
	l := open(t, Config{Path: made})
	add(t, l, 2)
	l.Close()
	text, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	second := bytes.IndexByte(text, '\n') + 1
	for cut := second + 1; cut < len(text); cut += 7 {
		for _, zeros := range []int{0, 100} { // some file systems leave zeros
			path := filepath.Join(t.TempDir(), "a")
			torn := append(bytes.Clone(text[:cut]), make([]byte, zeros)...)
			if err := os.WriteFile(path, torn, 0o600); err != nil {
				t.Fatal(err)
			}
			l := open(t, Config{Path: path})
			add(t, l, 1)
			whole(t, path, 3)
			kept, err := os.ReadFile(path + ".torn-2")
			if err != nil || !bytes.Equal(kept, torn[second:]) {
				t.Fatalf("cut at %d: kept %q, %v", cut, kept, err)
			}
			entries, _, err := l.Page(t.Context(), Query{})
			if err != nil || len(entries) != 3 || entries[1].Outcome != hubapi.OutcomeNoted || !strings.Contains(entries[1].Detail, "a.torn-2") {
				t.Fatalf("%+v, %v", entries, err)
			}
			l.Close()
		}
	}
	// nothing whole in it at all
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, text[:second-5], 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, Config{Path: path})
	whole(t, path, 1)
}

func TestRotate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := open(t, Config{Path: path, MaxSize: 2000})
	add(t, l, 60)
	r := whole(t, path, 60)
	if len(r.Files) < 5 || r.Files[0] != "audit.jsonl.1" || r.Files[len(r.Files)-1] != "audit.jsonl" {
		t.Errorf("files %v", r.Files)
	}
	var seen []uint64
	for before := uint64(0); ; {
		entries, next, err := l.Page(t.Context(), Query{Before: before, Limit: 7})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			seen = append(seen, e.Seq)
		}
		if before = next; next == 0 {
			break
		}
	}
	if len(seen) != 60 || seen[0] != 60 || seen[59] != 1 {
		t.Errorf("pages give %v", seen)
	}
	entries, _, err := l.Page(t.Context(), Query{Keep: func(e *hubapi.AuditEntry) bool { return e.Node == "gw-3" }})
	if err != nil || len(entries) != 1 || entries[0].Seq != 4 {
		t.Errorf("%+v, %v", entries, err)
	}
	// a crash between rename and the new file
	l.Close()
	if err := os.Rename(path, path+".99"); err != nil {
		t.Fatal(err)
	}
	l = open(t, Config{Path: path, MaxSize: 2000})
	add(t, l, 1)
	whole(t, path, 61)
	// old files taken away show
	if err := os.Remove(path + ".1"); err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(path); err != nil || r.Broken != nil || r.First == 1 {
		t.Errorf("%+v, %v", r, err)
	}
	// one from the middle breaks the chain
	if err := os.Remove(path + ".3"); err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(path); err != nil || r.Broken == nil || r.Broken.File != "audit.jsonl.4" || r.Broken.Line != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestBounds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	l := open(t, Config{Path: path})
	long := strings.Repeat("\x01ä\xff", 1<<20)
	e := hubapi.AuditEntry{Subject: long, Token: long, Remote: long, Request: long, Operation: long, Outcome: long, Scope: long, Node: long, App: long, Container: long, Detail: long}
	for range 5000 {
		e.Command = append(e.Command, "\x01\x02")
	}
	if err := l.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	e.Command = []string{"line\nbreak", long[:1<<10], long, long, long, long, long, long}
	if err := l.Append(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	all := []string{"sh", "-c", strings.Repeat("\x01", maxCommand-100) + "\nrm -rf /data"}
	if e.Command = all; l.Append(t.Context(), e) != nil {
		t.Fatal("a whole command is refused")
	}
	whole(t, path, 3)
	entries, _, err := l.Page(t.Context(), Query{})
	if err != nil || len(entries) != 3 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for range maxPage/maxCommand + 20 {
		if err := l.Append(t.Context(), hubapi.AuditEntry{Command: []string{strings.Repeat("x", maxCommand)}}); err != nil {
			t.Fatal(err)
		}
	}
	if some, next, err := l.Page(t.Context(), Query{Limit: 1000}); err != nil || next == 0 || len(some) != maxPage/maxCommand+1 {
		t.Errorf("a page of %d long commands, then %d, %v", len(some), next, err)
	}
	if !slices.Equal(entries[0].Command, all) {
		t.Errorf("a command that a hub passes on is cut: %d words", len(entries[0].Command))
	}
	entries = entries[1:]
	if c := entries[1].Command; !strings.HasSuffix(c[len(c)-1], "more") || !strings.Contains(entries[0].Detail, "bytes)") || entries[0].Command[0] != "line\nbreak" {
		t.Errorf("what was cut is not said: %q", c[len(c)-1])
	}
}

func TestConcurrent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	l := open(t, Config{Path: path, MaxSize: 20_000})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 25 {
				if err := l.Append(t.Context(), hubapi.AuditEntry{Operation: "x"}); err != nil {
					t.Error(err)
				}
				if _, _, err := l.Page(t.Context(), Query{Limit: 3}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	whole(t, path, 400)
}

// faulty is the file with a disk that is full, dies or hangs.
type faulty struct {
	*os.File
	room  int           // bytes that Write takes before ENOSPC; -1: all
	sync  error         // of Sync
	trunc error         // of Truncate
	hang  chan struct{} // Sync waits for it
}

func (f *faulty) Write(p []byte) (int, error) {
	if f.room < 0 || len(p) <= f.room {
		return f.File.Write(p)
	}
	n, _ := f.File.Write(p[:f.room])
	return n, syscall.ENOSPC
}

func (f *faulty) Sync() error {
	if f.hang != nil {
		<-f.hang
	}
	if f.sync != nil {
		return f.sync
	}
	return f.File.Sync()
}

func (f *faulty) Truncate(n int64) error {
	if f.trunc != nil {
		return f.trunc
	}
	return f.File.Truncate(n)
}

// TestDiskFull holds that an entry that the disk does not take is refused, and that the chain
// goes on when there is room again.
func TestDiskFull(t *testing.T) {
	for what, broken := range map[string]faulty{
		"full":                             {room: 0},
		"full in the middle of a line":     {room: 30},
		"full, and nothing can be cut off": {room: 30, trunc: syscall.EIO},
		"fsync fails":                      {room: -1, sync: syscall.EIO},
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a")
			l := open(t, Config{Path: path})
			add(t, l, 2)
			real := l.f.(*os.File)
			broken.File = real
			l.f = &broken // the writer waits, and sees it with the next entry
			err := l.Append(t.Context(), hubapi.AuditEntry{Operation: "exec"})
			if err == nil || !strings.Contains(err.Error(), "make room on its disk") {
				t.Fatal("it was not refused:", err)
			}
			if l.Head().Seq != 2 {
				t.Errorf("head %v", l.Head())
			}
			broken.room, broken.sync, broken.trunc = -1, nil, nil
			add(t, l, 2)
			r, err := Verify(path)
			if err != nil || r.Broken != nil || r.Lines < 4 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

func TestDiskHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	l := open(t, Config{Path: path, Timeout: time.Millisecond})
	hang := make(chan struct{})
	l.f = &faulty{File: l.f.(*os.File), room: -1, hang: hang}
	if err := l.Append(t.Context(), hubapi.AuditEntry{Operation: "exec"}); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Error("a disk that hangs:", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Append(ctx, hubapi.AuditEntry{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(hang)
}

// FuzzLines reads what may be any file from its end, and compares with reading it from the
// beginning.
func FuzzLines(f *testing.F) {
	f.Add([]byte("{\"seq\":1,\"prev\":\""+zero+"\"}\n"), 1)
	f.Add([]byte("\n\n{}\nxx"), 70000)
	f.Add([]byte("a\nbb\n"), 33000)
	f.Fuzz(func(t *testing.T, text []byte, times int) {
		text = bytes.Repeat(text, 1+max(0, times)%(200_000/(len(text)+1)+1)) // beyond one read
		want := bytes.SplitAfter(text, []byte("\n"))
		want = want[:len(want)-1] // what follows the last line break is no line
		r := &backwards{f: bytes.NewReader(text), at: int64(len(text))}
		at := int64(bytes.LastIndexByte(text, '\n') + 1)
		for i := len(want) - 1; ; i-- {
			line, end, err := r.next()
			if err == io.EOF {
				if i >= 0 {
					t.Fatalf("%d lines are missing", i+1)
				}
				break
			}
			if err != nil || i < 0 || end != at {
				t.Fatalf("line %d ends at %d, not %d: %v", i, end, at, err)
			}
			if len(want[i]) > MaxLine {
				return // may be given in parts, each of which is nothing
			}
			if !bytes.Equal(line, want[i][:len(want[i])-1]) {
				t.Fatalf("line %d: %q, want %q", i, line, want[i])
			}
			parse(line)
			at -= int64(len(want[i]))
		}
		if head, end, err := lastLine(bytes.NewReader(text), int64(len(text))); err != nil || end > int64(len(text)) || (end == 0) != (head.Seq == 0) {
			t.Fatalf("%v %d %v", head, end, err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	l := open(b, Config{Path: filepath.Join(b.TempDir(), "a"), Log: slog.New(slog.DiscardHandler)})
	e := hubapi.AuditEntry{Subject: "user:ana", Operation: "exec", Node: "gw-1", Command: []string{"sh", "-c", "ls"}}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := l.Append(b.Context(), e); err != nil {
				b.Error(err)
			}
		}
	})
}
