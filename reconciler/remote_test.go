package reconciler_test

import (
	"os"
	"path/filepath"
	"testing"

	"selvedge/reconciler/publish"
	"selvedge/test/env"
)

// TestRemoteRegistry publishes into a real registry, loses the file that remembers what
// was pushed, and goes on.
func TestRemoteRegistry(t *testing.T) {
	addr := env.Registry(t)
	w := newWorld(t)
	file := filepath.Join(w.data, "pushed.db")
	var remote *publish.Remote
	open := func() {
		t.Helper()
		var err error
		remote, err = publish.OpenRemote(publish.RemoteConfig{Registry: addr, PlainHTTP: true, StatePath: file})
		w.must(err)
		w.pub = remote
		w.start()
	}
	value := func(node string) (string, int64) {
		t.Helper()
		s, err := w.stateFrom("http://"+addr, node)
		if err != nil {
			return err.Error(), 0
		}
		return valueOf(s), s.Generation()
	}
	open()
	w.push("one", nil)
	w.once()
	was := map[string]int64{}
	for _, n := range []string{"gw-1", "gw-2", "gw-3"} {
		v, g := value(n)
		if was[n] = g; v != "one" {
			t.Errorf("node %s: %q", n, v)
		}
	}
	w.must(remote.Close())
	w.must(os.Remove(file))

	open()
	defer func() { w.must(remote.Close()) }()
	w.push("two", map[string]string{app1: app("two")})
	// the registry's generations may be ahead of the clock: the first pass then learns them
	if err := w.r.Once(t.Context()); err != nil {
		w.once()
	}
	for n, want := range map[string]string{"gw-1": "two", "gw-2": "two", "gw-3": "one"} {
		if v, g := value(n); v != want || g < was[n] {
			t.Errorf("node %s: %q, generation %d; before %d", n, v, g, was[n])
		}
	}
	w.push("without gw-2", map[string]string{line1: workspace("Line 1", w.node("gw-1"))})
	w.once()
	if v, _ := value("gw-2"); v == "two" {
		t.Error("the state of a deleted node is there still")
	}
	if s := w.r.Status(); s.Removed != 1 || s.Error != "" {
		t.Errorf("status %+v", s)
	}
}
