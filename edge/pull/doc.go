// Package pull fetches the newest published state: untrusted bytes.
//
// In: where the registry is, the node's name, and how to reach it. Out: the signed
// manifest as package verify takes it, or that nothing changed, or an [Error] whose class
// says what the loop should do. One conditional request a poll and one an update, if the
// registry serves the tag "signed" with everything inlined, as ours does; other registries
// are asked for manifest, referrers and blobs.
//
// Everything that comes back is bounded: size of headers and bodies, redirects (few, and to
// the same host only), time until the first byte, total time, and the least rate of a body.
// Digests are compared where something was asked for by digest. Nothing is unpacked, decoded
// beyond manifests or believed: whatever a registry answers, package verify decides. It
// writes no file and keeps nothing but connections.
package pull
