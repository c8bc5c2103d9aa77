package enrol

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"selvedge/schema/hubapi"
)

const (
	pendingBucket = "pending"
	keyPrefix     = "key."  // and the public key: a request
	codePrefix    = "code." // and the code: the public key, so that no code is given twice
	sweepEvery    = 10 * time.Second
	rewatch       = 2 * time.Second // after an error
	lateWatch     = 2 * time.Second // for a write to come back; a watch notices only after many seconds that its server restarted
	oldWatch      = 5 * time.Second // before it may be replaced
)

// codeLetters are hard to mistake for each other, and make no words.
const codeLetters = "23456789BCDFGHJKMNPQRSTVWXYZ"

// newCode makes a code such as 7KQ2-M9XD.
func newCode() string {
	b := make([]byte, 0, 9)
	var one [1]byte
	for len(b) < 9 {
		if len(b) == 4 {
			b = append(b, '-')
		}
		rand.Read(one[:])
		if n := int(one[0]); n < 256/len(codeLetters)*len(codeLetters) { // all letters alike
			b = append(b, codeLetters[n%len(codeLetters)])
		}
	}
	return string(b)
}

// request is what is kept of a node that waits.
type request struct {
	hubapi.Pending
	Token string `json:"token"` // SHA-256 of the join token

	revision uint64
}

// pending is the bucket of requests and a copy of it that follows. Revisions are in one order
// for all hubs, so all agree on who came first.
type pending struct {
	now   func() time.Time
	known func(publicKey string) (node string, ok bool)

	mu    sync.Mutex
	kv    jetstream.KeyValue // nil: not open yet
	ready bool               // the copy is whole
	byKey map[string]request
	seen  uint64 // revision up to which the copy goes
	// waiting are closed when the copy goes up to their revision.
	waiting map[chan struct{}]uint64
	late    chan struct{} // somebody waits for what should have come
}

var (
	errNotReady = errors.New("what is pending is not known yet")
	errLate     = errors.New("the watch is late")
)

// Run follows what is pending and removes what is done with, until ctx ends.
func (e *Enrol) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := e.follow(ctx)
		if errors.Is(err, errLate) {
			continue
		}
		if err != nil && ctx.Err() == nil {
			e.log.Warn("follow what is pending", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(rewatch):
		}
	}
	return nil
}

func (e *Enrol) follow(ctx context.Context) error {
	kv, err := e.c.Bucket(ctx, pendingBucket, pendingLife)
	if err != nil {
		return err
	}
	w, err := kv.Watch(ctx, keyPrefix+">")
	if err != nil {
		return err
	}
	defer w.Stop()
	p, began := &e.pending, time.Now()
	p.start(kv)
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case u, ok := <-w.Updates():
			if !ok {
				return errors.New("the watch ended")
			}
			p.apply(u)
		case <-p.late:
			if time.Since(began) > oldWatch {
				return errLate
			}
		case <-tick.C:
			e.sweep(ctx)
		}
	}
}

func (p *pending) start(kv jetstream.KeyValue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kv, p.ready, p.seen, p.byKey = kv, false, 0, map[string]request{}
}

// apply takes an update; nil says that all there was has come.
func (p *pending) apply(u jetstream.KeyValueEntry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u == nil {
		p.ready = true
	} else {
		key := strings.TrimPrefix(u.Key(), keyPrefix)
		var r request
		if u.Operation() != jetstream.KeyValuePut || json.Unmarshal(u.Value(), &r) != nil || r.PublicKey != key {
			delete(p.byKey, key)
		} else {
			r.revision = u.Revision()
			p.byKey[key] = r
		}
		p.seen = u.Revision()
	}
	for there, revision := range p.waiting {
		if revision <= p.seen {
			close(there)
			delete(p.waiting, there)
		}
	}
}

// live tells whether a request still waits.
func (p *pending) live(r request, now time.Time) bool {
	_, done := p.known(r.PublicKey)
	return !done && now.Before(r.Expires)
}

// code returns the code under which a key waits.
func (p *pending) code(publicKey string) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.byKey[publicKey]
	return r.Code, ok && p.live(r, p.now())
}

// of returns the request of a key.
func (p *pending) of(publicKey string) (request, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ready {
		return request{}, false, errNotReady
	}
	r, ok := p.byKey[publicKey]
	return r, ok && p.live(r, p.now()), nil
}

// add writes a request and returns its code; errFull if there are room, or maxPending, before it.
// It is written first and counted then, by the order of revisions: so the bound holds for
// all hubs together.
func (p *pending) add(ctx context.Context, r request, room int) (string, error) {
	p.mu.Lock()
	kv, n := p.kv, len(p.byKey)
	p.mu.Unlock()
	if n >= maxPending {
		return "", errFull
	}
	b, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	if _, err := kv.Create(ctx, codePrefix+r.Code, []byte(r.PublicKey)); err != nil {
		return "", fmt.Errorf("take code: %w", err)
	}
	revision, err := kv.Create(ctx, keyPrefix+r.PublicKey, b)
	if err != nil {
		err = errors.Join(err, kv.Purge(ctx, codePrefix+r.Code))
		if !wrongRevision(err) {
			return "", fmt.Errorf("write request: %w", err)
		}
		// it asked twice at once, or again after no answer came: its first request counts
		if r, err = p.other(ctx, r.PublicKey); err != nil {
			return "", err
		}
		revision = r.revision
	}
	for {
		if err := p.await(ctx, revision); err != nil { // it asks again, and is counted then
			return "", fmt.Errorf("count requests: %w", err)
		}
		over, known := p.over(r, revision, room)
		switch {
		case !known: // the copy began anew meanwhile
		case over:
			return "", errors.Join(errFull, p.remove(ctx, r))
		default:
			return r.Code, nil
		}
	}
}

// other returns a key's request that was written before.
func (p *pending) other(ctx context.Context, publicKey string) (request, error) {
	for {
		p.mu.Lock()
		r, ok := p.byKey[publicKey]
		p.mu.Unlock()
		if ok {
			return r, nil
		}
		select {
		case <-time.After(behindWait):
		case <-ctx.Done():
			return request{}, ctx.Err()
		}
	}
}

// await returns when the copy goes up to a revision.
func (p *pending) await(ctx context.Context, revision uint64) error {
	p.mu.Lock()
	if p.seen >= revision {
		p.mu.Unlock()
		return nil
	}
	there := make(chan struct{})
	p.waiting[there] = revision
	p.mu.Unlock()
	late := time.NewTicker(lateWatch)
	defer late.Stop()
	for {
		select {
		case <-there:
			return nil
		case <-late.C:
			select {
			case p.late <- struct{}{}:
			default:
			}
		case <-ctx.Done():
			p.mu.Lock()
			delete(p.waiting, there)
			p.mu.Unlock()
			return ctx.Err()
		}
	}
}

// over tells whether as many as there is room for came before; it is not known while the copy
// does not go up to the revision.
func (p *pending) over(r request, revision uint64, room int) (over, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen < revision {
		return false, false
	}
	now := p.now()
	all, same := 0, 0
	for _, o := range p.byKey {
		if o.revision >= revision || !p.live(o, now) {
			continue
		}
		all++
		if o.Guide == r.Guide {
			same++
		}
	}
	return all >= maxPending || room > 0 && same >= room, true
}

// remove forgets a request, also if who asked has left: it would wait for days.
func (p *pending) remove(ctx context.Context, r request) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), joinTime)
	defer cancel()
	p.mu.Lock()
	kv := p.kv
	p.mu.Unlock()
	return errors.Join(kv.Purge(ctx, keyPrefix+r.PublicKey), kv.Purge(ctx, codePrefix+r.Code))
}

// list returns those that wait and those that are done with, oldest first.
func (p *pending) list() (waiting, done []request, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ready {
		return nil, nil, errNotReady
	}
	now := p.now()
	for _, r := range p.byKey {
		if p.live(r, now) {
			waiting = append(waiting, r)
		} else {
			done = append(done, r)
		}
	}
	slices.SortFunc(waiting, func(a, b request) int { return cmp.Compare(a.revision, b.revision) })
	return waiting, done, nil
}

// sweep removes what Git lists by now, and what has expired.
func (e *Enrol) sweep(ctx context.Context) {
	if !e.sure() { // a key that this hub takes for listed may have left Git and joined again
		return
	}
	_, done, err := e.pending.list()
	if err != nil {
		return
	}
	for _, r := range done {
		err := e.spend(ctx, r.Token) // it must not bring the request back
		if err == nil {
			err = e.pending.remove(ctx, r)
		}
		if err != nil {
			e.log.Warn("remove a request that is done with", "code", r.Code, "error", err)
			return
		}
	}
}

// Pending returns the nodes that wait for approval, oldest first.
func (e *Enrol) Pending(context.Context) ([]hubapi.Pending, error) {
	waiting, _, err := e.pending.list()
	if err != nil {
		return nil, err
	}
	all := make([]hubapi.Pending, len(waiting))
	for i, r := range waiting {
		all[i] = r.Pending
	}
	return all, nil
}

// Drop forgets a pending request; its join token lets nobody in any more. ErrNotFound: there
// is none of that code.
func (e *Enrol) Drop(ctx context.Context, code string) error {
	waiting, _, err := e.pending.list()
	if err != nil {
		return err
	}
	code = strings.ToUpper(strings.TrimSpace(code))
	for _, r := range waiting {
		if r.Code != code {
			continue
		}
		if err := e.spend(ctx, r.Token); err != nil {
			return fmt.Errorf("drop %s: %w", code, err)
		}
		if err := e.pending.remove(ctx, r); err != nil {
			return fmt.Errorf("drop %s: %w", code, err)
		}
		e.pending.forget(r)
		return nil
	}
	return fmt.Errorf("%w: nothing is pending as %s", ErrNotFound, code)
}

// forget takes a request out of the copy before the bucket tells.
func (p *pending) forget(r request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byKey[r.PublicKey].revision == r.revision {
		delete(p.byKey, r.PublicKey)
	}
}
