package edge_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"selvedge/edge"
)

// Joining may be cut off between any two of its writes, or in the middle of one: it goes on with what there is,
// and the token is not lost.
func TestJoinOverPowerCuts(t *testing.T) {
	b, h := withHub(t)
	b.join(h)
	files := []string{"identity/node.key", "identity/age.key", "trust.root.json", "hub-ca.pem", "agent.json"} // in their order
	whole := b.cfg.Dir
	t.Cleanup(func() { os.RemoveAll(whole) })
	for cut := 0; cut < 2*len(files); cut++ {
		dir := filepath.Join(t.TempDir(), fmt.Sprint("n", cut))
		keep := func(name, as string, whole []byte) {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, as)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, as), whole, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for n, name := range files {
			content, err := os.ReadFile(filepath.Join(whole, name))
			if err != nil {
				t.Fatal(err)
			}
			if n < cut/2 && name != "agent.json" {
				keep(name, name, content)
			} else if n == cut/2 && cut%2 == 1 { // in the middle: the file that was to take its name
				keep(name, filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".tmp"), content[:len(content)/2])
			}
		}
		token := fmt.Sprint("t", cut)
		h.Lock()
		h.Tokens[token] = true
		h.Unlock()
		j, err := edge.Join(t.Context(), dir, b.options(h, token))
		if err != nil || j.PublicKey == "" || j.Code == "" {
			t.Errorf("cut %d: %+v, %v", cut, j, err)
		}
		if cut >= 2 && j.PublicKey != b.key {
			t.Errorf("cut %d: another key", cut)
		}
		if again, err := edge.Join(t.Context(), dir, b.options(h, "none")); err != nil || again != j {
			t.Errorf("cut %d, again: %+v, %v", cut, again, err)
		}
	}
}

// A disk that is full, or a directory that takes nothing, is told, and asked again it works.
func TestJoinOnADiskThatTakesNothing(t *testing.T) {
	b, h := withHub(t)
	h.Tokens["t"] = true
	for _, blocked := range []string{"identity", "trust.root.json", "hub-ca.pem", "agent.json"} {
		name := filepath.Join(b.cfg.Dir, blocked)
		if blocked == "identity" { // a file where a directory is to be
			if err := os.MkdirAll(b.cfg.Dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		} else if err := os.MkdirAll(filepath.Join(name, "in the way"), 0o700); err != nil {
			t.Fatal(err)
		}
		if j, err := edge.Join(t.Context(), b.cfg.Dir, b.options(h, "t")); err == nil {
			t.Errorf("%s: %+v", blocked, j)
		}
		if err := os.RemoveAll(name); err != nil {
			t.Fatal(err)
		}
	}
	if len(h.Joins) != 0 {
		t.Error("the hub was asked before everything was on the disk")
	}
	if j, err := edge.Join(t.Context(), b.cfg.Dir, b.options(h, "t")); err != nil || j.Code == "" {
		t.Errorf("%+v, %v", j, err)
	}
}
