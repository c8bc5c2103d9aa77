package validate

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestCacheFull holds that a full disk costs the cache and nothing else: the file is no
// damaged one that would be kept beside a new one.
func TestCacheFull(t *testing.T) {
	at := t.TempDir()
	if err := syscall.Mount("tmpfs", at, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	file := filepath.Join(at, "validate.db")
	dir := repoDir(t, baseRepo())
	v := New(Config{CacheFile: file})
	if _, got := evaluated(t, v, dir); got != "line-1 line-2" {
		t.Fatal(got)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	fill, err := os.Create(filepath.Join(at, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = fill.Write(block)
	}
	if err := fill.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		v = New(Config{CacheFile: file})
		write(t, dir, map[string]string{wsDir + "/more.cue": "package fleet\n\nnode: \"gw-5\": {}\n"})
		f, _ := evaluated(t, v, dir)
		if f.Workspaces[wsDir].Unit == nil {
			t.Error("a full disk refuses a workspace")
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(file + ".corrupt"); err == nil {
		t.Error("the cache was set aside")
	}
}
