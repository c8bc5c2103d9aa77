package pull

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Classes of errors: what every *Error wraps one of, unless the context ended.
var (
	ErrNotFound    = errors.New("not found")   // no state for this node yet, or no more: keep running, ask again
	ErrUnreachable = errors.New("unreachable") // no answer, or too slow a one: back off
	ErrBusy        = errors.New("busy")        // 429 or 5xx: back off, at least for Error.RetryAfter
	ErrTLS         = errors.New("not secure")  // the other side is not proven to be the registry: people must look
	ErrRefused     = errors.New("refused")     // 401 or 403: people must look
	ErrMalformed   = errors.New("malformed")   // an answer that no honest registry gives: raise an alarm
	ErrConfig      = errors.New("configuration")
)

// Error is a request that did not succeed.
type Error struct {
	URL        string
	Class      error         // one of the above
	Status     int           // of HTTP; 0: none
	RetryAfter time.Duration // as the registry asked, at most an hour; 0: it did not
	Err        error         // the cause
}

// Error gives the place, the cause and the next step.
func (e *Error) Error() string {
	if e.URL == "" { // nobody was asked
		return fmt.Sprintf("pull: %v: %v", e.Class, e.Err)
	}
	return fmt.Sprintf("pull %s: %v: %v%s", e.URL, e.Class, e.Err, next[e.Class])
}

// Unwrap returns class and cause.
func (e *Error) Unwrap() []error { return []error{e.Class, e.Err} }

var next = map[error]string{
	ErrNotFound: "; is the node in the config repo, with this node's public key?",
	ErrTLS:      "; check the registry's certificate, the CA file and this machine's clock",
	ErrRefused:  "; check the credentials file and whether the node was removed",
}

// broken makes an error of the class malformed.
func broken(url, format string, args ...any) *Error {
	return &Error{URL: url, Class: ErrMalformed, Err: fmt.Errorf(format, args...)}
}

// transportError classes what net/http returns in place of an answer.
func transportError(ctx context.Context, url string, err error) error {
	var own *Error
	switch cause := context.Cause(ctx); {
	case errors.As(err, &own):
		return own
	case errors.Is(cause, errSlow):
		return &Error{URL: url, Class: ErrUnreachable, Err: cause}
	case ctx.Err() != nil: // the caller's own wish
		return fmt.Errorf("pull %s: %w", url, ctx.Err())
	}
	var (
		verification *tls.CertificateVerificationError
		record       tls.RecordHeaderError
		alert        tls.AlertError
		authority    x509.UnknownAuthorityError
	)
	class := ErrUnreachable
	if errors.As(err, &verification) || errors.As(err, &record) || errors.As(err, &alert) || errors.As(err, &authority) || errors.Is(err, http.ErrSchemeMismatch) {
		class = ErrTLS
	}
	return &Error{URL: url, Class: class, Err: shorten(err)}
}

// shorten takes off net/http's own "Get URL:", which the message has already.
func shorten(err error) error {
	var u interface{ Unwrap() error }
	if _, isNet := err.(net.Error); isNet && errors.As(err, &u) && u.Unwrap() != nil {
		if inner := u.Unwrap(); inner != nil {
			return inner
		}
	}
	return err
}

// statusError classes an answer that is not the one hoped for.
func statusError(url string, a *answer) *Error {
	e := &Error{URL: url, Status: a.status, Err: fmt.Errorf("the registry answers %d %s", a.status, http.StatusText(a.status)), RetryAfter: a.retryAfter}
	switch {
	case a.status == http.StatusNotFound:
		e.Class = ErrNotFound
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden:
		e.Class = ErrRefused
	case a.status == http.StatusTooManyRequests || a.status >= 500:
		e.Class = ErrBusy
	default:
		e.Class = ErrMalformed
	}
	return e
}
