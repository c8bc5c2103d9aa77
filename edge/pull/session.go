package pull

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// session is one question at one registry.
type session struct {
	*Client
	base   string
	prefix string
	bearer string
}

// with asks a registry; when it does not take the token, once more with another one.
func with[T any](ctx context.Context, c *Client, ask func(*session) (T, error)) (T, error) {
	s, err := c.session(ctx, "")
	if err != nil {
		var none T
		return none, err
	}
	v, err := ask(s)
	var e *Error
	if s.bearer == "" || !errors.As(err, &e) || e.Status != http.StatusUnauthorized {
		return v, err
	}
	again, failed := c.session(ctx, s.bearer)
	if failed != nil || again.bearer == s.bearer {
		return v, err
	}
	return ask(again)
}

// session finds out where to ask.
func (c *Client) session(ctx context.Context, refused string) (*session, error) {
	if c.cfg.Access == nil {
		return &session{Client: c, base: c.base, prefix: c.cfg.Prefix}, nil
	}
	a, err := c.cfg.Access(ctx, refused)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("pull: %w", ctx.Err())
		}
		return nil, &Error{Class: ErrUnreachable, Err: err}
	}
	b, err := base(a.Registry, c.cfg.AllowHTTP)
	if err != nil {
		return nil, &Error{URL: a.Registry, Class: ErrConfig, Err: err}
	}
	if len(a.Prefix) > 128 || !prefixRE.MatchString(a.Prefix) {
		return nil, &Error{URL: b, Class: ErrMalformed, Err: fmt.Errorf("prefix %.140q", a.Prefix)}
	}
	return &session{Client: c, base: b, prefix: a.Prefix, bearer: a.Bearer}, nil
}
