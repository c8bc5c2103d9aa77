package edge_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"selvedge/edge/verify/verifytest"
)

func TestTrustRotatedWhileOff(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1"))
	b.good(1)
	b.halt()
	for range 3 {
		b.cloud.Rotate(t)
		b.publishTrust()
	}
	b.publish(2, app("a", "2"))
	b.start()
	b.good(2)
	if s := b.status(); s.Store.TrustVersion != 4 || s.Refused != nil {
		t.Errorf("status %+v", s)
	}
	b.restart()
	b.publish(3, app("a", "3"))
	b.good(3)
}

// A key that was rotated out signs nothing more, neither before nor after the agent's restart.
func TestRevokedSigner(t *testing.T) {
	b := newBed(t)
	b.cfg.Trust = 1 // at every poll
	b.start()
	b.publish(1, app("a", "1"))
	b.good(1)
	stolen := *b.cloud
	b.cloud.Rotate(t)
	b.publishTrust()
	b.wake()
	b.until("the rotation to be known", func() bool { return b.status().Store.TrustVersion == 2 })
	// what runs was signed by the revoked key: it runs on, and that it cannot be verified anew is told
	real := b.cloud
	b.cloud = &stolen
	b.publish(2, app("a", "2"))
	b.cloud = real
	b.until("the alarm", func() bool { r := b.status().Refused; return r != nil && r.Reason == "wrong-key" })
	b.restart()
	b.until("the alarm after a restart", func() bool { s := b.status(); return s.Running && s.Refused != nil && s.Refused.Reason == "wrong-key" })
	b.stays("nothing changes", func() bool { return b.runs("a", "1") && b.status().Store.Floor.Generation == 1 })
	b.publish(3, app("a", "3"))
	b.good(3)
	if s := b.status(); s.Refused != nil {
		t.Errorf("the alarm stays: %+v", s.Refused)
	}
}

// A registry that shows old root documents, or garbage, gets nowhere, and an honest one mends it.
func TestTrustIsNotTakenBack(t *testing.T) {
	b := newBed(t)
	b.cfg.Trust = 1
	b.cloud.Rotate(t)
	b.publishTrust()
	b.publish(1, app("a", "1"))
	b.start()
	b.good(1)
	b.halt()
	// the node loses its root documents, and the registry has only the first one: that of a stolen key
	trust, err := filepath.Glob(filepath.Join(b.cfg.Dir, "store", "trust", "*"))
	if err != nil || len(trust) == 0 {
		t.Fatal("no root documents", err)
	}
	for _, f := range trust {
		if err := os.WriteFile(f, []byte("[]"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.with(status(404))
	b.start()
	b.until("what is good to run", func() bool { return b.runs("a", "1") })
	b.until("the alarm", func() bool {
		r := b.status().Refused
		return r != nil && r.Reason == "trust" && strings.Contains(r.Message, "no state is accepted")
	})
	b.with(nil)
	b.publish(2, app("a", "2"))
	b.wake()
	b.good(2)
	b.until("the alarm to end", func() bool { return b.status().Refused == nil })
}

func TestRefusedStatesChangeNothing(t *testing.T) {
	b := newBed(t)
	b.start()
	b.publish(1, app("a", "1"))
	b.good(1)
	mine, other := b.key, verifytest.NewKey(t).Public()
	b.key = other
	b.publish(2, app("a", "2"))
	b.key = mine
	b.until("the alarm", func() bool { r := b.status().Refused; return r != nil && r.Reason == "other-node" && r.Generation == 2 })
	if s := b.status(); s.Well() || s.Store.Floor.Generation != 1 || !b.runs("a", "1") {
		t.Errorf("status %+v", s)
	}
	b.publish(3, app("a", "3"))
	b.good(3)
}

// Trust that cannot be asked for is no alarm: the link says what there is to say.
func TestNoTrustPublishedIsNoAlarm(t *testing.T) {
	b := newBed(t)
	b.cfg.Trust = 1
	real := b.store.Handler()
	b.with(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/trust/") {
			w.WriteHeader(404)
			return
		}
		real.ServeHTTP(w, r)
	})
	b.start()
	b.publish(1, app("a", "1"))
	b.good(1)
	b.stays("no alarm", func() bool { return b.status().Refused == nil })
}
