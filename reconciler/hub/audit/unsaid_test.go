package audit

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"selvedge/schema/hubapi"
)

// TestMeddledOnFullDisk changes the log while the disk takes nothing more: what happened is told
// when there is room again, and a forged line never becomes a part of the chain.
func TestMeddledOnFullDisk(t *testing.T) {
	for what, room := range map[string]int64{"full": 0, "full in the middle of a line": 30} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			l := open(t, Config{Path: path, Log: slog.New(slog.DiscardHandler)})
			add(t, l, 3)
			head := l.Head()
			line, _, err := encode(head, hubapi.AuditEntry{Operation: "exec", Node: "forged"}, l.c.Now())
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(path)
			if err := errors.Join(err, os.WriteFile(path, append(text, line...), 0o600)); err != nil {
				t.Fatal(err)
			}
			again := atMost(t, int64(len(text)+len(line))+room)
			for range 2 {
				if err := l.Append(t.Context(), hubapi.AuditEntry{Operation: "exec"}); err == nil {
					t.Error("it was not refused")
				}
			}
			again()
			add(t, l, 1)
			if text, err = os.ReadFile(path); err != nil {
				t.Fatal(err)
			}
			lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
			if len(lines) != 6 {
				t.Fatalf("%s", text)
			}
			note, _ := parse(lines[4])
			if note.Prev != head.Hash || note.Outcome != hubapi.OutcomeNoted || !strings.Contains(note.Detail, "somebody else changed the log") {
				t.Errorf("%s", text)
			}
			if r, err := Verify(path); err != nil || r.Broken == nil || l.Head() != (Head{5, hash(lines[5])}) {
				t.Errorf("it passes for whole: %+v, %v, head %v", r, err, l.Head())
			}
		})
	}
}

// atMost keeps this process's files at a size until again is called: for the log that is a disk
// that is full, also when it opens its file anew.
func atMost(t *testing.T, size int64) (again func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ) // writing fails, and that is all
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	again = func() {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
			t.Error(err)
		}
		signal.Reset(syscall.SIGXFSZ)
	}
	t.Cleanup(again)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: uint64(size), Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	return again
}
