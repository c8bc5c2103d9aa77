package fleet

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
	"selvedge/schema/nodestate"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
	"selvedge/test/swarm"
)

// post sends an object as JSON, as nobody.
func (b *bed) post(path string, v any) (int, string) {
	b.t.Helper()
	body, err := json.Marshal(v)
	must(b.t, err)
	return b.ask("POST", path, "", bytes.NewReader(body))
}

// TestStolenAPIToken holds that a token of a person opens nothing once it has expired, in
// nobody else's place, and at no door but the API's.
func TestStolenAPIToken(t *testing.T) {
	b := newBed(t, 1)
	b.swarm(swarm.Config{Granted: nodestate.Remote{Logs: true, Restart: true, Exec: true}, Logs: pour})
	text := "selvedge_" + strings.Repeat("e", 42) + "0"
	expires := time.Now().Add(patience * 10 * time.Second)
	fleet := b.fleet
	fleet.Identities = maps.Clone(fleet.Identities)
	ana := fleet.Identities["ana"]
	ana.Tokens = maps.Clone(ana.Tokens)
	ana.Tokens["short"] = roster.Token{Hash: nodestate.Digest([]byte(text)), Expires: expires}
	fleet.Identities["ana"] = ana
	b.tell(roster.Event{Fleet: &fleet})
	b.until(5*time.Second, "the token to be good", func() bool { code, _ := b.ask("GET", "/api/v1/whoami", text, nil); return code == 200 })

	b.mu.Lock()
	b.tokens["thief"] = text
	b.mu.Unlock()
	thief := b.client("thief")
	ended := make(chan error, 2)
	go func() {
		ended <- thief.Logs(t.Context(), "node-0", client.LogOptions{Agent: true, Follow: true}, writer(func(p []byte) (int, error) { return len(p), nil }), nil)
	}()
	go func() {
		ended <- thief.Watch(t.Context(), client.WatchOptions{}, func(hubapi.Update) error { return nil }, nil)
	}()
	for range 2 {
		select {
		case err := <-ended:
			if client.Reason(err) != hubapi.ReasonUnauthorized {
				t.Errorf("a stream ended with %v, not for the token", err)
			}
			if time.Now().Before(expires) {
				t.Errorf("it ended %v before the token", time.Until(expires))
			}
		case <-time.After(patience * 20 * time.Second):
			t.Fatal("a stream goes on with a token that expired")
		}
	}
	for _, path := range []string{"/api/v1/whoami", "/api/v1/nodes", "/api/v1/watch", "/api/v1/nodes/node-0/logs?agent=true", "/api/v1/nodes/node-0/exec?app=app-0&command=sh", "/metrics"} {
		if code, text := b.ask("GET", path, text, nil); code != 401 {
			t.Errorf("an expired token at %s: %d %.200s", path, code, text)
		}
	}
	good := b.tokens["ana"]
	if code, _ := b.ask("GET", "/v2/", good, nil); code != 401 {
		t.Errorf("an API token at the registry of nodes: %d", code)
	}
	for what, token := range map[string]string{"the hash in Git": nodestate.Digest([]byte(good)), "a part": good[:len(good)-1], "more": good + "0", "another case": strings.ToUpper(good)} {
		if code, _ := b.ask("GET", "/api/v1/whoami", token, nil); code != 401 {
			t.Errorf("%s in place of a token: %d", what, code)
		}
	}
	if code, _ := b.ask("GET", "/api/v1/whoami?token="+good+"&access_token="+good, "", nil); code == 200 {
		t.Error("a token in the URL, where logs keep it, opens the API")
	}
}

// TestStolenBearer holds that what a node has opens its own things, while Git lists its key.
func TestStolenBearer(t *testing.T) {
	b := newBed(t, 3)
	own := b.bearer("node-0")
	state := func(node string) string { return "/v2/" + nodestate.NodeRepository("", node) + "/manifests/current" }
	if code, text := b.ask("GET", state("node-0"), own, nil); code != 200 || !strings.Contains(text, "the state at ") {
		t.Fatalf("its own: %d %s", code, text)
	}
	for _, path := range []string{state("node-1"), strings.Replace(state("node-1"), "nodes/", "nodes/node-0/../", 1), strings.Replace(state("node-1"), "node-1", "node%2d1", 1),
		"/v2/nodes/node-0/../node-1/manifests/current", "/v2/_catalog", "/v2/" + nodestate.NodeRepository("", "node-0") + "/../node-1/manifests/current"} {
		if code, text := b.ask("GET", path, own, nil); code == 200 || code >= 500 {
			t.Errorf("%s for node-0: %d %.100s", path, code, text)
		}
	}
	for _, method := range []string{"PUT", "POST", "PATCH", "DELETE"} {
		if code, _ := b.ask(method, state("node-0"), own, strings.NewReader("{}")); code < 400 || code >= 500 {
			t.Errorf("%s: %d", method, code)
		}
	}
	for i, bad := range []string{own[:len(own)-2], own + "x", strings.ToUpper(own), strings.Replace(own, ".", "..", 1)} {
		if code, _ := b.ask("GET", state("node-0"), bad, nil); code != 401 {
			t.Errorf("spoilt bearer %d: %d", i, code)
		}
	}
	// its key is changed in Git: the old bearer is nobody's
	b.newNode("node-0")
	b.tell(roster.Event{Nodes: map[string]roster.Node{"node-0": b.nodes["node-0"]}})
	b.until(10*time.Second, "the old bearer to open nothing", func() bool { code, _ := b.ask("GET", state("node-0"), own, nil); return code == 401 })
	if code, _ := b.ask("GET", state("node-0"), b.bearer("node-0"), nil); code != 200 {
		t.Errorf("the new key's: %d", code)
	}
	// two nodes change their names: each gets the states of the new one
	one, two := b.bearer("node-1"), b.bearer("node-2")
	b.nodes["node-1"], b.nodes["node-2"] = b.nodes["node-2"], b.nodes["node-1"]
	b.tell(roster.Event{Nodes: map[string]roster.Node{"node-1": b.nodes["node-1"], "node-2": b.nodes["node-2"]}})
	b.until(10*time.Second, "bearers of other names to open nothing", func() bool {
		a, _ := b.ask("GET", state("node-1"), one, nil)
		c, _ := b.ask("GET", state("node-2"), two, nil)
		return a == 401 && c == 401
	})
}

// TestReplay sends again what was seen on the way.
func TestReplay(t *testing.T) {
	b := newBed(t, 2)
	var seen wire.TokenRequest
	code, _, text := b.exchange(b.keys["node-0"], func(r *wire.TokenRequest) { seen = *r })
	if code != 200 {
		t.Fatal(code, text)
	}
	if code, text := b.post(wire.PathToken, seen); code != 401 {
		t.Errorf("the same again: %d %s", code, text)
	}
	// many at once: at most one gets through
	code, text = b.ask("GET", wire.PathNonce, "", nil)
	if code != 200 {
		t.Fatal(code, text)
	}
	var nonce wire.Nonce
	must(t, json.Unmarshal([]byte(text), &nonce))
	sig, err := b.keys["node-0"].Sign(wire.TokenMessage(b.url, nonce.Nonce))
	must(t, err)
	seen.Nonce, seen.Signature = nonce.Nonce, base64.StdEncoding.EncodeToString(sig)
	codes := make(chan int, 20)
	for range cap(codes) {
		go func() {
			body, _ := json.Marshal(seen)
			res, err := b.calls.Post(b.url+wire.PathToken, "application/json", bytes.NewReader(body))
			if err != nil {
				codes <- 0
				return
			}
			res.Body.Close()
			codes <- res.StatusCode
		}()
	}
	count := map[int]int{}
	for range cap(codes) {
		count[<-codes]++
	}
	if count[200] != 1 || count[401] != cap(codes)-1 {
		t.Errorf("one nonce, many times at once: %v", count)
	}
	for what, message := range map[string][]byte{
		"for another hub":  wire.TokenMessage("https://other.example:8443", nonce.Nonce),
		"without its form": []byte(nonce.Nonce),
	} {
		code, _, text := b.exchange(b.keys["node-0"], func(r *wire.TokenRequest) {
			sig, err := b.keys["node-0"].Sign(bytes.ReplaceAll(message, []byte(nonce.Nonce), []byte(r.Nonce)))
			must(t, err)
			r.Signature = base64.StdEncoding.EncodeToString(sig)
		})
		if code != 401 {
			t.Errorf("a signature %s: %d %s", what, code, text)
		}
	}
}

// TestAnothersKey claims another's key in each place where a key is named.
func TestAnothersKey(t *testing.T) {
	b := newBed(t, 2)
	victim := b.nodes["node-1"].PublicKey
	code, _, text := b.exchange(b.keys["node-0"], func(r *wire.TokenRequest) { r.PublicKey = victim })
	if code != 401 {
		t.Errorf("a token for another's key: %d %s", code, text)
	}
	code, token, text := b.exchange(b.keys["node-0"], nil)
	if code != 200 || token.Node != "node-0" {
		t.Fatalf("its own: %d %s", code, text)
	}

	// the JWT is no secret: it opens the bus only to who has the key
	other, err := nkeys.CreateUser()
	must(t, err)
	for _, thief := range []nkeys.KeyPair{other, b.keys["node-1"]} {
		if nc, err := b.dial(token.Bus, thief); err == nil {
			nc.Close()
			t.Error("the bus opens to a copied JWT")
		}
	}
	nc, err := b.dial(token.Bus, b.keys["node-0"])
	must(t, err)
	nc.Close()

	join := b.joinToken(2)
	if code, text := b.join(join[0], b.keys["node-0"], func(r *wire.JoinRequest) { r.PublicKey = victim }); code != 401 {
		t.Errorf("a join with another's key: %d %s", code, text)
	}
	if code, text := b.join(join[0], b.keys["node-1"], nil); code != 403 {
		t.Errorf("a join with a key that Git has already: %d %s", code, text)
	}
	if code, text := b.join(join[1], other, nil); code != 200 {
		t.Errorf("an honest join: %d %s", code, text)
	}
}

// joinToken gives join tokens of the guide, as ana.
func (b *bed) joinToken(n int) []string {
	b.t.Helper()
	got, err := b.client("ana").JoinTokens(b.t.Context(), hubapi.JoinTokenRequest{Guide: workspace + "/box", Count: n})
	must(b.t, err)
	return got.Tokens
}

// join asks to be let in.
func (b *bed) join(token string, key nkeys.KeyPair, change func(*wire.JoinRequest)) (int, string) {
	b.t.Helper()
	r, err := b.joining(token, key)
	must(b.t, err)
	if change != nil {
		change(&r)
	}
	return b.post(wire.PathJoin, r)
}

func (b *bed) joining(token string, key nkeys.KeyPair) (wire.JoinRequest, error) {
	public, err := key.PublicKey()
	r := wire.JoinRequest{Token: token, PublicKey: public, Machine: wire.Machine{Hostname: "box", OS: "Debian", Arch: "amd64", CPUs: 2}}
	sig, other := key.Sign(wire.JoinMessage(b.url, r))
	r.Signature = base64.StdEncoding.EncodeToString(sig)
	return r, errors.Join(err, other)
}

// TestJoinTokenAgain uses a join token a second time, for another node, and after it was dropped.
func TestJoinTokenAgain(t *testing.T) {
	b := newBed(t, 0)
	one, err := nkeys.CreateUser()
	must(t, err)
	two, err := nkeys.CreateUser()
	must(t, err)
	token := b.joinToken(1)[0]
	code, first := b.join(token, one, nil)
	if code != 200 {
		t.Fatal(code, first)
	}
	if code, again := b.join(token, one, nil); code != 200 || again != first {
		t.Errorf("the same node, whose answer was lost: %d %s, not %s", code, again, first)
	}
	problem := func(what string, code int, text string) {
		t.Helper()
		var p hubapi.Problem
		must(t, json.Unmarshal([]byte(text), &p))
		if code != 403 || p.Type != wire.ProblemJoinToken {
			t.Errorf("%s: %d %s", what, code, text)
		}
	}
	code, text := b.join(token, two, nil)
	problem("another node", code, text)
	code, text = b.join("join_"+strings.Repeat("A", 43), two, nil)
	problem("one never given", code, text)
	var j wire.Joined
	must(t, json.Unmarshal([]byte(first), &j))
	must(t, b.client("ana").Reject(t.Context(), j.Code))
	code, text = b.join(token, one, nil)
	problem("one that was turned away", code, text)
	if code, _ := b.ask("POST", "/api/v1/join-tokens", b.tokens["vera"], strings.NewReader(`{"guide":"`+workspace+`/box"}`)); code != http.StatusForbidden {
		t.Errorf("a viewer makes join tokens: %d", code)
	}
	log, err := b.client("ana").Audit(t.Context(), client.AuditQuery{Limit: 100})
	must(t, err)
	refused := 0
	for _, e := range log.Items {
		if e.Operation == "join" && e.Outcome == hubapi.OutcomeRefused {
			refused++
		}
		if strings.Contains(e.Detail, token) {
			t.Error("the audit log tells a join token:", e.Detail)
		}
	}
	if refused < 3 {
		t.Errorf("%d refusals are in the audit log: %+v", refused, log.Items)
	}
}
