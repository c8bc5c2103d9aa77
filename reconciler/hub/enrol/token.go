package enrol

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/nats-io/nkeys"

	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

// maxTokenRequest is the most bytes of a wire.TokenRequest.
const maxTokenRequest = 4 << 10

// signature64 decodes a signature; what is no base64 is a signature of nothing.
func signature64(text string) []byte {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return b
}

func (e *Enrol) serveToken(w http.ResponseWriter, r *http.Request) {
	var q wire.TokenRequest
	if !read(w, r, maxTokenRequest, &q) {
		return
	}
	if !nkeys.IsValidPublicUserKey(q.PublicKey) {
		problem(w, invalid("publicKey is not the public half of an nkey of type user"))
		return
	}
	now := e.c.Now()
	err := e.nonces.check(e.c.Signer(), q.Nonce, now)
	if err == nil {
		err = e.verify(q.PublicKey, signature64(q.Signature), func(hub string) []byte { return wire.TokenMessage(hub, q.Nonce) })
	}
	if err == nil && !e.nonces.use(q.Nonce) {
		err = errNonce
	}
	if err != nil {
		reason := "nonce"
		if errors.Is(err, errSignature) {
			reason = "signature"
		}
		e.rejects.add(r, true, eventToken, "reason", reason, "key", q.PublicKey)
		problem(w, hubapi.Problem{Status: http.StatusUnauthorized, Reason: hubapi.ReasonUnauthorized, Detail: err.Error()})
		return
	}
	// whether Git lists a key is told only to who holds it
	node, ok := e.known(q.PublicKey)
	switch {
	case !ok && !e.ready():
		unavailable(w, errFleet.Error())
		return
	case !ok && e.c.Behind():
		unavailable(w, "this hub does not hear the reconciler now, and knows no node with this key; it may be in Git since")
		return
	case !ok:
		p := hubapi.Problem{Status: http.StatusForbidden, Type: wire.ProblemUnknownNode, Title: "Unknown node", Reason: hubapi.ReasonForbidden,
			Detail: "no node in Git has this key; join with a join token, or put the key into Git"}
		if code, ok := e.pending.code(q.PublicKey); ok {
			p.Type, p.Title, p.Detail = wire.ProblemPending, "Pending", "waits for approval as "+code
		} else {
			e.rejects.add(r, true, eventToken, "reason", "key is not in Git", "key", q.PublicKey)
		}
		problem(w, p)
		return
	}
	t, err := e.token(node, q.PublicKey, now)
	if err != nil {
		e.log.Error("make a token", "node", node, "error", err)
		unavailable(w, "the hub cannot make a token now")
		return
	}
	e.granted.Add(1)
	answer(w, t)
}

func (e *Enrol) token(node, publicKey string, now time.Time) (wire.Token, error) {
	t := wire.Token{Node: node, Expires: now.Add(bearerLife).UTC().Truncate(time.Second), Now: now.UTC(), Images: e.c.Images, Prefix: e.c.Prefix()}
	var err error
	if t.Bearer, err = e.makeBearer(node, publicKey, t.Expires); err != nil {
		return t, fmt.Errorf("bearer: %w", err)
	}
	if t.Bus, err = e.c.BusToken(node, publicKey, busLife); err != nil {
		return t, fmt.Errorf("bus token: %w", err)
	}
	return t, nil
}

// trustCache keeps the root documents for a moment: anybody may ask for them.
type trustCache struct {
	mu    sync.Mutex
	docs  [][]byte
	err   error     // if there are none
	until time.Time // when to ask again
}

const (
	trustLife  = 10 * time.Second
	trustPause = time.Second      // after a failure: those who waited for it meanwhile ask nobody
	trustTime  = 10 * time.Second // to get them
)

func (t *trustCache) get(ctx context.Context, now func() time.Time, fetch func(context.Context) ([][]byte, error)) ([][]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if left := t.until.Sub(now()); left > 0 && left <= trustLife { // more: the clock was set back
		return t.docs, t.err
	}
	ctx, cancel := context.WithTimeout(ctx, trustTime)
	defer cancel()
	docs, err := fetch(ctx)
	if err == nil && len(docs) == 0 {
		err = fmt.Errorf("there are none")
	}
	t.until = now().Add(trustLife)
	switch {
	case err == nil:
		t.docs, t.err = docs, nil
	case t.docs == nil:
		t.err, t.until = err, now().Add(trustPause)
	} // else old ones are better than none, and asking again at once helps nobody
	return t.docs, t.err
}

func (e *Enrol) serveTrust(w http.ResponseWriter, r *http.Request) {
	// one caller that leaves must not fail the others that wait for the same answer
	docs, err := e.trust.get(context.WithoutCancel(r.Context()), e.c.Now, e.c.Trust)
	if err != nil {
		e.log.Warn("get the root documents", "error", err)
		unavailable(w, "the hub has no root documents yet")
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=10")
	answer(w, wire.Trust{Documents: docs})
}
