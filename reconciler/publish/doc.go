// Package publish puts signed states where nodes pull them.
//
// Inputs: signed states ([nodestate.Artifact]) and root documents. Outputs: OCI
// repositories, one a node and one for trust; docs/node-state.md specifies them.
// Two publishers have the same methods:
//
//   - [Store] keeps them in one file and serves the pull half of the OCI distribution
//     spec (https://github.com/opencontainers/distribution-spec) itself;
//   - [Remote] pushes them to any OCI registry.
//
// Guarantees: the generation of a node only grows, also after its state was removed;
// what is served is whole: a reader between a manifest and its blobs still finds the
// generation before; published trust is only ever extended. A crash leaves the old
// content or the new.
//
// The package never signs and checks no signature: that is for nodes to do.
package publish
