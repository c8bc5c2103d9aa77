package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// maxRevoked is how many keys are listed one by one (11,000 fill a message). Beyond it all
// JWTs so far are revoked, and nodes fetch new ones.
const maxRevoked = 8000

// revokedAhead is how far ahead of the clock a revocation is stamped: clocks of hubs may be wrong
// by a time zone, or have been when they issued JWTs.
const revokedAhead = 24 * time.Hour

// revoked is what this hub knows to be revoked: key → Unix time. JWTs that are not newer are
// refused. The truth is the account's JWT at the servers, which other hubs change, too.
//
// Stamps count like a clock that never goes back: a JWT is issued after all that was revoked
// (issue), and a revocation lies after all that can have been issued.
type revoked struct {
	update sync.Mutex // one change at a time

	mu      sync.Mutex
	keys    map[string]int64
	since   map[string]time.Time // since when this hub knows of it, by a clock that nobody sets
	account int64                // when the newest JWT of the account that was seen was issued
}

func (r *revoked) init() { r.keys, r.since = map[string]int64{}, map[string]time.Time{} }

// at returns when a key was revoked, or 0.
func (r *revoked) at(key string) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(r.keys[key], r.keys[jwt.All])
}

// stamp revokes keys as of that time at least: after the newest JWT of each that is known to be in
// use, and after one that a hub issued because of the revocation before.
func (r *revoked) stamp(at int64, issued map[string]int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, newest := range issued {
		r.raise(k, max(at, newest, max(r.keys[k], r.keys[jwt.All])+1))
	}
}

// raise notes when a key was revoked, if nothing later is known. It is called with the lock.
func (r *revoked) raise(key string, t int64) {
	if t > r.keys[key] {
		r.keys[key], r.since[key] = t, time.Now()
	}
}

// learn takes over what an account's JWT tells.
func (r *revoked) learn(a *jwt.AccountClaims) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.account = max(r.account, a.IssuedAt)
	for k, t := range a.Revocations {
		r.raise(k, t)
	}
}

// Revoke drops the connections of these keys, on all servers, and refuses the JWTs that they
// have; before Run is ready, as soon as it is. A key that comes back to Git works with a newer JWT.
func (b *Bus) Revoke(ctx context.Context, publicKeys ...string) error {
	if len(publicKeys) == 0 {
		return nil
	}
	for _, k := range publicKeys {
		if !nkeys.IsValidPublicUserKey(k) {
			return fmt.Errorf("revoke: %q is no public key of a node (U…)", k)
		}
	}
	b.revoked.stamp(time.Now().Add(revokedAhead).Unix(), b.presence.issued(publicKeys))
	b.count.revocations.Add(int64(len(publicKeys)))
	nc := b.sys()
	if nc == nil {
		return nil // written before nodes are let in
	}
	// What fails is tried again by keepRevoked.
	if err := b.pushRevoked(ctx, nc, true); err != nil {
		return fmt.Errorf("revoke %d keys: %w", len(publicKeys), err)
	}
	return nil
}

// keepRevoked repairs what another hub overwrote at the same time, and prunes.
func (b *Bus) keepRevoked(ctx context.Context) {
	if nc := b.sys(); nc != nil {
		if err := b.pushRevoked(ctx, nc, false); err != nil && ctx.Err() == nil {
			b.log.Warn("revocations of nodes", "error", err)
		}
	}
}

// claimsUpdate is where accounts are written; servers answer, and hubs listen to each other.
const claimsUpdate = "$SYS.REQ.CLAIMS.UPDATE"

// otherRevoked learns what another hub writes: a server that is behind may still answer this
// one with the account as it was before.
func (b *Bus) otherRevoked(m *nats.Msg) {
	a, err := jwt.DecodeAccountClaims(string(m.Data))
	if err != nil || a.Subject != b.keys.accountID || a.Issuer != b.keys.operatorID {
		return
	}
	b.revoked.learn(a)
}

// learnRevoked takes over what the servers hold.
func (b *Bus) learnRevoked(ctx context.Context, nc *nats.Conn) error {
	a, err := b.lookup(ctx, nc)
	if err == nil {
		b.revoked.learn(a)
	}
	return err
}

// pushRevoked joins ours and theirs, and writes if theirs lacks something, or always.
func (b *Bus) pushRevoked(ctx context.Context, nc *nats.Conn, always bool) error {
	b.revoked.update.Lock()
	defer b.revoked.update.Unlock()
	a, err := b.lookup(ctx, nc)
	if err != nil {
		return err
	}
	b.revoked.learn(a)
	b.revoked.mu.Lock()
	b.revoked.prune(time.Now(), a.Revocations)
	want, newest := maps.Clone(b.revoked.keys), b.revoked.account
	b.revoked.mu.Unlock()
	if !always && maps.Equal(want, a.Revocations) {
		return nil
	}
	a.Revocations = want
	// servers that differ keep the one that was issued later
	text, err := issue(a, b.keys.operator, newest+1)
	if err != nil {
		return err
	}
	m, err := askServer(ctx, nc, claimsUpdate, []byte(text))
	if err != nil {
		return fmt.Errorf("write the bus account: %w", err)
	}
	var answer struct {
		Error *struct {
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return fmt.Errorf("write the bus account: %w", err)
	}
	if answer.Error != nil {
		return fmt.Errorf("write the bus account: %s", answer.Error.Description)
	}
	return nil
}

// prune removes what no JWT is old enough for, and bounds the rest; theirs is what the servers
// hold. This hub's clock alone removes nothing, for it may be days ahead: what it calls old has
// been known here for as long as a JWT can live, or another hub has removed it. It is called with
// the lock.
func (r *revoked) prune(now time.Time, theirs map[string]int64) {
	old := now.Add(-maxTTL - time.Hour).Unix()
	maps.DeleteFunc(r.keys, func(k string, t int64) bool {
		known := time.Hour // longer than it takes to write it, and to write it again after another hub did not know it
		if _, held := theirs[k]; held {
			known = maxTTL + revokedAhead + time.Hour
		}
		return t < old && now.Sub(r.since[k]) > known
	})
	if len(r.keys) > maxRevoked {
		newest := int64(0)
		for _, t := range r.keys {
			newest = max(newest, t)
		}
		clear(r.keys)
		r.raise(jwt.All, newest)
	}
	maps.DeleteFunc(r.since, func(k string, _ time.Time) bool { return r.keys[k] == 0 })
}

// lookup returns the account as the servers have it.
func (b *Bus) lookup(ctx context.Context, nc *nats.Conn) (*jwt.AccountClaims, error) {
	m, err := askServer(ctx, nc, "$SYS.REQ.ACCOUNT."+b.keys.accountID+".CLAIMS.LOOKUP", nil)
	if err != nil {
		return nil, err
	}
	if len(m.Data) == 0 {
		return nil, errors.New("no server has it; are the servers started with this hub's bus-config?")
	}
	a, err := jwt.DecodeAccountClaims(string(m.Data))
	if err != nil {
		return nil, err
	}
	if a.Subject != b.keys.accountID {
		return nil, fmt.Errorf("it is another one: %s", a.Subject)
	}
	if a.Revocations == nil {
		a.Revocations = jwt.RevocationList{}
	}
	return a, nil
}

// askServer asks the servers themselves.
func askServer(ctx context.Context, nc *nats.Conn, subject string, data []byte) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	return nc.RequestWithContext(ctx, subject, data)
}
