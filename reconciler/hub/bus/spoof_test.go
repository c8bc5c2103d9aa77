package bus

import (
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"selvedge/schema/wire"
)

// TestNodeIsHeldToItself tries all that a node must not do, and beside it what it may.
func TestNodeIsHeldToItself(t *testing.T) {
	h := start(t, Config{})
	a, b := join(t, h, "a"), join(t, h, "b")
	heard := make(chan string, 100)
	own, err := h.conn()
	if err != nil {
		t.Fatal(err)
	}
	own.Subscribe(">", func(m *nats.Msg) { heard <- m.Subject })
	own.Flush()

	for _, c := range []struct {
		subject string
		ok      bool
	}{
		{wire.StatusSubject("a"), true}, {wire.EventsSubject("a"), true}, {wire.StreamSubject("a", "x"), true},
		{wire.StatusSubject("b"), false}, {wire.EventsSubject("b"), false}, {wire.StreamSubject("b", "x"), false},
		{wire.RequestSubject("b", "exec"), false}, {wire.RequestSubject("a", "exec"), false},
		{wire.InboxPrefix("b") + ".x", false}, {wire.InboxPrefix("a") + ".x", false},
		{"_INBOX.x", false}, {"$JS.API.STREAM.NAMES", false}, {"$KV.tokens.x", false}, {"n.a", false}, {"n.a.st.x", false}, {"x", false},
		{"$SYS.REQ.SERVER.PING", false}, {"$SYS.REQ.CLAIMS.UPDATE", false}, {"$SYS.REQ.USER.INFO", false},
	} {
		drain(a.errs)
		a.Publish(c.subject, []byte("x"))
		a.flush(t)
		if c.ok {
			if got := wait(t, "publish on "+c.subject, heard); got != c.subject {
				t.Errorf("%s: heard %s", c.subject, got)
			}
			continue
		}
		wait(t, "a refusal of "+c.subject, a.errs)
	}
	for _, c := range []struct {
		subject string
		ok      bool
	}{
		{"n.a.dn.>", true}, {"n.a.dn.exec", true}, {"n.a.in.>", true},
		{"n.b.dn.>", false}, {"n.b.in.>", false}, {"n.b.st", false}, {"n.a.st", false}, {"n.*.dn.>", false}, {"n.>", false}, {">", false}, {"*", false},
		{"$SYS.>", false}, {"$JS.>", false}, {"$JS.API.>", false}, {"_INBOX.>", false}, {"$KV.>", false}, {"$SYS.ACCOUNT.>", false},
	} {
		drain(a.errs)
		s, err := a.SubscribeSync(c.subject)
		if err != nil {
			t.Fatal(err)
		}
		a.flush(t)
		if !c.ok {
			wait(t, "a refusal of "+c.subject, a.errs)
		} else if len(a.errs) > 0 {
			t.Errorf("%s: %v", c.subject, <-a.errs)
		}
		s.Unsubscribe()
	}
	// nothing of it arrived, and b, who is not refused, is heard
	b.Publish(wire.StatusSubject("b"), nil)
	if got := wait(t, "status of b", heard); got != wire.StatusSubject("b") {
		t.Error("heard", got)
	}
	// a stranger's queue group must not take what is meant for another
	if s, _ := a.QueueSubscribeSync("n.b.dn.>", "q"); s != nil {
		a.flush(t)
		wait(t, "a refusal of a queue", a.errs)
	}
}

// TestOneAnswer: an answer may be given once, and only to what was asked.
func TestOneAnswer(t *testing.T) {
	h := start(t, Config{})
	n := join(t, h, "a")
	own, _ := h.conn()
	inbox := own.NewInbox()
	s, _ := own.SubscribeSync(inbox)
	asked := make(chan string, 1)
	n.Subscribe("n.a.dn.x", func(m *nats.Msg) { asked <- m.Reply })
	n.flush(t)
	drain(n.errs)
	n.Publish(inbox, []byte("unasked"))
	n.flush(t)
	wait(t, "a refusal of what was not asked", n.errs)
	own.PublishRequest("n.a.dn.x", inbox, nil)
	reply := wait(t, "the request", asked)
	n.Publish(reply, []byte("one"))
	n.Publish(reply, []byte("two"))
	n.flush(t)
	if m, err := s.NextMsg(10 * time.Second); err != nil || string(m.Data) != "one" {
		t.Fatal(m, err)
	}
	wait(t, "a refusal of the second answer", n.errs)
}

func TestStrangersStayOut(t *testing.T) {
	h := start(t, Config{})
	other, err := New(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	sign := func(n *node, by nkeys.KeyPair, account string, change func(*jwt.UserClaims)) {
		u := jwt.NewUserClaims(n.key)
		u.Name, u.IssuerAccount = n.name, account
		u.Expires = time.Now().Add(time.Hour).Unix()
		if change != nil {
			change(u)
		}
		n.jwt, err = u.Encode(by)
		if err != nil {
			t.Fatal(err)
		}
	}
	for what, c := range map[string]struct {
		ok     bool
		change func(n *node)
	}{
		"as it should be":   {true, func(*node) {}},
		"of another hub":    {false, func(n *node) { n.renew(t, other) }},
		"with another key":  {false, func(n *node) { n.pair, _ = nkeys.CreateUser() }},
		"none":              {false, func(n *node) { n.jwt = "" }},
		"junk":              {false, func(n *node) { n.jwt = "e30.e30.e30" }},
		"signed by itself":  {false, func(n *node) { u, _ := nkeys.CreateAccount(); sign(n, u, h.keys.accountID, nil) }},
		"signed by another": {false, func(n *node) { sign(n, other.keys.signer, h.keys.accountID, nil) }},
		"expired": {false, func(n *node) {
			sign(n, h.keys.signer, h.keys.accountID, func(u *jwt.UserClaims) { u.Expires = time.Now().Add(-time.Second).Unix() })
		}},
		"not yet": {false, func(n *node) {
			sign(n, h.keys.signer, h.keys.accountID, func(u *jwt.UserClaims) { u.NotBefore = time.Now().Add(time.Hour).Unix() })
		}},
		"not over WebSocket": {false, func(n *node) {
			sign(n, h.keys.signer, h.keys.accountID, func(u *jwt.UserClaims) { u.AllowedConnectionTypes = jwt.StringList{jwt.ConnectionTypeMqtt} })
		}},
		"a system user by the signer": {false, func(n *node) { sign(n, h.keys.signer, h.keys.systemID, nil) }},
	} {
		t.Run(what, func(t *testing.T) {
			n := newNode(t, h.Bus, "gw")
			c.change(n)
			if err := n.connect(t, h); (err == nil) != c.ok {
				t.Fatalf("connected: %v (%v)", err == nil, err)
			}
		})
	}
}

func drain[T any](c chan T) {
	for len(c) > 0 {
		<-c
	}
}
