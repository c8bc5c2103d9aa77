package main

import (
	"bytes"
	"encoding/base64"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"selvedge/schema/fleet"
	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

// recipients of nodes that wait: their own, and the one that a hub would like them to have.
const (
	ownRecipient   = "age1qyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqszqgpqyqs3290gq"
	otherRecipient = "age1zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs5w8vhs"
)

// waitingNode asked to join, with the key that a seed makes.
func waitingNode(code, name string, seed byte) hubapi.Pending {
	key, err := nkeys.FromRawSeed(nkeys.PrefixByteUser, bytes.Repeat([]byte{seed}, 32))
	if err != nil {
		panic(err)
	}
	p := hubapi.Pending{Code: code, Name: name, Guide: "folders/site-a/line-1/line-box", Scope: "folders/site-a/line-1", Address: "10.0.0.9",
		Recipient: ownRecipient, Labels: map[string]string{"role": "admin"}, Machine: wire.Machine{Hostname: evil, OS: "Debian 12", Arch: "amd64", CPUs: 4, Memory: 4 << 30},
		At: time.Now().Add(-time.Minute), Expires: time.Now().Add(time.Hour)}
	if p.PublicKey, err = key.PublicKey(); err != nil {
		panic(err)
	}
	r := wire.JoinRequest{Token: code, PublicKey: p.PublicKey, Recipient: p.Recipient}
	signature, err := key.Sign(wire.JoinMessage("https://hub.example", r))
	if err != nil {
		panic(err)
	}
	r.Signature = base64.StdEncoding.EncodeToString(signature)
	p.Proof = wire.ProofOf("https://hub.example", r)
	return p
}

// waitingNodes are three that are what they seem, and some that a hub lies about.
func waitingNodes() []hubapi.Pending {
	noKey := waitingNode("FFFF-GGGG", "line-ffffgggg", 6)
	noKey.PublicKey = "not a key\"\nnode: evil: {}"
	thief := waitingNode("GGGG-HHHH", "line-gggghhhh", 7)
	thief.Recipient = otherRecipient
	unproven := waitingNode("HHHH-JJJJ", "line-hhhhjjjj", 8)
	unproven.Proof = wire.JoinProof{}
	return []hubapi.Pending{
		waitingNode("7KQ2-M9XD", "line-7kq2m9xd", 1),
		waitingNode("AAAA-BBBB", "line-aaaabbbb", 2),
		waitingNode("CCCC-DDDD", "line-ccccdddd", 3),
		waitingNode("EEEE-FFFF", "line-\x1b[2J", 5),
		noKey, thief, unproven,
	}
}

// TestHubNamesNodes: a hub that lies puts a node neither under a name that is no guide's, nor
// in the place that is kept for another.
func TestHubNamesNodes(t *testing.T) {
	const ws = "folders/site-a/line-1"
	unit := &fleet.Unit{AccessGuide: map[string]fleet.AccessGuide{"line-box": {Prefix: "line-"}}, Node: map[string]fleet.Node{"line-awaited": {}}}
	f := &fleet.Fleet{Workspaces: map[string]*fleet.Source{ws: {Path: ws, Unit: unit, Entities: map[string]fleet.Origin{
		"accessGuide/line-box": {Scope: ws}, "node/line-awaited": {Scope: ws}}}}}
	for _, c := range []struct{ said, given, want string }{
		{"line-7kq2m9xd", "", "line-7kq2m9xd"},
		{"db-1", "", ""},
		{"db-1", "db-1", "db-1"},
		{"line-awaited", "", ""},
		{"line-awaited", "line-awaited", "line-awaited"},
	} {
		e, err := entry(f, waitingNode("7KQ2-M9XD", c.said, 1), c.given, "")
		if (err == nil) != (c.want != "") || err == nil && e.name != c.want {
			t.Errorf("%+v: %+v %v", c, e, err)
		}
	}
}
