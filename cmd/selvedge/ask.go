package main

import (
	"context"
	"os"

	"golang.org/x/term"
)

// ask reads what somebody types, unless ctx ends before: a signal ends no read of a terminal,
// and this program catches them.
func ask[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type answer struct {
		text T
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		text, err := read()
		got <- answer{text, err}
	}()
	select {
	case a := <-got:
		return a.text, a.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// askSecret reads a line from the terminal without showing it.
func askSecret(ctx context.Context) ([]byte, error) {
	fd := int(os.Stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	secret, err := ask(ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
	if ctx.Err() != nil {
		_ = term.Restore(fd, before) // the read that goes on would do it too late
	}
	return secret, err
}
