package enrol

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"selvedge/schema/hubapi"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

func TestMalformed(t *testing.T) {
	w := newWorld(t)
	e, n := w.hub(nil), newNode(t)
	token := w.tokens(e, "folders/lab/box", 1)[0]
	machine := func(change func(*wire.Machine)) wire.JoinRequest {
		q := n.request(token)
		change(&q.Machine)
		return q
	}
	for name, c := range map[string]struct {
		method, path string
		body         any
		want         int
	}{
		"token, no body":         {"POST", wire.PathToken, nil, 400},
		"token, no JSON":         {"POST", wire.PathToken, []byte("hello"), 400},
		"token, a list":          {"POST", wire.PathToken, []byte("[]"), 400},
		"token, numbers":         {"POST", wire.PathToken, []byte(`{"publicKey": 1}`), 400},
		"token, two values":      {"POST", wire.PathToken, []byte(`{}{}`), 400},
		"token, deep":            {"POST", wire.PathToken, []byte(strings.Repeat("[", 4000)), 400},
		"token, large":           {"POST", wire.PathToken, bytes.Repeat([]byte(" "), maxTokenRequest+1), 413},
		"token, wrong method":    {"GET", wire.PathToken, nil, 405},
		"join, large":            {"POST", wire.PathJoin, bytes.Repeat([]byte(" "), maxJoinRequest+1), 413},
		"join, no key":           {"POST", wire.PathJoin, wire.JoinRequest{Token: token}, 400},
		"join, no token":         {"POST", wire.PathJoin, n.request(""), 400},
		"join, a long token":     {"POST", wire.PathJoin, n.request(strings.Repeat("x", 257)), 400},
		"join, a recipient":      {"POST", wire.PathJoin, func() any { q := n.request(token); q.Recipient = "ssh-ed25519 AAAA"; return q }(), 400},
		"join, escapes":          {"POST", wire.PathJoin, machine(func(m *wire.Machine) { m.Hostname = "\x1b[2J" }), 400},
		"join, lines":            {"POST", wire.PathJoin, machine(func(m *wire.Machine) { m.OS = "a\nb" }), 400},
		"join, right to left":    {"POST", wire.PathJoin, machine(func(m *wire.Machine) { m.Kernel = "a\u202eb" }), 400},
		"join, a long hostname":  {"POST", wire.PathJoin, machine(func(m *wire.Machine) { m.Hostname = strings.Repeat("x", 257) }), 400},
		"join, negative memory":  {"POST", wire.PathJoin, machine(func(m *wire.Machine) { m.Memory = -1 }), 400},
		"join, wrong method":     {"PUT", wire.PathJoin, nil, 405},
		"nonce, wrong method":    {"POST", wire.PathNonce, nil, 405},
		"trust, wrong method":    {"DELETE", wire.PathTrust, nil, 405},
		"elsewhere":              {"GET", "/auth/", nil, 404},
		"join, unknown members":  {"POST", wire.PathJoin, func() any { return more(t, n.request(token)) }(), 200}, // a newer node
		"nonce, with a question": {"GET", wire.PathNonce + "?x=y", nil, 200},
	} {
		a := ask(t, e, c.method, c.path, c.body)
		if a.status != c.want {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if p := a.problem(); (a.status == 400 || a.status == 413) && (p.Status != a.status || p.Detail == "") {
			t.Errorf("%s: no problem: %s", name, a.body)
		}
		if a.status == 200 && a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: may be cached", name)
		}
	}
}

// TestNowhere: also what is not there is answered as everything else: as a problem, and bounded.
func TestNowhere(t *testing.T) {
	w := newWorld(t)
	e := w.hub(func(c *Config) { c.Rate = Rate{Source: 1} })
	for _, c := range []struct {
		method, path, allow string
		want                int
	}{
		{"GET", "/auth/", "", 404}, {"GET", "/auth//nonce", "", 404}, {"GET", "/auth/nonce/", "", 404}, {"POST", "/auth/../auth/token", "", 404},
		{"POST", wire.PathNonce, "GET, HEAD", 405}, {"GET", wire.PathToken, "POST", 405}, {"HEAD", wire.PathJoin, "POST", 405}, {"DELETE", wire.PathTrust, "GET, HEAD", 405},
		{"OPTIONS", wire.PathJoin, "POST", 405}, {"HEAD", wire.PathNonce, "", 200},
	} {
		a := ask(t, e, c.method, c.path, nil)
		if a.status != c.want || a.header.Get("Allow") != c.allow || c.want != 200 && (a.problem().Status != c.want || a.problem().Detail == "") {
			t.Errorf("%s %s: %d, allow %q: %s", c.method, c.path, a.status, a.header.Get("Allow"), a.body)
		}
	}
	for n := 0; ask(t, e, "GET", "/auth/x", nil).status != 429; n++ {
		if n > 20 {
			t.Fatal("as often as somebody likes")
		}
	}
}

func more(t *testing.T, q wire.JoinRequest) map[string]any {
	t.Helper()
	b, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]any{}
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	m["future"] = map[string]any{"x": 1}
	return m
}

func from(e *Enrol, address string) answered {
	r := httptest.NewRequest("GET", wire.PathNonce, nil)
	r.RemoteAddr = address
	w := httptest.NewRecorder()
	e.Handler().ServeHTTP(w, r)
	return answered{w.Code, w.Header(), w.Body.Bytes()}
}

func TestLimits(t *testing.T) {
	w := newWorld(t)
	start := time.Now()
	var now time.Time
	c := w.config()
	c.Now = func() time.Time { return now }
	c.Rate = Rate{All: 100, Source: 1}
	now = start
	e := New(c)
	good := func(address string, n int) (ok int) {
		for range n {
			switch a := from(e, address); {
			case a.status == 200:
				ok++
			case a.status != 429 || a.header.Get("Retry-After") == "" || a.problem().Reason != hubapi.ReasonBusy:
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		return ok
	}
	if n := good("192.0.2.7:1", 100); n != 20 {
		t.Errorf("a source asked %d times", n)
	}
	if n := good("192.0.2.8:1", 1); n != 1 {
		t.Error("another source suffers")
	}
	if n := good("[2001:db8::1]:1", 15) + good("[2001:db8::ffff:1]:1", 15) + good("[2001:db8:0:1::1]:1", 1); n != 21 {
		t.Errorf("a /64 asked %d times", n)
	}
	if n := good("[::ffff:192.0.2.7]:1", 1); n != 0 {
		t.Error("an address in two spellings")
	}
	now = start.Add(5 * time.Second)
	if n := good("192.0.2.7:1", 100); n != 5 {
		t.Errorf("after 5 s %d times", n)
	}
	all := 0
	for i := range 1000 {
		all += good(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String()+":1", 1)
	}
	if all != 500-5 { // what was asked before has come back in 5 s
		t.Errorf("all together asked %d times", all)
	}
	for i := range 3 * maxSources {
		e.limits.of(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), now)
	}
	if n := len(e.limits.sources); n > maxSources {
		t.Errorf("%d sources are remembered", n)
	}
	now = now.Add(time.Hour)
	e.limits.of(netip.MustParseAddr("192.0.2.9"), now)
	if n := len(e.limits.sources); n != 1 {
		t.Errorf("%d sources are remembered after an hour", n)
	}
}

func TestAuditIsNotFlooded(t *testing.T) {
	w := newWorld(t)
	at := time.Now()
	w.now = func() time.Time { return at }
	e := w.hub(nil)
	refuse := func(stranger bool, n int) string {
		for range n {
			e.rejects.add(httptest.NewRequest(http.MethodPost, wire.PathJoin, nil), stranger, "join", "reason", "x")
		}
		return w.rejections()
	}
	if n := strings.Count(refuse(true, strangersHits+100), "join"); n != strangersHits {
		t.Errorf("strangers wrote %d lines", n)
	}
	e.RefusedPull(httptest.NewRequest(http.MethodGet, wire.PathV2, nil), "reason", "x")
	if got := w.rejections(); !strings.Contains(got, "pull") {
		t.Error("who may not join hides who may not pull")
	}
	if n := strings.Count(refuse(false, rejectsBurst+100), "join"); n != rejectsBurst {
		t.Errorf("%d lines: strangers must not hide what is done with tokens", n)
	}
	at = at.Add(time.Hour)
	for _, stranger := range []bool{true, false} {
		if got := refuse(stranger, 1); !strings.Contains(got, "dropped 100") && !strings.Contains(got, "dropped100") {
			t.Errorf("%q", got)
		}
	}
	// day after day
	lines := 0
	for range 24 * 60 {
		at = at.Add(time.Minute)
		lines += strings.Count(refuse(true, 100), "join")
	}
	if lines > 24*60+strangersHits {
		t.Errorf("strangers wrote %d lines in a day", lines)
	}
}

// TestStrangersDoNotHideTokens: what is tried without a join token is told apart.
func TestStrangersDoNotHideTokens(t *testing.T) {
	w := newWorld(t)
	at := time.Now()
	w.now = func() time.Time { return at }
	e := w.hub(nil)
	token := w.tokens(e, "folders/lab/box", 1)[0]
	if a := newNode(t).join(e, token); a.status != 200 {
		t.Fatal(a)
	}
	for range strangersHits + 10 {
		q := newNode(t).request("join_x")
		q.Signature = ""
		ask(t, e, http.MethodPost, wire.PathJoin, q)
	}
	if n := strings.Count(w.rejections(), "signature"); n != strangersHits {
		t.Errorf("%d lines of strangers", n)
	}
	if a := newNode(t).join(e, token); a.status != 403 {
		t.Fatal(a)
	}
	if got := w.rejections(); !strings.Contains(got, "used by") {
		t.Errorf("a token that is used twice is not told: %q", got)
	}
}

// TestJoinedIsTold: who waits, by whose token, once.
func TestJoinedIsTold(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	var told []string
	e := w.hub(func(c *Config) {
		c.Joined = func(p hubapi.Pending, by string) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, p.Guide+" "+p.PublicKey+" "+by)
		}
	})
	n, token := newNode(t), w.tokens(e, "folders/lab/box", 1)[0]
	for range 2 {
		if a := n.join(e, token); a.status != 200 {
			t.Fatal(a)
		}
	}
	newNode(t).join(e, token)
	mu.Lock()
	defer mu.Unlock()
	if len(told) != 1 || !strings.HasPrefix(told[0], "folders/lab/box "+n.public+" ") || strings.HasSuffix(told[0], " ") {
		t.Errorf("%q", told)
	}
}

// TestCountNeedsAWholeCopy: a copy that began anew has nobody in it yet, which is not room.
func TestCountNeedsAWholeCopy(t *testing.T) {
	p := pending{now: time.Now, known: func(string) (string, bool) { return "", false }, byKey: map[string]request{}}
	waits := func(key string, revision uint64) request {
		r := request{Pending: hubapi.Pending{PublicKey: key, Guide: "box", Expires: time.Now().Add(time.Hour)}, revision: revision}
		p.byKey[key], p.seen = r, revision
		return r
	}
	waits("a", 1)
	b := waits("b", 2)
	if over, known := p.over(b, 2, 1); !over || !known {
		t.Error("one too many is let in")
	}
	if over, known := p.over(b, 2, 2); over || !known {
		t.Error("there was room")
	}
	p.start(nil)
	if _, known := p.over(b, 2, 1); known {
		t.Error("counted in an empty copy")
	}
}

// TestJoinBeforeTheFleetIsKnown: a hub that starts without its reconciler refuses no token.
func TestJoinBeforeTheFleetIsKnown(t *testing.T) {
	w := newWorld(t)
	var known atomic.Bool
	e := w.hub(func(c *Config) {
		c.Ready = known.Load
		guide := c.Guide
		c.Guide = func(key string) (g roster.Guide, nodes int, ok bool) {
			if !known.Load() {
				return g, 0, false
			}
			return guide(key)
		}
	})
	n, token := newNode(t), w.tokens(w.hub(nil), "folders/lab/box", 1)[0]
	if a := n.join(e, token); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	known.Store(true)
	if a := n.join(e, token); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// manyKV is a bucket in which very many tokens are.
type manyKV struct{ jetstream.KeyValue }

type manyStatus struct{ jetstream.KeyValueStatus }

func (m manyKV) Status(ctx context.Context) (jetstream.KeyValueStatus, error) {
	s, err := m.KeyValue.Status(ctx)
	return manyStatus{s}, err
}

func (manyStatus) Bytes() uint64 { return maxTokenBytes + 1 }

// TestTokensLeaveRoom: who may make tokens must not fill the bucket, where nobody else's would
// work then.
func TestTokensLeaveRoom(t *testing.T) {
	w := newWorld(t)
	token := w.tokens(w.hub(nil), "folders/lab/box", 1)[0]
	e := w.hub(func(c *Config) {
		bucket := c.Bucket
		c.Bucket = func(ctx context.Context, name string, ttl time.Duration) (jetstream.KeyValue, error) {
			kv, err := bucket(ctx, name, ttl)
			return manyKV{kv}, err
		}
	})
	if got, _, err := e.JoinTokens(t.Context(), "folders/lab/box", "user:ana", time.Hour, 1); err == nil {
		t.Errorf("%d tokens more", len(got))
	}
	if a := newNode(t).join(e, token); a.status != 200 {
		t.Errorf("one that was given before: %d", a.status)
	}
}

func FuzzRequests(f *testing.F) {
	w := newWorld(f)
	e := New(w.config())
	n := newNode(f)
	w.setNode(n.public, "gw-7")
	bearer, err := e.makeBearer("gw-7", n.public, time.Now().Add(time.Hour))
	if err != nil {
		f.Fatal(err)
	}
	nonce := n.nonce(e)
	for _, q := range []any{wire.TokenRequest{PublicKey: n.public, Nonce: nonce, Signature: n.sign(wire.TokenMessage(hubURL, nonce))}, n.request("join_x")} {
		b, err := json.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, bearer, nonce)
	}
	f.Add([]byte("{}"), strings.ReplaceAll(bearer, ".", ".."), "")
	f.Fuzz(func(t *testing.T, body []byte, text, nonce string) {
		for _, path := range []string{wire.PathToken, wire.PathJoin} {
			r := httptest.NewRequest("POST", path, bytes.NewReader(body))
			rec := httptest.NewRecorder()
			e.Handler().ServeHTTP(rec, r)
			if rec.Code >= 500 && rec.Code != 503 {
				t.Errorf("%s: %d", path, rec.Code)
			}
		}
		if node, _, err := e.Bearer(with("Bearer " + text)); err == nil && (text != bearer || node != "gw-7") && !strings.HasPrefix(text, bearer[:len(bearer)-1]) {
			t.Errorf("%q is let in as %s", text, node)
		}
		_ = e.nonces.check(w.signer, nonce, time.Now()) // must not panic
	})
}

func BenchmarkToken(b *testing.B) {
	w := newWorld(b)
	e, n := New(w.config()), newNode(b)
	w.setNode(n.public, "gw-7")
	for b.Loop() {
		if a := n.token(e); a.status != 200 {
			b.Fatalf("%d %s", a.status, a.body)
		}
	}
}

func BenchmarkBearer(b *testing.B) {
	w := newWorld(b)
	e, n := New(w.config()), newNode(b)
	w.setNode(n.public, "gw-7")
	bearer, err := e.makeBearer("gw-7", n.public, time.Now().Add(time.Hour))
	if err != nil {
		b.Fatal(err)
	}
	r := with("Bearer " + bearer)
	for b.Loop() {
		if _, _, err := e.Bearer(r); err != nil {
			b.Fatal(err)
		}
	}
}
