package auth

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode"

	"selvedge/schema/wire"
)

// Problem is a question to a hub that was not answered as hoped.
type Problem struct {
	Hub        string
	Status     int    // of HTTP; 0: no answer, or none of use
	Type       string // wire.Problem…, or ""
	Detail     string // as the hub says it
	RetryAfter time.Duration
	Err        error // without an answer: why
}

// Error gives the place and the cause.
func (p *Problem) Error() string {
	switch {
	case p.Err != nil:
		return fmt.Sprintf("hub %s: %v", p.Hub, p.Err)
	case p.Detail != "":
		return fmt.Sprintf("hub %s: %s", p.Hub, p.Detail)
	}
	return fmt.Sprintf("hub %s: it answers %d %s", p.Hub, p.Status, http.StatusText(p.Status))
}

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// final reports whether another hub would say the same.
func (p *Problem) final() bool {
	switch p.Type {
	case wire.ProblemUnknownNode, wire.ProblemPending, wire.ProblemJoinToken:
		return true
	}
	switch p.Status {
	case http.StatusUnauthorized: // its clock, or what it knows of its own address, may be wrong
		return false
	case http.StatusTooManyRequests, http.StatusNotFound:
		return false
	}
	return p.Status >= 400 && p.Status < 500
}

// Passing reports whether the same question may be answered later, by any of the hubs that were
// asked, and how long the first of them wants to be left alone. A hub that is not the one that was
// meant will not become it.
func Passing(err error) (after time.Duration, ok bool) {
	switch e := err.(type) {
	case *Problem:
		return e.RetryAfter, e.passing()
	case interface{ Unwrap() error }:
		return Passing(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			if a, p := Passing(one); p && (!ok || a < after) {
				after, ok = a, true
			}
		}
	}
	return after, ok
}

func (p *Problem) passing() bool {
	var lost net.Error // refused, reset, no such host, too slow
	return p.Status == http.StatusTooManyRequests || p.Status >= 500 ||
		errors.As(p.Err, &lost) || errors.Is(p.Err, io.EOF) || errors.Is(p.Err, io.ErrUnexpectedEOF)
}

// plain makes a text from outside fit for a line on a terminal.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "") + "…"
	}
	return strings.TrimSpace(s)
}
