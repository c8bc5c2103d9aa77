// Package ops is what people may do with the fleet.
//
// In: a Caller, which only Authenticate makes, and what they ask for. Out: shapes of hubapi,
// streams, or a *hubapi.Problem that says to a person what is wrong, and what to do.
//
// Each operation looks up the caller's token anew, asks reconciler/access, does one thing
// and, if it changes something or looks into a container, writes it into the audit log first:
// what cannot be audited is not done. A node that the caller may not see does not
// exist for them; what they see and may not do is forbidden, with the role that would do.
// Streams end when the token expires or is revoked, or a right is taken away in Git, and are
// bounded in number.
//
// What the hub may ask of a node is looked up in the roster, for a friendly answer; the node
// decides it by its signed state. API and console only translate what is here.
package ops
