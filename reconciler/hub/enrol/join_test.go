package enrol

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

var codeRE = regexp.MustCompile(`^[2-9B-DF-HJ-NP-TV-Z]{4}-[2-9B-DF-HJ-NP-TV-Z]{4}$`)

func TestJoinIsApprovedInGit(t *testing.T) {
	w := newWorld(t)
	e, n := w.hub(nil), newNode(t)
	token := w.tokens(e, "folders/lab/box", 1)[0]
	code := into[wire.Joined](t, n.join(e, token)).Code
	if !codeRE.MatchString(code) {
		t.Errorf("code %q", code)
	}
	all, err := e.Pending(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	p := all[0]
	if p.Code != code || p.Name != "gw-"+strings.ToLower(code) || p.Guide != "folders/lab/box" || p.Scope != "folders/lab" || p.Labels["site"] != "lab" ||
		p.PublicKey != n.public || p.Recipient != recipient || p.Machine.Hostname != "box" || p.Address != "192.0.2.1" || p.Expires.Sub(p.At) != pendingLife {
		t.Errorf("%+v", p)
	}
	if err := p.Proof.Check(p.PublicKey, p.Recipient); err != nil || p.Proof.Signature == "" {
		t.Errorf("%+v: %v", p.Proof, err)
	}
	other := w.hub(nil) // another hub of the cluster sees it too
	for _, hub := range []*Enrol{e, other} {
		if a := n.token(hub); a.status != 403 || a.problem().Type != wire.ProblemPending || !strings.Contains(a.problem().Detail, code) {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	// the answer was lost: the same again, of any hub
	if again := into[wire.Joined](t, n.join(other, token)).Code; again != code {
		t.Errorf("%s, then %s", code, again)
	}
	w.setNode(n.public, p.Name)
	if all, err := e.Pending(t.Context()); err != nil || len(all) != 0 {
		t.Error("pending though Git lists it:", all, err)
	}
	if got := into[wire.Token](t, n.token(e)); got.Node != p.Name {
		t.Errorf("%+v", got)
	}
	w.rejections()
	if a := n.join(e, token); a.status != 403 || !strings.Contains(w.rejections(), "in Git already") {
		t.Errorf("a key that Git lists joined: %d", a.status)
	}
	e.sweep(t.Context())
	w.setNode(n.public, "") // removed from Git: the old token must not bring it back
	w.until("the request goes", func() bool { _, ok := e.pending.code(n.public); return !ok })
	if a := n.join(e, token); a.status != 403 || !strings.Contains(w.rejections(), "dropped") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestJoinRefusalsLookAlike(t *testing.T) {
	w := newWorld(t)
	e := w.hub(nil)
	w.mu.Lock()
	w.guides["folders/lab/gone"] = roster.Guide{Prefix: "z-"}
	w.mu.Unlock()
	tokens := w.tokens(e, "folders/lab/box", 4)
	used, dropped, waits := newNode(t), newNode(t), newNode(t)
	into[wire.Joined](t, used.join(e, tokens[0]))
	code := into[wire.Joined](t, dropped.join(e, tokens[1])).Code
	into[wire.Joined](t, waits.join(e, tokens[2]))
	if err := e.Drop(t.Context(), " "+strings.ToLower(code)); err != nil {
		t.Fatal(err)
	}
	if err := e.Drop(t.Context(), code); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	gone := w.tokens(e, "folders/lab/gone", 1)[0]
	w.mu.Lock()
	delete(w.guides, "folders/lab/gone")
	w.mu.Unlock()
	known := newNode(t)
	w.setNode(known.public, "gw-1")
	w.rejections()
	var first []byte
	check := func(name string, a answered, reason string) {
		t.Helper()
		if first == nil {
			first = a.body
		}
		if a.status != 403 || a.problem().Type != wire.ProblemJoinToken || !bytes.Equal(a.body, first) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if got := w.rejections(); !strings.Contains(got, reason) || strings.Count(got, "\n") != 0 || !strings.Contains(got, "192.0.2.1") {
			t.Errorf("%s: the audit has %q", name, got)
		}
	}
	check("used", newNode(t).join(e, tokens[0]), "used by "+used.public)
	check("unknown", newNode(t).join(e, "join_guess"), "unknown")
	check("dropped", dropped.join(e, tokens[1]), "dropped")
	check("dropped, and another key", newNode(t).join(e, tokens[1]), "dropped")
	check("guide gone", newNode(t).join(e, gone), "not in Git")
	check("another guide", waits.join(e, w.tokens(e, "folders/lab/other", 1)[0]), "another guide")
	check("in Git", known.join(e, tokens[3]), "in Git already")
	w.setClock(2 * time.Hour)
	check("expired", newNode(t).join(e, tokens[3]), "expired")
	w.setClock(0)
	into[wire.Joined](t, newNode(t).join(e, tokens[3])) // the control: none of that used it up
	if strings.Contains(string(first), "\"used by") {
		t.Error("the answer tells why")
	}
}

func TestJoinSignature(t *testing.T) {
	w := newWorld(t)
	e, n := w.hub(nil), newNode(t)
	token := w.tokens(e, "folders/lab/box", 1)[0]
	for name, change := range map[string]func(*wire.JoinRequest){
		"another recipient":     func(q *wire.JoinRequest) { q.Recipient = "age1" + strings.Repeat("q", 58) },
		"another token":         func(q *wire.JoinRequest) { q.Token += "x" },
		"another key":           func(q *wire.JoinRequest) { q.PublicKey = newNode(t).public },
		"signed for elsewhere":  func(q *wire.JoinRequest) { q.Signature = n.sign(wire.JoinMessage("https://evil.example", *q)) },
		"a signature to log in": func(q *wire.JoinRequest) { q.Signature = n.sign(wire.TokenMessage(hubURL, q.Token)) },
		"none":                  func(q *wire.JoinRequest) { q.Signature = "" },
	} {
		q := n.request(token)
		change(&q)
		if a := ask(t, e, "POST", wire.PathJoin, q); a.status != 401 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	into[wire.Joined](t, n.join(e, token))
}

// One token, many nodes, three hubs: exactly one gets in.
func TestTokenUsedAtOnce(t *testing.T) {
	t.Parallel()
	t.Run("one server", func(t *testing.T) { usedAtOnce(t, newWorld(t)) })
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		if testing.Short() {
			t.Skip("a cluster of three takes seconds")
		}
		w := newCluster(t, 3)
		usedAtOnce(t, w)
		sameAtOnce(t, w)
		manyAtOnce(t, w, 200, 120, 20)
	})
}

func usedAtOnce(t *testing.T, w *world) {
	hubs := []*Enrol{w.hub(nil), w.hub(nil), w.hub(nil)}
	for round, token := range w.tokens(hubs[0], "folders/lab/box", 5) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		count := map[int]int{}
		for i := range 30 {
			n := newNode(t)
			wg.Go(func() {
				a := n.join(hubs[i%3], token)
				mu.Lock()
				defer mu.Unlock()
				count[a.status]++
			})
		}
		wg.Wait()
		if count[200] != 1 || count[403] != 29 {
			t.Errorf("round %d: %v", round, count)
		}
	}
}

// One node asks several times at once, as one does that gives up too early: one request.
func TestSameJoinAtOnce(t *testing.T) { sameAtOnce(t, newWorld(t)) }

func sameAtOnce(t *testing.T, w *world) {
	hubs := []*Enrol{w.hub(nil), w.hub(nil), w.hub(nil)}
	n, token := newNode(t), w.tokens(hubs[0], "folders/lab/box", 1)[0]
	codes := make(chan string, 30)
	var wg sync.WaitGroup
	for i := range cap(codes) {
		wg.Go(func() { codes <- into[wire.Joined](t, n.join(hubs[i%3], token)).Code })
	}
	wg.Wait()
	close(codes)
	all := map[string]bool{}
	for c := range codes {
		all[c] = true
	}
	if len(all) != 1 {
		t.Errorf("%v", all)
	}
}

// A thousand nodes join at once by a guide for 700 of which 100 are in Git: 600 get in, by
// whichever hub, and the tokens of the others stay good.
func TestThousandJoinsAtOnce(t *testing.T) { manyAtOnce(t, newWorld(t), 1000, 700, 100) }

func manyAtOnce(t *testing.T, w *world, joins, most, inGit int) {
	hubs := []*Enrol{w.hub(nil), w.hub(nil), w.hub(nil)}
	w.mu.Lock()
	w.guides["folders/lab/many"] = roster.Guide{Name: "many", Scope: "folders/lab", Prefix: "m-", MaxNodes: most}
	for i := range inGit {
		w.nodes[fmt.Sprint("key", i)] = fmt.Sprint("m-", i)
	}
	w.mu.Unlock()
	tokens := w.tokens(hubs[0], "folders/lab/many", joins)
	nodes := make([]*node, len(tokens))
	for i := range nodes {
		nodes[i] = newNode(t)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	count, late := map[int]int{}, -1
	began := time.Now()
	for i, token := range tokens {
		wg.Go(func() {
			a := nodes[i].join(hubs[i%3], token)
			for a.status == 503 { // a node asks again
				a = nodes[i].join(hubs[i%3], token)
			}
			mu.Lock()
			defer mu.Unlock()
			if count[a.status]++; a.status == 409 {
				late = i
			}
		})
	}
	wg.Wait()
	t.Logf("%d joins in %v: %v", joins, time.Since(began), count)
	room := most - inGit
	if count[200] != room || count[409] != joins-room {
		t.Fatalf("%v", count)
	}
	for _, hub := range hubs {
		w.until("all hubs agree", func() bool { all, err := hub.Pending(t.Context()); return err == nil && of(all) == room })
	}
	codes, names := map[string]bool{}, map[string]bool{}
	all, err := hubs[1].Pending(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	drop := ""
	for _, p := range all {
		if p.Guide != "folders/lab/many" {
			continue
		}
		drop = p.Code
		codes[p.Code], names[p.Name] = true, true
	}
	if len(codes) != room || len(names) != room {
		t.Errorf("%d codes, %d names", len(codes), len(names))
	}
	if err := hubs[2].Drop(t.Context(), drop); err != nil {
		t.Fatal(err)
	}
	w.until("the place is free", func() bool { all, err := hubs[late%3].Pending(t.Context()); return err == nil && of(all) == room-1 })
	into[wire.Joined](t, nodes[late].join(hubs[late%3], tokens[late]))
}

// of counts the requests by the guide for many.
func of(all []hubapi.Pending) (n int) {
	for _, p := range all {
		if p.Guide == "folders/lab/many" {
			n++
		}
	}
	return n
}

// A hub that ended in the middle leaves a request that nobody counted: it is counted when the
// node asks again.
func TestUncountedRequest(t *testing.T) {
	w := newWorld(t)
	e := w.hub(nil)
	w.mu.Lock()
	w.guides["folders/lab/one"] = roster.Guide{Name: "one", Scope: "folders/lab", Prefix: "o-", MaxNodes: 1}
	w.mu.Unlock()
	first, second := newNode(t), newNode(t)
	tokens := w.tokens(e, "folders/lab/one", 2)
	into[wire.Joined](t, first.join(e, tokens[0]))
	kv, err := w.js[0].KeyValue(t.Context(), pendingBucket)
	if err != nil {
		t.Fatal(err)
	}
	v, err := kv.Get(t.Context(), keyPrefix+first.public)
	if err != nil {
		t.Fatal(err)
	}
	uncounted := bytes.ReplaceAll(v.Value(), []byte(first.public), []byte(second.public))
	if _, err := kv.Create(t.Context(), keyPrefix+second.public, uncounted); err != nil {
		t.Fatal(err)
	}
	w.until("the hub knows it", func() bool { _, ok := e.pending.code(second.public); return ok })
	if a := second.join(e, tokens[1]); a.status != 409 {
		t.Errorf("%d %s", a.status, a.body)
	}
	into[wire.Joined](t, first.join(e, tokens[0])) // the control
}

func TestJoinTokensBounds(t *testing.T) {
	w := newWorld(t)
	e := New(w.config())
	ctx := context.Background()
	for name, f := range map[string]func() error{
		"too many":       func() error { _, _, err := e.JoinTokens(ctx, "folders/lab/box", "x", 0, 1001); return err },
		"too long":       func() error { _, _, err := e.JoinTokens(ctx, "folders/lab/box", "x", 25*time.Hour, 1); return err },
		"negative":       func() error { _, _, err := e.JoinTokens(ctx, "folders/lab/box", "x", -time.Hour, 1); return err },
		"no such guide":  func() error { _, _, err := e.JoinTokens(ctx, "folders/lab", "x", 0, 1); return err },
		"pending before": func() error { _, err := e.Pending(ctx); return err },
	} {
		if err := f(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	tokens, expires, err := e.JoinTokens(ctx, "folders/lab/box", "user:ana", 0, 0)
	if err != nil || len(tokens) != 1 || len(tokens[0]) != len(tokenPrefix)+43 || time.Until(expires) > time.Hour || time.Until(expires) < 59*time.Minute {
		t.Error(tokens, expires, err)
	}
	// what is kept does not hold the text
	kv, err := e.tokenBucket(ctx)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := kv.Keys(ctx)
	if err != nil || len(keys) != 1 || strings.Contains(keys[0], tokens[0]) {
		t.Fatal(keys, err)
	}
	v, err := kv.Get(ctx, keys[0])
	if err != nil || bytes.Contains(v.Value(), []byte(tokens[0])) || !bytes.Contains(v.Value(), []byte("user:ana")) {
		t.Errorf("%s %v", v.Value(), err)
	}
	// a hub that does not follow yet takes no requests, and says so
	if a := newNode(t).join(e, tokens[0]); a.status != 503 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestRequestsGoAfterAWeek(t *testing.T) {
	w := newWorld(t)
	e, n := w.hub(nil), newNode(t)
	into[wire.Joined](t, n.join(e, w.tokens(e, "folders/lab/box", 1)[0]))
	w.setClock(7*24*time.Hour + time.Minute)
	if all, err := e.Pending(t.Context()); err != nil || len(all) != 0 {
		t.Error(all, err)
	}
	if a := n.token(e); a.problem().Type != wire.ProblemUnknownNode {
		t.Errorf("%s", a.body)
	}
	e.sweep(t.Context())
	w.until("it has gone", func() bool {
		e.pending.mu.Lock()
		defer e.pending.mu.Unlock()
		return len(e.pending.byKey) == 0
	})
}
