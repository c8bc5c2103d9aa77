package audit

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"selvedge/schema/hubapi"
)

// TestKept compares a log with heads that were kept elsewhere: what no chain can show.
func TestKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	l := open(t, Config{Path: path, MaxSize: 300})
	kept := []Head{l.Head()}
	for range 5 {
		add(t, l, 1)
		kept = append(kept, l.Head())
	}
	l.Close()
	for _, h := range kept {
		if back, err := ParseHead(h.String()); err != nil || back != h {
			t.Errorf("%v: %v, %v", h, back, err)
		}
	}
	if r, err := Verify(path, kept...); err != nil || r.Broken != nil || r.Lines != 5 {
		t.Errorf("%+v, %v", r, err)
	}
	for what, c := range map[string]struct {
		head Head
		says string
	}{
		"made anew": {Head{3, strings.Repeat("a", 64)}, "entry 3 is not in it with the hash that was kept"},
		"cut":       {Head{6, strings.Repeat("a", 64)}, "entry 6 is not in it"},
		"empty":     {Head{0, strings.Repeat("a", 64)}, "entry 0 is not in it"},
	} {
		if r, err := Verify(path, kept[2], c.head); err != nil || r.Broken == nil || !strings.Contains(r.Broken.Error(), c.says) {
			t.Errorf("%s: %+v, %v", what, r, err)
		}
	}
	if err := os.Remove(path + ".1"); err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(path, kept[1]); err != nil || r.First == 1 || r.Broken == nil || !strings.Contains(r.Broken.Error(), "it begins with entry") {
		t.Errorf("%+v, %v", r, err)
	}
	for _, s := range []string{"", "3", "3:", "x:" + zero, "3:" + zero[2:], "3 " + zero, "-1:" + zero, "3:" + strings.Repeat("x", 64)} {
		if h, err := ParseHead(s); err == nil {
			t.Errorf("%q is %v", s, h)
		}
	}
}

// TestVerifyLive checks a log that is written and renamed meanwhile: no false alarm.
func TestVerifyLive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	l := open(t, Config{Path: path, MaxSize: 1000, Log: slog.New(slog.DiscardHandler)})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := l.Append(t.Context(), hubapi.AuditEntry{Operation: "exec"}); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for range 100 {
		head := l.Head()
		if r, err := Verify(path, head); err != nil || r.Broken != nil || r.Head.Seq < head.Seq {
			t.Errorf("head %v: %+v, %v", head, r, err)
			break
		}
	}
	close(stop)
	<-done
}

// TestHalfWritten comes upon a line in the middle of its being written.
func TestHalfWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	l := open(t, Config{Path: path})
	add(t, l, 2)
	l.Close()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	half := len(text) - 30
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(text[:half]); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(halfWritten/20, func() { _, _ = f.Write(text[half:]) })
	whole(t, path, 2)
}
