package bus

import (
	"maps"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"selvedge/schema/wire"
)

func TestRevokeDropsLiveConnection(t *testing.T) {
	c := Config{Dir: t.TempDir()}
	h := start(t, c)
	a, b := join(t, h, "a"), join(t, h, "b")
	drain(a.dropped)
	began := time.Now()
	if err := h.Revoke(t.Context(), a.key); err != nil {
		t.Fatal(err)
	}
	wait(t, "the connection's end", a.dropped)
	t.Logf("dropped after %v", time.Since(began))
	h.untilThere(t, "a", false)
	wait(t, "a refusal of the old JWT", a.errs)
	if a.IsConnected() || !b.IsConnected() {
		t.Fatal("a connected:", a.IsConnected(), "b connected:", b.IsConnected())
	}
	// the key comes back to Git: a newer JWT works, without a new connection object
	a.renew(t, h.Bus)
	wait(t, "the way back", a.back)
	h.untilThere(t, "a", true)
	if err := a.Publish(wire.StatusSubject("a"), nil); err != nil {
		t.Error(err)
	}

	// a restart forgets no revocation
	if err := h.Revoke(t.Context(), b.key); err != nil {
		t.Fatal(err)
	}
	h.stop()
	h = start(t, c)
	if err := b.connect(t, h); err == nil {
		t.Error("the restarted server takes a revoked key")
	}
	if h.revoked.at(b.key) == 0 {
		t.Error("the restarted hub knows of no revocation")
	}
	if err := newNode(t, h.Bus, "c").connect(t, h); err != nil {
		t.Error(err)
	}
}

func TestNotInGitIsRevoked(t *testing.T) {
	var out atomic.Pointer[string]
	h := start(t, Config{Allowed: func(node, key string) bool { k := out.Load(); return k == nil || *k != key }})
	n, other := join(t, h, "a"), join(t, h, "b")
	out.Store(&n.key)
	h.presence.sweep(time.Now())
	wait(t, "the connection's end", n.dropped)
	h.untilThere(t, "a", false)
	// at connection
	late := newNode(t, h.Bus, "late")
	out.Store(&late.key)
	if err := late.connect(t, h); err != nil {
		t.Fatal(err)
	}
	wait(t, "the connection's end", late.dropped)
	if !other.IsConnected() {
		t.Error("b was dropped, too")
	}
}

func TestRevokeOfTwoHubs(t *testing.T) {
	h := start(t, Config{})
	a, b := newNode(t, h.Bus, "a"), newNode(t, h.Bus, "b")
	// another hub writes what this one does not know, and overwrites nothing
	if err := h.Revoke(t.Context(), a.key); err != nil {
		t.Fatal(err)
	}
	acc, err := h.lookup(t.Context(), h.sys())
	if err != nil {
		t.Fatal(err)
	}
	write := func(r jwt.RevocationList) {
		t.Helper()
		acc.Revocations = r
		text, _ := acc.Encode(h.keys.operator)
		if _, err := askServer(t.Context(), h.sys(), claimsUpdate, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	write(jwt.RevocationList{b.key: time.Now().Unix()})
	h.keepRevoked(t.Context())
	if acc, err = h.lookup(t.Context(), h.sys()); err != nil || len(acc.Revocations) != 2 {
		t.Fatal(acc.Revocations, err)
	}
	for _, n := range []*node{a, b} {
		if err := n.connect(t, h); err == nil {
			t.Error(n.name, "is let in")
		}
	}
	if err := h.Revoke(t.Context(), "*"); err == nil {
		t.Error("everybody was revoked")
	}
}

// issuedAt gives a node a JWT of a hub whose clock is ahead.
func (n *node) issuedAt(t *testing.T, h *hub, at time.Time) {
	t.Helper()
	c, err := jwt.DecodeUserClaims(n.jwt)
	if err != nil {
		t.Fatal(err)
	}
	if n.jwt, err = issue(c, h.keys.signer, at.Unix()); err != nil {
		t.Fatal(err)
	}
}

// TestRevokeOfWrongClock: what a hub issued while its clock was ahead is revoked all the same.
func TestRevokeOfWrongClock(t *testing.T) {
	h := start(t, Config{})
	// connected: whatever the clock was
	a := newNode(t, h.Bus, "a")
	a.issuedAt(t, h, time.Now().AddDate(1, 0, 0))
	if err := a.connect(t, h); err != nil {
		t.Fatal(err)
	}
	h.untilThere(t, "a", true)
	drain(a.dropped)
	// not connected: wrong by hours
	b := newNode(t, h.Bus, "b")
	b.issuedAt(t, h, time.Now().Add(14*time.Hour))
	if err := h.Revoke(t.Context(), a.key, b.key); err != nil {
		t.Fatal(err)
	}
	wait(t, "the connection's end", a.dropped)
	wait(t, "a refusal of the old JWT", a.errs)
	if err := b.connect(t, h); err == nil {
		t.Error("b is let in")
	}
	// another hub listed the key again, gave it a JWT, and now Git does not list it again
	b.renew(t, h.Bus)
	if err := h.Revoke(t.Context(), b.key); err != nil {
		t.Fatal(err)
	}
	if err := b.connect(t, h); err == nil {
		t.Error("b is let in with what the revocation before brought about")
	}
}

// TestWrongClockConnectsLate: what is ahead by more than revocations are shows when it connects.
func TestWrongClockConnectsLate(t *testing.T) {
	var out atomic.Bool
	h := start(t, Config{Allowed: func(string, string) bool { return !out.Load() }})
	n := newNode(t, h.Bus, "a")
	n.issuedAt(t, h, time.Now().AddDate(1, 0, 0))
	out.Store(true)
	if err := h.Revoke(t.Context(), n.key); err != nil {
		t.Fatal(err)
	}
	if err := n.connect(t, h); err != nil {
		t.Fatal(err)
	}
	wait(t, "the connection's end", n.dropped)
	wait(t, "a refusal of the JWT", n.errs)
}

// TestRevokedInTheFuture: who revokes with a clock that is ahead locks nobody out who may come back.
func TestRevokedInTheFuture(t *testing.T) {
	for what, all := range map[string]bool{"its key": false, "all": true} {
		t.Run(what, func(t *testing.T) {
			c := Config{Dir: t.TempDir()}
			h := start(t, c)
			n := join(t, h, "a")
			key := n.key
			if all {
				key = jwt.All
			}
			h.revoked.learn(&jwt.AccountClaims{Account: jwt.Account{Revocations: jwt.RevocationList{key: time.Now().AddDate(1, 0, 0).Unix()}}})
			if err := h.pushRevoked(t.Context(), h.sys(), true); err != nil {
				t.Fatal(err)
			}
			wait(t, "the connection's end", n.dropped)
			n.renew(t, h.Bus)
			wait(t, "the way back", n.back)
			h.stop()
			h = start(t, c)
			n = newNode(t, h.Bus, "b")
			if err := n.connect(t, h); err != nil {
				t.Error("after a restart:", err)
			}
			poll(t, "its status", func() bool { // the hub's own connections are there, too
				n.Publish(wire.StatusSubject("b"), []byte("x"))
				h.mu.Lock()
				defer h.mu.Unlock()
				return len(h.statuses["b"]) > 0
			})
		})
	}
}

// TestAllRevokedOnACluster: a hub that starts where all JWTs are revoked, as of the future, makes newer ones.
func TestAllRevokedOnACluster(t *testing.T) {
	dir := t.TempDir()
	ports := freePorts(t, 2)
	text, err := ServerConfig(dir, External{Name: "one", Listen: ports[0], WebSocket: ports[1], Store: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	startText(t, text)
	c := Config{Dir: dir, Servers: []string{"nats://" + ports[0], "ws://" + ports[1]}}
	h := start(t, c)
	h.revoked.learn(&jwt.AccountClaims{Account: jwt.Account{Revocations: jwt.RevocationList{jwt.All: time.Now().AddDate(1, 0, 0).Unix()}}})
	if err := h.pushRevoked(t.Context(), h.sys(), true); err != nil {
		t.Fatal(err)
	}
	h.stop()
	h = start(t, c)
	join(t, h, "a")
}

// TestAccountsAreNewer: among servers that differ the one that was issued later wins, so each
// that is written is newer than those before, whatever the clocks are.
func TestAccountsAreNewer(t *testing.T) {
	h := start(t, Config{})
	acc, err := h.lookup(t.Context(), h.sys())
	if err != nil {
		t.Fatal(err)
	}
	text, _ := issue(acc, h.keys.operator, time.Now().Add(time.Hour).Unix())
	if _, err := askServer(t.Context(), h.sys(), claimsUpdate, []byte(text)); err != nil {
		t.Fatal(err)
	}
	last := acc
	for _, name := range []string{"a", "b"} {
		if err := h.Revoke(t.Context(), newNode(t, h.Bus, name).key); err != nil {
			t.Fatal(err)
		}
		now, err := h.lookup(t.Context(), h.sys())
		if err != nil || now.IssuedAt <= last.IssuedAt || now.ID == last.ID {
			t.Fatal("not newer:", now.IssuedAt, now.ID, last.IssuedAt, last.ID, err)
		}
		last = now
	}
}

// TestRevokedBeforeStart: a hub that learns of it before its server runs lets nobody in meanwhile.
func TestRevokedBeforeStart(t *testing.T) {
	c := Config{Dir: t.TempDir()}
	b, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t, b, "a")
	h := start(t, c, n.key)
	if err := n.connect(t, h); err == nil {
		t.Error("let in")
	}
	n.renew(t, h.Bus)
	if err := n.connect(t, h); err != nil {
		t.Error(err)
	}
}

func TestPrune(t *testing.T) {
	const long = maxTTL + revokedAhead + 2*time.Hour
	var r revoked
	r.init()
	now := time.Now()
	theirs := map[string]int64{"old": now.Add(-long).Unix(), "heard of lately": now.Add(-long).Unix(), "new": now.Unix()}
	for k, at := range theirs {
		r.raise(k, at)
	}
	r.raise("removed by another hub", now.Add(-long).Unix())
	r.raise("not written yet", now.Add(-long).Unix())
	r.since["old"], r.since["new"], r.since["removed by another hub"] = now.Add(-long), now.Add(-long), now.Add(-2*time.Hour)
	want := map[string]int64{"heard of lately": theirs["old"], "new": now.Unix(), "not written yet": theirs["old"]}
	if r.prune(now, theirs); !maps.Equal(r.keys, want) {
		t.Error(r.keys)
	}
	for i := range maxRevoked + 1 {
		r.raise(string(rune(i+1000)), now.Unix()-int64(i))
	}
	r.prune(now, theirs)
	if len(r.keys) != 1 || r.keys[jwt.All] != now.Unix() || len(r.since) != 1 {
		t.Error(len(r.keys), len(r.since))
	}
}

// TestClockOfTheHubIsAhead: a hub that starts with a clock days ahead removes no revocation that
// still matters.
func TestClockOfTheHubIsAhead(t *testing.T) {
	h := start(t, Config{})
	n := newNode(t, h.Bus, "a")
	at := time.Now().Add(-4 * maxTTL).Unix() // what is stamped now, seen from there
	h.revoked.learn(&jwt.AccountClaims{Account: jwt.Account{Revocations: jwt.RevocationList{n.key: at}}})
	if err := h.pushRevoked(t.Context(), h.sys(), true); err != nil {
		t.Fatal(err)
	}
	// it begins anew and knows what the servers tell
	h.revoked.mu.Lock()
	h.revoked.init()
	h.revoked.mu.Unlock()
	for range 2 {
		h.keepRevoked(t.Context())
	}
	if acc, err := h.lookup(t.Context(), h.sys()); err != nil || acc.Revocations[n.key] != at {
		t.Error(acc.Revocations, err)
	}
}

// TestRevokeMany: more keys than fit are revoked all at once; those who may stay come back.
func TestRevokeMany(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 8,000 keys")
	}
	h := start(t, Config{})
	n := join(t, h, "stays")
	var keys []string
	for range maxRevoked + 1 {
		k, _ := nkeys.CreateUser()
		p, _ := k.PublicKey()
		keys = append(keys, p)
	}
	if err := h.Revoke(t.Context(), keys...); err != nil {
		t.Fatal(err)
	}
	wait(t, "the connection's end", n.dropped)
	n.renew(t, h.Bus)
	wait(t, "the way back", n.back)
	h.untilThere(t, "stays", true)
	poll(t, "its status", func() bool { // the hub's own connections come back, too
		n.Publish(wire.StatusSubject("stays"), []byte("x"))
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.statuses["stays"]) > 0
	})
}
