// Package trust holds the root of trust: the numbered documents that say whose
// signatures a node believes.
//
// A document is in TUF's root format (https://theupdateframework.github.io/specification/latest/#file-formats-root)
// and in the one serialisation that [Draft.Bytes] writes; every other spelling of
// the same content is refused, so that a fingerprint names exactly one document.
// The roles of TUF are used so:
//
//   - root: the keys that may change trust, kept offline, and how many of them must agree;
//   - targets: the keys that may sign states, each alone (threshold 1); none of them is a root key;
//   - snapshot and timestamp: TUF demands that they are listed; they repeat the root role
//     and nothing is ever signed for them.
//
// "expires" is written far in the future and never enforced: a node must live
// through years offline with a clock that may be wrong. Keys are ECDSA P-256, as
// cosign makes them. Unknown fields of the signed part are kept and covered by the
// signatures, so that nodes of today can follow documents that say more.
//
// Guarantees: a [Root] has enough signatures of its own root keys, and one made by
// [Root.Next] has enough of its predecessor's too, so that a chain can be walked
// from a pinned document to the newest. States never change trust, and a stolen
// signing key cannot bring itself back in.
//
// The package does no input or output and reads no clock.
package trust
