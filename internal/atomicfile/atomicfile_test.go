package atomicfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"selvedge/internal/atomicfile"
)

func TestWriteReplacesContentAndMode(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	for _, content := range []string{"one", "two and longer", ""} {
		if err := atomicfile.Write(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil || string(got) != content {
			t.Fatalf("read %q, %v; want %q", got, err, content)
		}
		if fi, _ := os.Stat(name); fi.Mode().Perm() != 0o600 {
			t.Fatalf("mode %v", fi.Mode())
		}
	}
}

// The order is the guarantee: content is durable before the name points to it.
func TestWriteStepsInOrder(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	var got []string
	err := atomicfile.WriteSteps(name, []byte("x"), 0o600, func(op string) error { got = append(got, op); return nil })
	if want := []string{"create", "write", "sync", "rename", "syncdir"}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("steps %v, %v; want %v", got, err, want)
	}
}

func TestAnErrorAtAnyStepLeavesOldOrNewContent(t *testing.T) {
	fault := errors.New("no space left")
	for _, at := range []string{"create", "write", "sync", "rename", "syncdir"} {
		dir := t.TempDir()
		name := filepath.Join(dir, "file")
		if err := atomicfile.Write(name, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := atomicfile.WriteSteps(name, []byte("new"), 0o600, func(op string) error {
			if op == at {
				return fault
			}
			return nil
		})
		if !errors.Is(err, fault) {
			t.Fatalf("%s: error %v", at, err)
		}
		got, _ := os.ReadFile(name)
		want := "old"
		if at == "syncdir" {
			want = "new"
		}
		if string(got) != want {
			t.Errorf("%s: content %q, want %q", at, got, want)
		}
		if left, _ := os.ReadDir(dir); len(left) != 1 {
			t.Errorf("%s: left over %v", at, left)
		}
	}
}
