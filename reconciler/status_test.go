package reconciler_test

import (
	"os"
	"testing"
)

// TestStatusAfterRestart holds that a start that comes to nothing tells what is served still.
func TestStatusAfterRestart(t *testing.T) {
	w := newWorld(t)
	w.push("one", nil)
	w.start()
	w.once()
	if s := w.r.Status(); s.Before != 0 || s.Nodes != 3 {
		t.Errorf("%+v", s)
	}
	w.must(os.Rename(w.trust, w.trust+".away"))
	r := w.start()
	if err := r.Once(t.Context()); err == nil {
		t.Fatal("no error without trust")
	}
	if s := r.Status(); s.InForce.Hash != "" || s.Before != 3 {
		t.Errorf("%+v", s)
	}
	w.must(os.Rename(w.trust+".away", w.trust))
	w.once()
	if s := r.Status(); s.Before != 0 || s.Error != "" {
		t.Errorf("%+v", s)
	}
}
