package auth

import (
	"context"
	"errors"
	"sync"
	"time"

	"selvedge/internal/backoff"
)

// least is between two questions for a token, whoever asks: a registry that refuses every
// token must not keep the node busy.
const least = 5 * time.Second

// Keeper holds the newest Grant for those who need it. It is safe for concurrent use.
type Keeper struct {
	client *Client
	accept func(Grant) error
	turn   chan struct{} // capacity 1: one question at a time

	mu    sync.Mutex
	grant *Grant
	err   error
	asked time.Time // the last question
	after time.Time // no question before
	retry backoff.Backoff
}

// NewKeeper returns a Keeper. accept, unless nil, sees each new Grant before it is used, and may refuse it.
func NewKeeper(c *Client, accept func(Grant) error) *Keeper {
	return &Keeper{client: c, accept: accept, turn: make(chan struct{}, 1), retry: backoff.Backoff{Min: time.Second, Max: 2 * time.Minute}}
}

// Grant returns one that holds for a while, from a hub if need be. After a failure nobody is
// asked for a time that grows, and the error is the same.
func (k *Keeper) Grant(ctx context.Context) (Grant, error) { return k.get(ctx, 0.95) }

// Renewed returns one of whose life less than this part is over.
func (k *Keeper) Renewed(ctx context.Context, part float64) (Grant, error) { return k.get(ctx, part) }

// Stale says that a token, of either kind, was refused: the next Grant is a new one.
func (k *Keeper) Stale(token string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.grant != nil && (k.grant.Bearer == token || k.grant.Bus == token) {
		k.grant = nil
		k.after = latest(k.after, k.asked.Add(least))
		if k.err == nil {
			k.err = errors.New("the hub refuses its own token; a new one is asked for soon")
		}
	}
}

// Last returns the Grant there is, and why there is no newer one.
func (k *Keeper) Last() (g Grant, ok bool, why error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.grant == nil {
		return g, false, k.err
	}
	return *k.grant, true, k.err
}

func (k *Keeper) get(ctx context.Context, part float64) (Grant, error) {
	if g, err, ok := k.known(part); ok {
		return g, err
	}
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return Grant{}, ctx.Err()
	}
	if g, err, ok := k.known(part); ok { // another asked meanwhile
		return g, err
	}
	g, err := k.client.Token(ctx)
	if ctx.Err() != nil && err != nil {
		return Grant{}, err // it says nothing about the hub
	}
	if err == nil && k.accept != nil {
		err = k.accept(g)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked, k.err = time.Now(), err
	if err != nil {
		pause := k.retry.Next()
		var p *Problem
		if errors.As(err, &p) {
			pause = max(pause, p.RetryAfter)
		}
		k.after = k.asked.Add(pause)
		return Grant{}, err
	}
	k.retry.Reset()
	k.grant, k.after = &g, time.Time{}
	return g, nil
}

// known returns what can be said without a question.
func (k *Keeper) known(part float64) (Grant, error, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if g := k.grant; g != nil && time.Since(g.Got) < time.Duration(part*float64(g.For)) {
		return *g, nil, true
	}
	if time.Now().Before(k.after) && k.err != nil {
		return Grant{}, k.err, true
	}
	return Grant{}, nil, false
}

// Soon returns how long nobody is asked.
func (k *Keeper) Soon() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return max(time.Until(k.after), 0)
}
