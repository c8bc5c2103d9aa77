package verify

import (
	"errors"
	"fmt"
	"strings"
)

// ErrUntrusted is what every error of this package is: the state is never applied, an
// alarm is raised, and nothing changes.
var ErrUntrusted = errors.New("untrusted state")

// Reason classes a refusal for alarms and metrics.
type Reason string

// Reasons for which a state is refused.
const (
	Malformed Reason = "malformed"  // not a signed manifest in our form, or out of bounds
	WrongKey  Reason = "wrong-key"  // signed by a key that is not listed, or is no more: fetch the trust documents
	Tampered  Reason = "tampered"   // signature, manifest and content do not belong together
	OtherNode Reason = "other-node" // a state for another node, or another key under this node's name
	Rollback  Reason = "rollback"   // older than a state seen before, or another one of its generation
	Rejected  Reason = "rejected"   // it failed here before: hold on for a higher generation, or retry by hand
	Unknown   Reason = "unknown"    // content that this version of the agent does not know or allow
	NoRoot    Reason = "no-root"    // nothing to check signatures with
	Forged    Reason = "forged"     // an acceptance record that this node's key did not make
)

// Error is a refusal.
type Error struct {
	Reason     Reason
	Generation int64  // 0: not known
	Digest     string // of the state's manifest; "": not known
	Err        error  // what is wrong
}

// maxCause bounds what a message says of a cause, in bytes.
const maxCause = 500

// Error says what was refused, why, and what to do.
func (e *Error) Error() string {
	what := "state refused"
	if e.Generation > 0 {
		what = fmt.Sprintf("state of generation %d refused", e.Generation)
	}
	cause := e.Err.Error()
	if len(cause) > maxCause { // decoders repeat names from outside
		cause = cause[:maxCause] + "…"
	}
	return fmt.Sprintf("%s (%s): %s%s", what, e.Reason, strings.ToValidUTF8(cause, "?"), next[e.Reason])
}

// Unwrap returns the cause, besides ErrUntrusted.
func (e *Error) Unwrap() []error { return []error{ErrUntrusted, e.Err} }

// next is the next step for people.
var next = map[Reason]string{
	Malformed: "; check what the registry serves as the tag signed of this node",
	WrongKey:  "; if the key is new, publish the root document that lists it (selvedge keys)",
	Tampered:  "; check the registry: what it serves was not signed together",
	OtherNode: "; check node name and key in the config repo against selvedge-edge status",
	Rollback:  "; a registry restored from a backup serves old states until the reconciler publishes anew",
	Rejected:  "; push a mended commit, or retry this one with selvedge-edge release",
	Unknown:   "; update selvedge-edge, or set platform.engine back in the config repo",
	NoRoot:    "; run selvedge-edge init with the root document or its fingerprint",
	Forged:    "; the store was altered by someone without this node's key",
}

func refuse(r Reason, format string, args ...any) *Error {
	return &Error{Reason: r, Err: fmt.Errorf(format, args...)}
}
