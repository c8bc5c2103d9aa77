package enrol

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"selvedge/schema/hubapi"
	"selvedge/schema/nodestate"
	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

const (
	maxJoinRequest = 16 << 10
	maxMachineText = 256
	tokenPrefix    = "join_" // so that no token begins with a dash
	tokenBucket    = "join-tokens"
	maxTokenBytes  = 128 << 20       // of all that are kept: in a full bucket none could be marked as used
	joinTime       = 8 * time.Second // then the node asks again, which does no harm
	behindTries    = 40              // for a server of a cluster to catch up
	behindWait     = 50 * time.Millisecond
)

var recipientRE = regexp.MustCompile(`^age1[02-9ac-hj-np-z]{58}$`)

// joinToken is what is kept of a join token, under the SHA-256 of its text.
type joinToken struct {
	Guide   string    `json:"guide"`
	By      string    `json:"by"`
	Expires time.Time `json:"expires"`
	Key     string    `json:"key,omitempty"`     // that joined with it
	Dropped bool      `json:"dropped,omitempty"` // and was turned away
}

func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func (e *Enrol) tokenBucket(ctx context.Context) (jetstream.KeyValue, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.tokens == nil {
		kv, err := e.c.Bucket(ctx, tokenBucket, tokenLife+time.Hour)
		if err != nil {
			return nil, err
		}
		e.tokens = kv
	}
	return e.tokens, nil
}

// JoinTokens makes n tokens (0: 1) that each let one node join by a guide within ttl (0: 1h).
func (e *Enrol) JoinTokens(ctx context.Context, guideKey, by string, ttl time.Duration, n int) ([]string, time.Time, error) {
	if ttl == 0 {
		ttl = time.Hour
	}
	n = max(n, 1)
	if ttl < time.Minute || ttl > tokenLife || n > maxTokens {
		return nil, time.Time{}, fmt.Errorf("%w: at most %d join tokens at once, for 1m to 24h", ErrInvalid, maxTokens)
	}
	if _, _, ok := e.c.Guide(guideKey); !ok {
		return nil, time.Time{}, fmt.Errorf("%w: no guide %q in Git", ErrNotFound, guideKey)
	}
	kv, err := e.tokenBucket(ctx)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("make join tokens: %w", err)
	}
	kept, err := kv.Status(ctx)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("make join tokens: %w", err)
	}
	if kept.Bytes() > maxTokenBytes {
		return nil, time.Time{}, fmt.Errorf("make join tokens: %d are given out, more than the hub keeps; they go by themselves within a day or so", kept.Values())
	}
	expires := e.c.Now().Add(ttl).UTC().Truncate(time.Second)
	b, err := json.Marshal(joinToken{Guide: guideKey, By: by, Expires: expires})
	if err != nil {
		return nil, time.Time{}, err
	}
	tokens := make([]string, n)
	for i := range tokens {
		raw := make([]byte, 32)
		rand.Read(raw)
		tokens[i] = tokenPrefix + base64.RawURLEncoding.EncodeToString(raw)
		if _, err := kv.Create(ctx, hashOf(tokens[i]), b); err != nil {
			return nil, time.Time{}, fmt.Errorf("make join tokens: %w", err)
		}
	}
	return tokens, expires, nil
}

// Errors of what people ask.
var (
	ErrInvalid  = errors.New("invalid")
	ErrNotFound = errors.New("not found")
)

// refusal is why a join does not count: for the log, never for who asks.
type refusal struct {
	reason   string
	stranger bool // the token was never given, or is forgotten
}

func (r *refusal) Error() string { return r.reason }

var (
	errFull   = errors.New("full")
	errFleet  = errors.New("the hub does not know the fleet yet")
	errBehind = errors.New("this hub does not hear the reconciler now, and what it knows of Git may be old")
)

func (e *Enrol) serveJoin(w http.ResponseWriter, r *http.Request) {
	var q wire.JoinRequest
	if !read(w, r, maxJoinRequest, &q) {
		return
	}
	if what := malformed(q); what != "" {
		problem(w, invalid(what))
		return
	}
	var at string // under which of the hub's URLs; the last that was tried
	if err := e.verify(q.PublicKey, signature64(q.Signature), func(hub string) []byte { at = hub; return wire.JoinMessage(hub, q) }); err != nil {
		e.rejects.add(r, true, eventJoin, "reason", "signature", "key", q.PublicKey)
		problem(w, hubapi.Problem{Status: http.StatusUnauthorized, Reason: hubapi.ReasonUnauthorized, Detail: err.Error()})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), joinTime)
	defer cancel()
	code, err := e.join(ctx, q, wire.ProofOf(at, q), e.c.Source(r).String())
	var no *refusal
	switch {
	case err == nil:
		answer(w, wire.Joined{Code: code})
	case errors.As(err, &no):
		e.rejects.add(r, no.stranger, eventJoin, "reason", no.reason, "key", q.PublicKey, "token", "sha256:"+hashOf(q.Token)[:16])
		problem(w, hubapi.Problem{Status: http.StatusForbidden, Type: wire.ProblemJoinToken, Title: "Join token refused", Reason: hubapi.ReasonForbidden,
			Detail: "the join token lets nobody in: it was used, has expired or was never given; ask for another"})
	case errors.Is(err, errFull):
		e.rejects.add(r, false, eventJoin, "reason", "full", "key", q.PublicKey)
		problem(w, hubapi.Problem{Status: http.StatusConflict, Reason: hubapi.ReasonConflict, Detail: "no more nodes may join now: the guide's maxNodes, or too many requests are pending; the join token stays good"})
	case errors.Is(err, errFleet), errors.Is(err, errBehind):
		unavailable(w, err.Error())
	default:
		e.log.Error("join", "key", q.PublicKey, "error", err)
		unavailable(w, "the hub cannot take requests to join now")
	}
}

// malformed returns what is wrong with a request by its form.
func malformed(q wire.JoinRequest) string {
	switch {
	case !nkeys.IsValidPublicUserKey(q.PublicKey):
		return "publicKey is not the public half of an nkey of type user"
	case q.Recipient != "" && !recipientRE.MatchString(q.Recipient):
		return "recipient is not an age recipient"
	case q.Token == "" || len(q.Token) > 256:
		return "token is missing or too long"
	case q.Machine.CPUs < 0 || q.Machine.Memory < 0:
		return "machine: negative numbers"
	}
	for _, s := range []string{q.Machine.Hostname, q.Machine.OS, q.Machine.Kernel, q.Machine.Arch} {
		// people read it in a terminal
		if len(s) > maxMachineText || !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }) {
			return "machine: texts are printable and at most 256 bytes"
		}
	}
	return ""
}

// join puts a request among the pending ones and returns its code.
func (e *Enrol) join(ctx context.Context, q wire.JoinRequest, proof wire.JoinProof, address string) (string, error) {
	if !e.ready() { // no guide is known, which is not the token's fault
		return "", errFleet
	}
	kv, err := e.tokenBucket(ctx)
	if err != nil {
		return "", err
	}
	hash := hashOf(q.Token)
	revision, t, err := getToken(ctx, kv, hash, 0)
	if err != nil {
		return "", err
	}
	guide, nodes, ok := e.c.Guide(t.Guide)
	switch {
	case !ok && !e.sure():
		return "", errBehind
	case !ok:
		return "", &refusal{reason: "guide is not in Git: " + t.Guide}
	case e.c.Now().After(t.Expires):
		return "", &refusal{reason: "expired"}
	case t.Dropped:
		return "", &refusal{reason: "dropped"}
	case t.Key != "" && t.Key != q.PublicKey:
		return "", &refusal{reason: "used by " + t.Key}
	}
	if node, ok := e.known(q.PublicKey); ok && !e.sure() {
		return "", errBehind
	} else if ok {
		return "", &refusal{reason: "key is in Git already, as node " + node}
	}
	if old, ok, err := e.pending.of(q.PublicKey); err != nil {
		return "", err
	} else if ok { // its answer was lost, or it has two tokens; this one stays as it is
		if old.Guide != t.Guide {
			return "", &refusal{reason: "for another guide: " + t.Guide + " in place of " + old.Guide}
		}
		// a hub may have ended before it counted
		room, ok := roomOf(guide, nodes)
		over, known := e.pending.over(old, old.revision, room)
		switch {
		case (!ok || known && over) && !e.sure(): // another hub may know of more room
			return "", errBehind
		case !ok || known && over:
			return "", errors.Join(errFull, e.pending.remove(ctx, old))
		case !known:
			return "", errNotReady
		}
		return old.Code, nil
	}
	if t.Key == "" {
		t.Key = q.PublicKey
		if revision, err = mark(ctx, kv, hash, t, revision); err != nil {
			return "", err
		}
	}
	code, err := e.propose(ctx, q, proof, t, guide, nodes, address)
	if errors.Is(err, errFull) {
		t.Key = ""
		if _, back := mark(ctx, kv, hash, t, revision); back != nil {
			e.log.Warn("give a join token back", "error", back)
		}
	}
	return code, err
}

// getToken reads a token, newer than a revision. In a cluster any server answers, also one that
// is a little behind: so it asks again before it believes that there is nothing.
func getToken(ctx context.Context, kv jetstream.KeyValue, hash string, than uint64) (revision uint64, t joinToken, err error) {
	for try := range behindTries {
		if try > 0 {
			select {
			case <-time.After(behindWait):
			case <-ctx.Done():
				return 0, t, ctx.Err()
			}
		}
		v, err := kv.Get(ctx, hash)
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
			if try > 0 && than == 0 {
				return 0, t, &refusal{reason: "unknown", stranger: true}
			}
		case err != nil:
			return 0, t, fmt.Errorf("read join token: %w", err)
		case v.Revision() > than:
			return v.Revision(), t, json.Unmarshal(v.Value(), &t)
		}
	}
	return 0, t, errors.New("the bus is behind")
}

// mark writes a token if it is still as it was read: of two that use it at once, one does.
func mark(ctx context.Context, kv jetstream.KeyValue, hash string, t joinToken, revision uint64) (uint64, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return 0, err
	}
	next, err := kv.Update(ctx, hash, b, revision)
	if err != nil && !wrongRevision(err) {
		return 0, fmt.Errorf("mark join token: %w", err)
	}
	if err == nil {
		return next, nil
	}
	revision, now, err := getToken(ctx, kv, hash, revision)
	switch {
	case err != nil:
		return 0, err
	case now.Key == t.Key && !now.Dropped: // the same node asked twice at once
		return revision, nil
	case now.Key == "": // it was given back
		return 0, errors.New("the join token is being used")
	}
	return 0, &refusal{reason: "used by " + now.Key}
}

// wrongRevision tells whether somebody else wrote first. Buckets on several servers say it by
// another code.
func wrongRevision(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// spend makes that a token lets nobody in any more, not even the node that used it.
func (e *Enrol) spend(ctx context.Context, hash string) error {
	kv, err := e.tokenBucket(ctx)
	if err != nil {
		return err
	}
	for than := uint64(0); ; {
		revision, t, err := getToken(ctx, kv, hash, than)
		var no *refusal
		if errors.As(err, &no) {
			return nil // it has gone
		}
		if err != nil {
			return err
		}
		t.Dropped = true
		b, err := json.Marshal(t)
		if err != nil {
			return err
		}
		if _, err = kv.Update(ctx, hash, b, revision); !wrongRevision(err) {
			return err
		}
		than = revision
	}
}

// roomOf tells how many may be pending under a guide, 0: any number; false: none.
func roomOf(g roster.Guide, nodes int) (room int, ok bool) {
	if g.MaxNodes <= 0 {
		return 0, true
	}
	return g.MaxNodes - nodes, nodes < g.MaxNodes
}

// propose puts a request whose token is good among the pending ones.
func (e *Enrol) propose(ctx context.Context, q wire.JoinRequest, proof wire.JoinProof, t joinToken, g roster.Guide, nodes int, address string) (string, error) {
	now := e.c.Now().UTC().Truncate(time.Second)
	p := request{Token: hashOf(q.Token), Pending: hubapi.Pending{
		Guide: t.Guide, Scope: g.Scope, Labels: g.Labels, PublicKey: q.PublicKey, Recipient: q.Recipient,
		Proof: proof, Machine: q.Machine, Address: address, At: now, Expires: now.Add(pendingLife),
	}}
	room, ok := roomOf(g, nodes)
	if !ok {
		return "", errFull
	}
	for range 10 {
		p.Code = newCode()
		p.Name = g.Prefix + strings.ToLower(p.Code)
		if !nodestate.ValidNode(p.Name) {
			return "", fmt.Errorf("guide %s: %q cannot be a node's name: choose another prefix", t.Guide, p.Name)
		}
		if _, taken := e.c.Named(p.Name); !taken {
			code, err := e.pending.add(ctx, p, room)
			if err == nil && code == p.Code && e.c.Joined != nil {
				e.c.Joined(p.Pending, t.By)
			}
			return code, err
		}
	}
	return "", errors.New("no free name was found")
}
