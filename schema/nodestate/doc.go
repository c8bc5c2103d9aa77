// Package nodestate is one node's desired state: its canonical bytes, its digest
// and the form in which it is published.
//
// It is the only contract between the cloud, which renders, signs and publishes
// states, and the edge, which verifies and applies them. docs/node-state.md
// specifies the bytes.
package nodestate
