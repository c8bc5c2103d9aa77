package main

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/term"

	"selvedge/internal/exit"
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

// askSecret reads a line from the terminal without showing it. The terminal's settings change
// before the read and are back after it, also when that is given up.
func askSecret(ctx context.Context) ([]byte, error) {
	fd := int(os.Stdin.Fd())
	before, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	defer term.Restore(fd, before) // there is nothing else to do about it
	line := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{os.Stdin, io.Discard}, "")
	secret, err := ask(ctx, func() (string, error) { return line.ReadPassword("") })
	if errors.Is(err, io.EOF) { // Ctrl-C is a key like others here
		err = exit.Quiet(interrupted)
	}
	return []byte(secret), err
}
