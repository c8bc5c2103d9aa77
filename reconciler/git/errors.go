package git

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// The states that a caller may want to tell apart, with errors.Is.
var (
	ErrConfig        = errors.New("wrong setting")
	ErrUnreachable   = errors.New("the remote cannot be reached")
	ErrAuth          = errors.New("the remote refused the credentials")
	ErrTLS           = errors.New("the remote's certificate is not trusted")
	ErrProtocol      = errors.New("the remote does not answer like a Git server")
	ErrNotRepository = errors.New("not a Git repository")
	ErrUnsupported   = errors.New("repository format is not supported")
	ErrNoBranch      = errors.New("no such branch")
	ErrNoRevision    = errors.New("no such revision")
	ErrEmpty         = errors.New("the repository has no commit yet")
	ErrShallow       = errors.New("the clone is shallow")
	ErrCorrupt       = errors.New("the repository is damaged")
	ErrDisk          = errors.New("the folder of the clone cannot be used")
	ErrTooLarge      = errors.New("too large")
	ErrSymlink       = errors.New("symlink is not followed")
	ErrSubmodule     = errors.New("submodule is not entered")
)

// Error says what was tried, on what, why it went wrong and what to do next.
type Error struct {
	Op   string // fetch, open, read, …
	What string // path, address without credentials, branch, object
	Kind error  // one of this package's sentinels
	Why  string // cause, free of credentials; may be empty
	Hint string // next step; may be empty

	cause error // only for errors.Is: its text may hold what must not be printed
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.What != "" {
		b.WriteString(" " + e.What)
	}
	b.WriteString(": " + e.Kind.Error())
	if e.Why != "" {
		b.WriteString(": " + e.Why)
	}
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Unwrap gives the kind, and the cause where there is one.
func (e *Error) Unwrap() []error {
	if e.cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.cause}
}

// guard turns a panic of the Git library into an error: damaged input must not end the
// process. Use it deferred, around every call that decodes.
func guard(op, what string, err *error) {
	if p := recover(); p != nil {
		*err = &Error{Op: op, What: what, Kind: ErrCorrupt, Why: gaveUp(p), Hint: hintFsck}
	}
}

// guardRemote is guard for what a server sent.
func guardRemote(what string, err *error) {
	if p := recover(); p != nil {
		*err = &Error{Op: "fetch", What: what, Kind: ErrProtocol, Why: gaveUp(p), Hint: hintStays}
	}
}

func gaveUp(p any) string { return printable(fmt.Sprintf("the Git library gave up: %v", p)) }

const (
	hintFsck  = "run git fsck there; the last good commit stays in force"
	hintStays = "the last good commit stays in force"
)

func corrupt(op, what string, err error) error {
	return &Error{Op: op, What: what, Kind: ErrCorrupt, Why: printable(err.Error()), Hint: hintFsck, cause: err}
}

func missing(h plumbing.Hash) error {
	return fmt.Errorf("object %s is missing", h)
}

// printable bounds a text that came from outside and keeps it on one line.
func printable(s string) string {
	const limit = 300
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), func(r rune) bool {
		return r < ' ' || r == 0x7f || r == ' '
	}), " ")
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}
