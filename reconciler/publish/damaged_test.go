package publish_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"selvedge/reconciler/publish"
	"selvedge/schema/nodestate"
)

// TestDamaged holds that a damaged file is an error that says what to do, whatever part of it
// is damaged: never a crash, never a wait without end.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "states.db")
	s, err := publish.Open(publish.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"gw-1", "gw-2", "gw-3"} {
		if err := s.Put(t.Context(), []nodestate.Artifact{artifact(t, n, 1)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	noise := bytes.Repeat([]byte{0xa5, 0x5a, 0xff, 0x01}, 1024)
	over := func(page, n int) []byte {
		b := bytes.Clone(good)
		for i := page; i < page+n; i++ {
			copy(b[i*4096:], noise)
		}
		return b
	}
	for name, b := range map[string][]byte{
		"noise": noise, "cut": good[:9000], "short": good[:5000], "heads": over(0, 2), "all but the heads": over(2, 14),
		"page 2": over(2, 1), "page 3": over(3, 1), "page 4": over(4, 1), "page 5": over(5, 1), "page 6": over(6, 1), "page 7": over(7, 1),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "states.db")
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- use(t, path) }()
			select {
			case err := <-done:
				t.Log(err)
				if err != nil && !errors.Is(err, publish.ErrDamaged) {
					t.Error(err)
				}
			case <-time.After(time.Minute):
				t.Fatal("no answer")
			}
		})
	}
}

func use(t *testing.T, path string) error {
	s, err := publish.Open(publish.Config{Path: path})
	if err != nil {
		return err
	}
	_, errHeads := s.Heads()
	errPut := s.Put(t.Context(), []nodestate.Artifact{artifact(t, "gw-2", 2)})
	errAgain := s.Put(t.Context(), []nodestate.Artifact{artifact(t, "gw-3", 2)})
	return errors.Join(errHeads, errPut, errAgain, s.Close())
}
