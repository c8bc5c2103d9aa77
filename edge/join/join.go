// Package join asks a hub to let this machine in.
//
// In: a client of package auth, whose certificates are pinned by the join line or vouched for by
// the system; the fingerprint of the root of trust; a token, and what the machine is. Out: the first
// root document, and the code by which people find the request, or the name under which the node was
// let in before.
//
// Nothing is pinned that does not match the fingerprint. Asking again is harmless: a node that
// waits or was let in finds that out, also when its first answer was lost. It asks once, and writes
// nothing.
package join

import (
	"context"
	"errors"
	"fmt"

	"selvedge/edge/auth"
	"selvedge/schema/nodestate"
	"selvedge/schema/trust"
	"selvedge/schema/wire"
)

// ErrToken marks a join token that the hub does not take.
var ErrToken = errors.New("the hub refuses the join token: it was used, has expired, or was never given; get a new line with 'selvedge node join'")

// ErrFingerprint marks root documents of another platform, or forged ones.
var ErrFingerprint = errors.New("the hub's root of trust is not the one that was meant")

// Root fetches the root documents and returns the first one, if it has that fingerprint and the
// later ones follow from it.
func Root(ctx context.Context, c *auth.Client, fingerprint string) ([]byte, error) {
	docs, err := c.Trust(ctx)
	if err != nil {
		return nil, err
	}
	if len(docs) == 0 || len(docs) > trust.MaxDocuments {
		return nil, fmt.Errorf("%w: it has %d root documents", ErrFingerprint, len(docs))
	}
	if got := nodestate.Digest(docs[0]); got != fingerprint {
		return nil, fmt.Errorf("%w: it has the fingerprint %s, and %s was asked for; compare with 'selvedge keys root show', and ask who gave you the join line", ErrFingerprint, got, fingerprint)
	}
	first, err := trust.Parse(docs[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFingerprint, err)
	}
	if _, err := trust.Walk(first, docs); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFingerprint, err)
	}
	return docs[0], nil
}

// Outcome is what became of a request.
type Outcome struct {
	Code string // it waits, under this code; "" with no Node: under one that is not known here
	Node string // it was let in, under this name
}

// Ask sends the request. again says that this machine may have asked before: then the hub is asked
// first what became of that.
func Ask(ctx context.Context, c *auth.Client, r wire.JoinRequest, again bool) (Outcome, error) {
	pending := false
	if again {
		switch g, err := c.Token(ctx); {
		case err == nil:
			return Outcome{Node: g.Node}, nil
		case Is(err, wire.ProblemPending):
			pending = true
		case !Is(err, wire.ProblemUnknownNode):
			return Outcome{}, err
		}
	}
	j, err := c.Join(ctx, r)
	switch {
	case err == nil:
		return Outcome{Code: j.Code}, nil
	case !Is(err, wire.ProblemJoinToken):
		return Outcome{}, err
	case pending:
		return Outcome{}, nil
	}
	if !again { // its answer may have been lost on the way
		switch g, e := c.Token(ctx); {
		case e == nil:
			return Outcome{Node: g.Node}, nil
		case Is(e, wire.ProblemPending):
			return Outcome{}, nil
		}
	}
	return Outcome{}, fmt.Errorf("%w (%w)", ErrToken, err)
}

// Is reports whether a hub answered with that type of problem, a wire.Problem constant.
func Is(err error, problem string) bool {
	var p *auth.Problem
	return errors.As(err, &p) && p.Type == problem
}
