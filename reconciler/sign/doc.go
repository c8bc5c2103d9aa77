// Package sign makes cosign-compatible signatures over states.
//
// Inputs: a cosign key pair's private half with its password, the canonical bytes of
// a state, and what its manifest says about it. Output: a [nodestate.Artifact],
// ready to be published; docs/node-state.md specifies its bytes.
//
// The unmodified cosign program verifies what is made here: a sigstore bundle v0.3
// (https://docs.sigstore.dev/about/bundle/) around a DSSE envelope with an in-toto
// statement about the state's manifest, as "cosign sign" of version 3 writes it.
// No transparency log and no timestamp authority is asked. Version 2.6 verifies it too
// (--new-bundle-format), but ignores its -a: it does not say for which node.
//
// The key is decrypted once, when it is loaded (scrypt takes a third of a second);
// signing is then safe for concurrent use. The package never touches the network
// and decides neither generations nor who may sign.
package sign
