// Package access decides who may do what where.
//
// In: role bindings and identities as the roster carries them, a subject, a scope, an action,
// a time. Out: yes or no, with the reason in words and the role that would do. What is
// unknown (a role, an action, an identity, a path that is none) is refused.
//
// The package is pure: it reads no file, no clock and no network, and keeps nothing.
package access
