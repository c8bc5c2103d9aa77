package fleet

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"

	"selvedge/schema/wire"
)

// exchange proves a key as a node would, and returns the hub's answer.
func (b *bed) exchange(key nkeys.KeyPair, change func(*wire.TokenRequest)) (int, wire.Token, string) {
	b.t.Helper()
	code, text := b.ask("GET", wire.PathNonce, "", nil)
	if code != 200 {
		b.t.Fatalf("nonce: %d %s", code, text)
	}
	var nonce wire.Nonce
	must(b.t, json.Unmarshal([]byte(text), &nonce))
	public, err := key.PublicKey()
	must(b.t, err)
	sig, err := key.Sign(wire.TokenMessage(b.url, nonce.Nonce))
	must(b.t, err)
	r := wire.TokenRequest{PublicKey: public, Nonce: nonce.Nonce, Signature: base64.StdEncoding.EncodeToString(sig)}
	if change != nil {
		change(&r)
	}
	body, err := json.Marshal(r)
	must(b.t, err)
	code, text = b.ask("POST", wire.PathToken, "", bytes.NewReader(body))
	var token wire.Token
	if code == 200 {
		must(b.t, json.Unmarshal([]byte(text), &token))
	}
	return code, token, text
}

// bearer is what opens the registry for a node.
func (b *bed) bearer(name string) string {
	b.t.Helper()
	code, token, text := b.exchange(b.keys[name], nil)
	if code != 200 {
		b.t.Fatalf("token of %s: %d %s", name, code, text)
	}
	return token.Bearer
}

func rss(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	must(t, err)
	var size, resident int64
	_, err = fmt.Sscan(strings.TrimSpace(string(b)), &size, &resident)
	must(t, err)
	return resident * int64(os.Getpagesize())
}
