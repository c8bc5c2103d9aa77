package store

import (
	"os"
	"path/filepath"
	"testing"
)

// A process that opens the store may meet another one in the middle of Hold or Release.
func TestOpenLeavesWritesOfOthersAlone(t *testing.T) {
	f, dir := newFleet(t), filepath.Join(t.TempDir(), "store")
	s := f.open(t, dir)
	for _, name := range []string{".hold.tmp", ".retry.tmp", ".slots.0.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = f.reopen(t, s)
	for name, left := range map[string]bool{".hold.tmp": true, ".retry.tmp": true, ".slots.0.tmp": false} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != left {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Hold("now"); err != nil {
		t.Error(err)
	}
	if h, ok := s.Held(); !ok || h.Reason != "now" {
		t.Errorf("hold %+v", h)
	}
}
