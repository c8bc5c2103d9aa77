package wire

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"
)

// TestJoinProof: a hub that tells of a node can change nothing of what the node signed, and
// cannot move it from one field into another.
func TestJoinProof(t *testing.T) {
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	const hub, recipient = "https://hub.example", "age1node"
	public, _ := key.PublicKey()
	sign := func(m []byte) string {
		b, err := key.Sign(m)
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(b)
	}
	r := JoinRequest{Token: "t", PublicKey: public, Recipient: recipient}
	r.Signature = sign(JoinMessage(hub, r))
	good := ProofOf(hub, r)
	if err := good.Check(public, recipient); err != nil {
		t.Fatal(err)
	}
	other, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	stranger, _ := other.PublicKey()
	lines := good
	lines.Hub, lines.TokenHash = hub+"\n"+good.TokenHash+"\n"+public+"\n"+recipient, strings.Repeat("0", 64)
	lines.Signature = sign(lines.message(public, ""))
	for name, c := range map[string]struct {
		public, recipient string
		change            func(*JoinProof)
	}{
		"another recipient": {public, "age1thief", func(*JoinProof) {}},
		"no recipient":      {public, "", func(*JoinProof) {}},
		"another key":       {stranger, recipient, func(*JoinProof) {}},
		"no key":            {"U", recipient, func(*JoinProof) {}},
		"another hub":       {public, recipient, func(p *JoinProof) { p.Hub += "x" }},
		"another token":     {public, recipient, func(p *JoinProof) { p.TokenHash = strings.Repeat("0", 64) }},
		"no signature":      {public, recipient, func(p *JoinProof) { p.Signature = "" }},
		"no base64":         {public, recipient, func(p *JoinProof) { p.Signature = "-" }},
		"nothing":           {public, recipient, func(p *JoinProof) { *p = JoinProof{} }},
		"two lines in one":  {public, "", func(p *JoinProof) { *p = lines }},
	} {
		p := good
		c.change(&p)
		if err := p.Check(c.public, c.recipient); !errors.Is(err, ErrProof) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
