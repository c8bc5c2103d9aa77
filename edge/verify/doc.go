// Package verify is the only maker of verified states.
//
// In: a signed manifest as the tag "signed" holds it, from wherever it came; the newest
// root document; this node's name and public key; the floor and what was rejected. Out:
// a [State], or an [Error] whose reason says why not. A state is accepted only if
//
//   - a key that the root document lists signed, in DSSE and by ECDSA P-256, exactly one in-toto
//     statement of cosign's predicate type, about exactly one subject;
//   - the subject's digest is that of the state's manifest, and the layer's digest, size and media
//     type are those that the manifest names;
//   - node, generation and identity agree in the signed subject, the manifest and the content, and
//     are this node's own;
//   - the generation is above the floor, or is the floor's and the digest too, and the digest was not rejected;
//   - size, depth, duplicate names and schema are within bounds, see [nodestate.Decode].
//
// At boot [FromRecord] accepts what this node accepted before, by a record that only its own key
// could have sealed, even if the signer was revoked since: a revocation must not stop a site.
//
// It does no input or output, reads no clock, keeps nothing, and changes nothing. The
// standard library checks the signature: no cosign package, no certificate, no log.
package verify
