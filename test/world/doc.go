// Package world runs all of Selvedge on this machine, from its built commands: a config repo
// made from examples-repo, an image registry, the reconciler, the hub, and nodes with a
// containerd each, in network namespaces of their own where asked.
//
// The demo and the end-to-end tests of the fleet share it. Everything lives in one temporary
// folder and on loopback and link addresses; Close ends all of it.
package world
