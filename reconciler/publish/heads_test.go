package publish_test

import (
	"errors"
	"maps"
	"path/filepath"
	"testing"

	"selvedge/reconciler/publish"
	"selvedge/schema/nodestate"
)

// TestHeadsAreThoseOfTheFile holds what the store remembers against what a new process reads,
// after each kind of write and a refused one. What a caller does to its copy stays its own.
func TestHeadsAreThoseOfTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, publish.Config{Path: path})
	heads := func() map[string]nodestate.Head {
		t.Helper()
		h, err := s.Heads()
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	heads()["x"] = nodestate.Head{Generation: 1}
	put(t, s, artifact(t, "a", 1), artifact(t, "b", 1), artifact(t, "c", 1))
	put(t, s, artifact(t, "b", 2))
	heads()
	if err := s.Put(t.Context(), []nodestate.Artifact{artifact(t, "c", 2), artifact(t, "b", 1)}); !errors.Is(err, publish.ErrGeneration) {
		t.Fatal(err)
	}
	heads()
	if err := s.Remove(t.Context(), []string{"a", "unknown"}); err != nil {
		t.Fatal(err)
	}
	got := heads()
	if got["a"].ContentDigest != "" || got["b"].Generation != 2 || got["c"].Generation != 1 || len(got) != 3 {
		t.Errorf("heads are %v", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, publish.Config{Path: path})
	if read := heads(); !maps.Equal(got, read) {
		t.Errorf("remembered %v, on disk %v", got, read)
	}
}
