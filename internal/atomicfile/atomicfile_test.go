package atomicfile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteReplaces(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	for _, content := range []string{"one", "a second, longer one", ""} {
		if err := Write(name, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil || string(got) != content {
			t.Fatalf("read %q, %v; want %q", got, err, content)
		}
	}
	if fi, _ := os.Stat(name); fi.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", fi.Mode())
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 1 {
		t.Errorf("left over: %v", left)
	}
}

func TestWriteOverLeftover(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	// what a crash between write and rename leaves, with other rights
	if err := os.WriteFile(filepath.Join(dir, ".f.tmp"), []byte("longer than the new content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(name, []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(name)
	fi, _ := os.Stat(name)
	if string(got) != "new" || fi.Mode().Perm() != 0o644 {
		t.Errorf("content %q, mode %v", got, fi.Mode())
	}
}

func TestWriteKeepsOldOnError(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	if err := Write(name, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, ".f.tmp"), 0o755); err != nil { // the temporary file cannot be made
		t.Fatal(err)
	}
	if err := Write(name, []byte("new"), 0o644); err == nil {
		t.Fatal("no error")
	}
	if got, _ := os.ReadFile(name); string(got) != "old" {
		t.Errorf("content %q, want the old one", got)
	}
	if err := Write(filepath.Join(dir, "missing", "f"), nil, 0o644); err == nil {
		t.Error("no error for a missing directory")
	}
}
