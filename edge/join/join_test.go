package join_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"
	"github.com/sigstore/sigstore/pkg/signature"

	"selvedge/edge/auth"
	"selvedge/edge/hubtest"
	"selvedge/edge/join"
	"selvedge/schema/nodestate"
	"selvedge/schema/trust"
	"selvedge/schema/wire"
)

func document(t *testing.T) []byte {
	t.Helper()
	var keys [2]*ecdsa.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	d, err := trust.New([]crypto.PublicKey{keys[0].Public()}, 1, []crypto.PublicKey{keys[1].Public()})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := signature.LoadECDSASignerVerifier(keys[0], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Sign(signer); err != nil {
		t.Fatal(err)
	}
	doc, err := d.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func newClient(t *testing.T, h *hubtest.Hub) (*auth.Client, string) {
	t.Helper()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := key.PublicKey()
	c, err := auth.New(auth.Config{Hubs: []string{h.URL}, Pin: h.Pin, PublicKey: public, Sign: key.Sign})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, public
}

func TestRoot(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t)
	c, _ := newClient(t, h)
	doc, other := document(t), document(t)
	for name, x := range map[string]struct {
		docs [][]byte
		ok   bool
	}{
		"the one that was meant": {[][]byte{doc}, true},
		"another":                {[][]byte{other}, false},
		"another before it":      {[][]byte{other, doc}, false},
		"another after it":       {[][]byte{doc, other}, false}, // nothing signed that change
		"none":                   {nil, false},
		"too many":               {make([][]byte, trust.MaxDocuments+1), false},
	} {
		h.Lock()
		h.Docs = x.docs
		h.Unlock()
		got, err := join.Root(t.Context(), c, nodestate.Digest(doc))
		if (err == nil) != x.ok || err != nil && !errors.Is(err, join.ErrFingerprint) || x.ok && string(got) != string(doc) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.Lock()
	h.Docs = [][]byte{[]byte("text")}
	h.Unlock()
	if _, err := join.Root(t.Context(), c, nodestate.Digest([]byte("text"))); !errors.Is(err, join.ErrFingerprint) {
		t.Errorf("what is no document: %v", err)
	}
}

func TestAsk(t *testing.T) {
	t.Parallel()
	h := hubtest.New(t)
	c, public := newClient(t, h)
	ask := func(token string, again bool) (join.Outcome, error) {
		return join.Ask(t.Context(), c, wire.JoinRequest{Token: token, Recipient: "age1x"}, again)
	}
	if _, err := ask("x", false); !errors.Is(err, join.ErrToken) {
		t.Errorf("a token that was never given: %v", err)
	}
	if _, err := ask("x", true); !errors.Is(err, join.ErrToken) {
		t.Errorf("the same, once more: %v", err)
	}
	h.Lock()
	h.Tokens["t"] = true
	h.Unlock()
	if o, err := ask("t", true); err != nil || o.Code == "" {
		t.Errorf("%+v, %v", o, err)
	}
	for _, again := range []bool{false, true} { // the token is used, and the request waits
		if o, err := ask("t", again); err != nil || o != (join.Outcome{}) {
			t.Errorf("%+v, %v", o, err)
		}
	}
	h.Approve(public, "gw-1")
	for _, again := range []bool{false, true} {
		if o, err := ask("t", again); err != nil || o.Node != "gw-1" {
			t.Errorf("%+v, %v", o, err)
		}
	}
	h.Lock()
	h.Before = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true }
	h.Unlock()
	if _, err := ask("t", true); err == nil || errors.Is(err, join.ErrToken) || !strings.Contains(err.Error(), "502") {
		t.Errorf("a hub that is away: %v", err)
	}
}
