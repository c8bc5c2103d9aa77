package enrol

import (
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"selvedge/schema/wire"
)

// A hub that has not heard of the fleet yet tells nobody to be unknown.
func TestHubThatKnowsNothingYet(t *testing.T) {
	w := newWorld(t)
	c := w.config()
	ready := false
	c.Ready = func() bool { return ready }
	e, n := New(c), newNode(t)
	if a := n.token(e); a.status != http.StatusServiceUnavailable {
		t.Errorf("%d %s", a.status, a.body)
	}
	ready = true
	if a := n.token(e); a.problem().Type != wire.ProblemUnknownNode {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// A hub that does not hear what Git says tells no key to be unknown, nor to wait: another hub may
// know it, which a node asks only if this one is at a loss.
func TestHubThatIsBehind(t *testing.T) {
	w := newWorld(t)
	c := w.config()
	behind := true
	c.Behind = func() bool { return behind }
	e, n := New(c), newNode(t)
	if a := n.token(e); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.setNode(n.public, "gw-1")
	if a := n.token(e); a.status != http.StatusOK {
		t.Errorf("a node that it does know: %d %s", a.status, a.body)
	}
	behind = false
	if a := newNode(t).token(e); a.problem().Type != wire.ProblemUnknownNode {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// What such a hub knows of guides and nodes may be old as well: it gives no last word on a join
// token, takes nothing from what the hubs share, and accuses no bearer.
func TestHubThatIsBehindSharesNoMistake(t *testing.T) {
	w := newWorld(t)
	var behind atomic.Bool
	e := w.hub(func(c *Config) { c.Behind = behind.Load })
	n := newNode(t)
	tokens := w.tokens(e, "folders/lab/box", 2)
	into[wire.Joined](t, n.join(e, tokens[0]))
	w.setNode(n.public, "gw-1")
	bearer := "Bearer " + into[wire.Token](t, n.token(e)).Bearer
	behind.Store(true)

	// it left Git unheard, and joined again at another hub
	e.sweep(t.Context())
	if a := n.join(e, tokens[1]); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("a key that Git may not list any more: %d %s", a.status, a.body)
	}
	w.setNode(n.public, "")
	other := w.hub(nil)
	if waiting, err := other.Pending(t.Context()); err != nil || len(waiting) != 1 {
		t.Errorf("the other hub has %v, %v", waiting, err)
	}
	into[wire.Joined](t, n.join(other, tokens[0]))

	// a guide that came since
	w.mu.Lock()
	box := w.guides["folders/lab/box"]
	delete(w.guides, "folders/lab/box")
	w.mu.Unlock()
	if a := newNode(t).join(e, tokens[1]); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("a guide that may be in Git: %d %s", a.status, a.body)
	}

	if _, _, err := e.Bearer(with(bearer)); !errors.Is(err, ErrRemoved) {
		t.Error(err)
	}
	if told := w.rejections(); told != "" {
		t.Errorf("the audit has %s", told)
	}
	behind.Store(false)
	if _, _, err := e.Bearer(with(bearer)); !errors.Is(err, ErrRemoved) || !strings.Contains(w.rejections(), "key is not in Git") {
		t.Error("a bearer of a removed node is not noted:", err)
	}
	if a := newNode(t).join(e, tokens[1]); a.status != http.StatusForbidden {
		t.Errorf("a guide that is not in Git: %d %s", a.status, a.body)
	}
	w.mu.Lock()
	w.guides["folders/lab/box"] = box
	w.mu.Unlock()
	into[wire.Joined](t, newNode(t).join(e, tokens[1])) // none of that used it up
}
