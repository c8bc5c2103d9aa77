// Package registry passes a node's pulls on: its own states, trust, and the images that it needs.
//
// It is the pull half of the OCI distribution spec below /v2/, for nodes that Config.Node
// knows:
//
//   - <prefix>/nodes/<node>, for that node alone, and <prefix>/trust go on to the
//     reconciler's store, waits for a change included;
//   - with ?ns=<registry host>, as containerd asks its mirrors, images go on to a configured
//     registry, if the node's state needs them: their manifest by digest, the manifests that
//     an index of them names, and the configs and layers that those name.
//
// Everything else is not there: tags, catalogs and referrers of images, other nodes, other
// registries. So containerd asks the registry itself, if it can reach it.
//
// Guarantees: nodes see none of the credentials of registries; those go to no other host;
// a node that Git does not list any more gets nothing, also after a wait, and what it is
// in the middle of ends. The hub keeps manifests only, in memory, bounded; layers stream
// through.
package registry
