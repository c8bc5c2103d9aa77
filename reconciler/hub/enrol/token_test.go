package enrol

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/prometheus/client_golang/prometheus"

	"selvedge/schema/wire"
)

func TestTokenAndBearer(t *testing.T) {
	w := newWorld(t)
	for _, off := range []time.Duration{0, -time.Hour, time.Hour, -20 * 365 * 24 * time.Hour} { // the hub's clock
		w.setClock(off)
		e, n := w.hub(nil), newNode(t)
		w.setNode(n.public, "gw-7")
		got := into[wire.Token](t, n.token(e))
		if got.Node != "gw-7" || got.Bus != "bus:gw-7:"+n.public+":24h0m0s" || got.Prefix != "fleet" || len(got.Images) != 1 {
			t.Fatalf("%+v", got)
		}
		if d := got.Expires.Sub(got.Now); d < 59*time.Minute || d > time.Hour {
			t.Errorf("a bearer for %v", d)
		}
		basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("any:"+got.Bearer))
		for _, header := range []string{"Bearer " + got.Bearer, "bearer  " + got.Bearer, basic} {
			if node, key, err := e.Bearer(with(header)); node != "gw-7" || key != n.public || err != nil {
				t.Errorf("%s %s %v", node, key, err)
			}
		}
		// another hub of the cluster knows it too
		if _, _, err := w.hub(nil).Bearer(with("Bearer " + got.Bearer)); err != nil {
			t.Error(err)
		}
		c, err := jwt.DecodeGeneric(got.Bearer)
		if err != nil || c.NotBefore != 0 {
			t.Errorf("a bearer that is not good before %d: %v", c.NotBefore, err)
		}
		w.setNode(n.public, "gw-8")
		if _, _, err := e.Bearer(with("Bearer " + got.Bearer)); !errors.Is(err, ErrRemoved) {
			t.Error("a bearer of the node's former name:", err)
		}
		w.setNode(n.public, "")
		if _, _, err := e.Bearer(with("Bearer " + got.Bearer)); !errors.Is(err, ErrRemoved) {
			t.Error("a bearer of a node that was removed:", err)
		}
		if a := n.token(e); a.status != 403 || a.problem().Type != wire.ProblemUnknownNode {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
}

func TestTokenRefusals(t *testing.T) {
	w := newWorld(t)
	e, n, thief := w.hub(nil), newNode(t), newNode(t)
	w.setNode(n.public, "gw-7")
	foreign := newWorld(t)
	cases := map[string]struct {
		make func(nonce string) wire.TokenRequest
		want int
	}{
		"right": {func(nonce string) wire.TokenRequest {
			return wire.TokenRequest{PublicKey: n.public, Nonce: nonce, Signature: n.sign(wire.TokenMessage(hubURL, nonce))}
		}, 200},
		"right, by another address with its port": {func(nonce string) wire.TokenRequest {
			return wire.TokenRequest{PublicKey: n.public, Nonce: nonce, Signature: n.sign(wire.TokenMessage("https://10.0.0.1:443", nonce))}
		}, 200},
		"signed by a thief": {func(nonce string) wire.TokenRequest {
			return wire.TokenRequest{PublicKey: n.public, Nonce: nonce, Signature: thief.sign(wire.TokenMessage(hubURL, nonce))}
		}, 401},
		"signed for another hub": {func(nonce string) wire.TokenRequest {
			return wire.TokenRequest{PublicKey: n.public, Nonce: nonce, Signature: n.sign(wire.TokenMessage("https://evil.example", nonce))}
		}, 401},
		"signed without a domain": {func(nonce string) wire.TokenRequest {
			return wire.TokenRequest{PublicKey: n.public, Nonce: nonce, Signature: n.sign([]byte(nonce))}
		}, 401},
		"a signature to join": {func(nonce string) wire.TokenRequest {
			return wire.TokenRequest{PublicKey: n.public, Nonce: nonce, Signature: n.sign(wire.JoinMessage(hubURL, wire.JoinRequest{Token: nonce, PublicKey: n.public}))}
		}, 401},
		"no signature": {func(nonce string) wire.TokenRequest { return wire.TokenRequest{PublicKey: n.public, Nonce: nonce} }, 401},
		"a nonce of one's own": {func(string) wire.TokenRequest {
			own := base64.RawURLEncoding.EncodeToString(make([]byte, 56))
			return wire.TokenRequest{PublicKey: n.public, Nonce: own, Signature: n.sign(wire.TokenMessage(hubURL, own))}
		}, 401},
		"a nonce of another cluster": {func(string) wire.TokenRequest {
			other := n.nonce(New(foreign.config()))
			return wire.TokenRequest{PublicKey: n.public, Nonce: other, Signature: n.sign(wire.TokenMessage(hubURL, other))}
		}, 401},
		"a nonce that was spelt differently": {func(nonce string) wire.TokenRequest {
			nonce += "="
			return wire.TokenRequest{PublicKey: n.public, Nonce: nonce, Signature: n.sign(wire.TokenMessage(hubURL, nonce))}
		}, 401},
		"no nonce": {func(string) wire.TokenRequest {
			return wire.TokenRequest{PublicKey: n.public, Signature: n.sign(wire.TokenMessage(hubURL, ""))}
		}, 401},
		"no key": {func(nonce string) wire.TokenRequest { return wire.TokenRequest{Nonce: nonce} }, 400},
		"an account's key": {func(nonce string) wire.TokenRequest {
			return wire.TokenRequest{PublicKey: "A" + n.public[1:], Nonce: nonce}
		}, 400},
		"a key that Git does not list": {func(nonce string) wire.TokenRequest {
			return wire.TokenRequest{PublicKey: thief.public, Nonce: nonce, Signature: thief.sign(wire.TokenMessage(hubURL, nonce))}
		}, 403},
	}
	for name, c := range cases {
		q := c.make(n.nonce(e))
		if a := ask(t, e, "POST", wire.PathToken, q); a.status != c.want {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if c.want != 200 {
			continue
		}
		if a := ask(t, e, "POST", wire.PathToken, q); a.status != 401 {
			t.Errorf("%s, replayed: %d %s", name, a.status, a.body)
		}
	}
	// what failed did not use the nonce up
	nonce := n.nonce(e)
	ask(t, e, "POST", wire.PathToken, wire.TokenRequest{PublicKey: n.public, Nonce: nonce, Signature: "x"})
	good := wire.TokenRequest{PublicKey: n.public, Nonce: nonce, Signature: n.sign(wire.TokenMessage(hubURL, nonce))}
	if a := ask(t, e, "POST", wire.PathToken, good); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestUsedNoncesAreForgotten: those that no clock would let in any more.
func TestUsedNoncesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n nonces
		for _, text := range []string{"a", "b"} {
			if !n.use(text) || n.use(text) {
				t.Errorf("%s is not used once", text)
			}
			time.Sleep(2*nonceLife + time.Second)
		}
		n.use("c")
		if n.now["a"] || n.old["a"] || len(n.now)+len(n.old) != 2 {
			t.Errorf("kept: %v, %v", n.now, n.old)
		}
	})
}

// TestRefusalsAreTold: who shows what does not count is told and counted; what is ordinary is not.
func TestRefusalsAreTold(t *testing.T) {
	w := newWorld(t)
	e, n := w.hub(nil), newNode(t)
	told := func(what string, want ...string) {
		t.Helper()
		got := w.rejections()
		if len(want) == 0 && got != "" {
			t.Errorf("%s is told: %s", what, got)
		}
		for _, part := range want {
			if !strings.Contains(got, part) {
				t.Errorf("%s: %q does not tell %q", what, got, part)
			}
		}
	}
	w.setNode(n.public, "gw-7")
	nonce := n.nonce(e)
	ask(t, e, "POST", wire.PathToken, wire.TokenRequest{PublicKey: n.public, Nonce: nonce, Signature: newNode(t).sign(wire.TokenMessage(hubURL, nonce))})
	told("a thief", "token", "signature", n.public)
	ask(t, e, "POST", wire.PathToken, wire.TokenRequest{PublicKey: n.public, Nonce: "x", Signature: n.sign(wire.TokenMessage(hubURL, "x"))})
	told("a nonce of one's own", "token", "nonce", n.public)
	bearer := "Bearer " + into[wire.Token](t, n.token(e)).Bearer
	e.Bearer(with(bearer))
	e.Bearer(with("")) // as clients of registries ask first
	expired, err := e.makeBearer("gw-7", n.public, time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	e.Bearer(with("Bearer " + expired))
	told("what is ordinary")
	e.Bearer(with("Bearer x.y.z"))
	told("junk", "pull", "no bearer")
	w.setNode(n.public, "")
	e.Bearer(with(bearer))
	told("a removed node that pulls", "pull", "not in Git", "gw-7", n.public)
	n.token(e)
	told("a removed node that wants a token", "token", "not in Git", n.public)
	if a := n.join(e, w.tokens(e, "folders/lab/box", 1)[0]); a.status != 200 {
		t.Fatal(a)
	}
	n.token(e)
	told("a node that waits")
	newNode(t).join(e, "join_x")
	told("a join token that is none", "join", "unknown")

	metrics := prometheus.NewPedanticRegistry()
	metrics.MustRegister(e.Collectors()...)
	all, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range all {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue()
		}
	}
	if want := map[string]float64{"selvedge_enrol_tokens_total": 1, "selvedge_enrol_limited_total": 0, "selvedge_enrol_refusals_total join": 1,
		"selvedge_enrol_refusals_total token": 3, "selvedge_enrol_refusals_total pull": 2}; !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

func TestNonceLivesForAMinuteAndOnce(t *testing.T) {
	w := newWorld(t)
	e, n := New(w.config()), newNode(t)
	w.setNode(n.public, "gw-7")
	start := time.Now()
	at := func(d time.Duration) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.now = func() time.Time { return start.Add(d) }
	}
	request := func() wire.TokenRequest {
		nonce := n.nonce(e)
		return wire.TokenRequest{PublicKey: n.public, Nonce: nonce, Signature: n.sign(wire.TokenMessage(hubURL, nonce))}
	}
	for age, want := range map[time.Duration]int{0: 200, 59 * time.Second: 200, 61 * time.Second: 401, time.Hour: 401, -time.Hour: 401} {
		at(0)
		q := request()
		at(age)
		if a := ask(t, e, "POST", wire.PathToken, q); a.status != want {
			t.Errorf("after %v: %d %s", age, a.status, a.body)
		}
	}
	// whatever the clock does, one that was used is not good again
	at(0)
	q := request()
	for i, d := range []time.Duration{0, 30 * time.Second, 59 * time.Second, 61 * time.Second, 0, -time.Minute, 59 * time.Second, 10 * time.Minute, 20 * time.Minute, 0} {
		at(d)
		if a := ask(t, e, "POST", wire.PathToken, q); (a.status == 200) != (i == 0) {
			t.Errorf("use %d: %d", i, a.status)
		}
		if i == 0 {
			continue
		}
		if a := ask(t, e, "POST", wire.PathToken, request()); a.status != 200 { // what turns the generations
			t.Errorf("another at %v: %d %s", d, a.status, a.body)
		}
	}
}

// bearerWith makes one that may be wrong.
func bearerWith(t *testing.T, signer nkeys.KeyPair, subject string, change func(*jwt.GenericClaims)) string {
	t.Helper()
	c := jwt.NewGenericClaims(subject)
	c.Name, c.Audience, c.Expires = "gw-7", bearerAudience, time.Now().Add(time.Hour).Unix()
	c.Data["type"] = bearerType
	change(c)
	text, err := c.Encode(signer)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestBearerAttacks(t *testing.T) {
	w := newWorld(t)
	e, n := New(w.config()), newNode(t)
	w.setNode(n.public, "gw-7")
	same := func(*jwt.GenericClaims) {}
	user := jwt.NewUserClaims(n.public)
	user.Name, user.Audience = "gw-7", bearerAudience
	userJWT, err := user.Encode(w.signer)
	if err != nil {
		t.Fatal(err)
	}
	other, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	good := bearerWith(t, w.signer, n.public, same)
	parts := strings.Split(good, ".")
	head := func(json string) string { return base64.RawURLEncoding.EncodeToString([]byte(json)) }
	if node, _, err := e.Bearer(with("Bearer " + good)); node != "gw-7" || err != nil {
		t.Fatal(err) // the control
	}
	long := make([]byte, 3000)
	rand.Read(long)
	for name, text := range map[string]string{
		"empty": "", "no JWT": "x", "dots": "..", "many dots": strings.Repeat(".", 1000), "long": base64.RawURLEncoding.EncodeToString(long),
		"a user's JWT":           userJWT,
		"of another account":     bearerWith(t, other, n.public, same),
		"self-signed":            bearerWith(t, n.key, n.public, same),
		"for another audience":   bearerWith(t, w.signer, n.public, func(c *jwt.GenericClaims) { c.Audience = "other" }),
		"without audience":       bearerWith(t, w.signer, n.public, func(c *jwt.GenericClaims) { c.Audience = "" }),
		"of another type":        bearerWith(t, w.signer, n.public, func(c *jwt.GenericClaims) { c.Data["type"] = "user" }),
		"without a type":         bearerWith(t, w.signer, n.public, func(c *jwt.GenericClaims) { delete(c.Data, "type") }),
		"a type that is no text": bearerWith(t, w.signer, n.public, func(c *jwt.GenericClaims) { c.Data["type"] = 1 }),
		"expired":                bearerWith(t, w.signer, n.public, func(c *jwt.GenericClaims) { c.Expires = time.Now().Add(-2 * time.Minute).Unix() }),
		"without an end":         bearerWith(t, w.signer, n.public, func(c *jwt.GenericClaims) { c.Expires = 0 }),
		"of another node":        bearerWith(t, w.signer, n.public, func(c *jwt.GenericClaims) { c.Name = "gw-8" }),
		"of another key":         bearerWith(t, w.signer, newNode(t).public, same),
		"unsigned":               head(`{"typ":"JWT","alg":"none"}`) + "." + parts[1] + ".",
		"of the older form":      head(`{"typ":"JWT","alg":"ed25519"}`) + "." + head(`{"type":"x","iss":"`+n.public+`","sub":"x"}`) + "." + parts[2],
		"another payload":        parts[0] + "." + head(`{"aud":"`+bearerAudience+`"}`) + "." + parts[2],
		"cut":                    good[:len(good)-2],
	} {
		if node, _, err := e.Bearer(with("Bearer " + text)); err == nil {
			t.Errorf("%s: let in as %s", name, node)
		}
	}
	for _, header := range []string{"", "Bearer", "Basic x", "Basic " + base64.StdEncoding.EncodeToString([]byte(good+":")), "Digest " + good, good} {
		if _, _, err := e.Bearer(with(header)); err == nil {
			t.Errorf("%.20q: let in", header)
		}
	}
}

// A bearer opens no bus: a real server in operator mode takes the user's JWT and not the bearer.
func TestBearerIsNoUserJWT(t *testing.T) {
	w := newWorld(t)
	e, n := New(w.config()), newNode(t)
	account, err := w.signer.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	operator, err := nkeys.CreateOperator()
	if err != nil {
		t.Fatal(err)
	}
	operatorKey, err := operator.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	accountJWT, err := jwt.NewAccountClaims(account).Encode(operator)
	if err != nil {
		t.Fatal(err)
	}
	resolver := &server.MemAccResolver{}
	if err := resolver.Store(account, accountJWT); err != nil {
		t.Fatal(err)
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, AccountResolver: resolver,
		TrustedOperators: []*jwt.OperatorClaims{jwt.NewOperatorClaims(operatorKey)}})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.Shutdown()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("no NATS server")
	}
	dial := func(token string) error {
		nc, err := nats.Connect(s.ClientURL(), nats.UserJWT(func() (string, error) { return token, nil }, n.key.Sign))
		if err == nil {
			nc.Close()
		}
		return err
	}
	userJWT, err := jwt.NewUserClaims(n.public).Encode(w.signer)
	if err != nil {
		t.Fatal(err)
	}
	if err := dial(userJWT); err != nil {
		t.Fatal("the control:", err)
	}
	bearer, err := e.makeBearer("gw-7", n.public, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if dial(bearer) == nil {
		t.Error("a bearer opened the bus")
	}
}

func TestTrustIsKeptForAMoment(t *testing.T) {
	w := newWorld(t)
	var asked int
	var fail error
	docs := [][]byte{[]byte("root 1")}
	c := w.config()
	c.Trust = func(context.Context) ([][]byte, error) { asked++; return docs, fail }
	e := New(c)
	get := func() answered { return ask(t, e, "GET", wire.PathTrust, nil) }
	fail = errors.New("no store")
	if a := get(); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	fail = nil
	w.setClock(trustPause)
	for range 100 {
		if got := into[wire.Trust](t, get()); len(got.Documents) != 1 || string(got.Documents[0]) != "root 1" {
			t.Fatalf("%s", got.Documents)
		}
	}
	if asked != 2 {
		t.Errorf("the store was asked %d times", asked)
	}
	docs = append(docs, []byte("root 2"))
	w.setClock(11 * time.Second)
	if got := into[wire.Trust](t, get()); len(got.Documents) != 2 {
		t.Error("the new one does not come")
	}
	fail = errors.New("no store")
	w.setClock(time.Hour)
	if got := into[wire.Trust](t, get()); len(got.Documents) != 2 {
		t.Error("old ones are better than none")
	}
}

// TestTrustThatDoesNotCome: strangers who waited for a store that hangs do not each wait for it
// again.
func TestTrustThatDoesNotCome(t *testing.T) {
	var c trustCache
	at, asked := time.Now(), 0
	get := func() error {
		_, err := c.get(t.Context(), func() time.Time { return at }, func(context.Context) ([][]byte, error) {
			asked++
			at = at.Add(trustTime)
			return nil, errors.New("no store")
		})
		return err
	}
	for range 100 {
		if get() == nil {
			t.Fatal("no error")
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	for _, later := range []time.Duration{trustPause, -time.Hour} {
		at = at.Add(later)
		if asked = 0; get() == nil || asked != 1 {
			t.Errorf("after %v: asked %d times", later, asked)
		}
	}
}
