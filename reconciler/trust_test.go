package reconciler_test

import (
	"crypto"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"selvedge/edge/verify"
	"selvedge/schema/trust"
)

func TestRotateSigner(t *testing.T) {
	w := newWorld(t)
	w.run()
	w.push("one", nil)
	w.until("the push", func() bool { return w.value("gw-1") == "one" })
	before := w.generations()

	// a new document is published while the loop runs, without a commit
	next := newKey()
	w.rotate(trust.Change{AddSigners: []crypto.PublicKey{next.Public()}})
	w.until("the second document", func() bool { return len(w.docs()) == 2 })
	w.values(map[string]string{"gw-1": "one"})
	if !maps.Equal(w.generations(), before) {
		t.Error("states were signed anew without need")
	}

	// the key in use is taken out: nodes learn it, and no more is signed with it
	w.rotate(trust.Change{RemoveSigners: []crypto.PublicKey{w.signer.Public()}})
	w.until("the third document", func() bool { return len(w.docs()) == 3 })
	w.until("the error", func() bool {
		return strings.Contains(w.r.Status().Error, "the signing key is not listed in root document 3")
	})
	if _, err := w.state("gw-1"); !isReason(err, verify.WrongKey) {
		t.Errorf("a state by the old key: %v", err)
	}

	// with the new key the same content is signed anew, once
	old := w.signer
	w.signer = next
	w.run()
	w.until("new signatures", func() bool { return w.value("gw-1") == "one" && w.value("gw-3") == "one" })
	s, err := w.state("gw-1")
	w.must(err)
	if s.Signer() != next.Hint() || s.Signer() == old.Hint() {
		t.Error("signed by another key")
	}
	after := w.generations()
	for n, g := range after {
		if g <= before[n] {
			t.Errorf("node %s: generation %d, before %d", n, g, before[n])
		}
	}
	w.start()
	w.once()
	if !maps.Equal(w.generations(), after) {
		t.Error("a restart signed again")
	}
}

// TestRotateWithHeldNodes holds that nodes of a refused workspace get their signature
// by the new key when the workspace is good again, changed or not.
func TestRotateWithHeldNodes(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.push("one", nil)
	w.once()
	w.push("a typo", map[string]string{app1: "package fleet\n\nap: x: 1\n"})
	w.once()
	next := newKey()
	w.rotate(trust.Change{AddSigners: []crypto.PublicKey{next.Public()}})
	w.signer = next
	signer := func(node string) string {
		t.Helper()
		s, err := w.state(node)
		w.must(err)
		return s.Signer()
	}
	w.start()
	w.once()
	if signer("gw-1") == next.Hint() || signer("gw-3") != next.Hint() {
		t.Error("before the workspace is mended")
	}
	w.start()
	w.push("as it was", map[string]string{app1: app("one")})
	w.once()
	if signer("gw-1") != next.Hint() || signer("gw-2") != next.Hint() {
		t.Error("after the workspace is mended")
	}
	w.values(map[string]string{"gw-1": "one"})
	before := w.generations()
	w.start()
	w.once()
	if !maps.Equal(w.generations(), before) {
		t.Error("signed twice")
	}
}

func TestTrustInTrouble(t *testing.T) {
	w := newWorld(t)
	w.push("one", nil)
	file := filepath.Join(w.trust, "1.root.json")
	good, err := os.ReadFile(file)
	w.must(err)
	w.run()
	w.until("the push", func() bool { return w.value("gw-1") == "one" })

	w.must(os.WriteFile(file, good[:len(good)/2], 0o644))
	w.until("the error", func() bool { return strings.Contains(w.r.Status().Error, "1.root.json") })
	w.values(map[string]string{"gw-1": "one"})
	w.must(os.WriteFile(file, good, 0o644))
	w.until("the end of it", func() bool { return w.r.Status().Error == "" })

	// another platform's root never replaces a published one
	w.must(os.Remove(file))
	d, err := trust.New([]crypto.PublicKey{newKeyOf(w).Public()}, 1, []crypto.PublicKey{w.signer.Public()})
	w.must(err)
	w.saveRoot(d, nil)
	w.until("the refusal", func() bool { return strings.Contains(w.r.Status().Error, "trust") })
	if docs := w.docs(); string(docs[0]) != string(good) {
		t.Error("the first root document was replaced")
	}
}

func isReason(err error, r verify.Reason) bool {
	var e *verify.Error
	return errors.As(err, &e) && e.Reason == r
}
