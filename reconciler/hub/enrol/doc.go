// Package enrol lets nodes in: it checks who they are and hands out what opens bus and registry.
//
// Inputs: requests of nodes (wire.PathNonce, PathToken, PathJoin, PathTrust), and what Git
// says of keys and guides. Outputs: a NATS user JWT, which is of use only to who has the
// node's key, and a bearer for one hour; pending requests for people to approve in Git.
//
// Guarantees:
//
//   - A key is believed only with its signature over a fresh nonce and the URL of this hub.
//     Nonces hold for a minute, once in each hub. That they are not shared among hubs is
//     enough: who could replay one at another hub has read what was inside TLS, within that
//     minute, and gets a bearer for that node's own pulls.
//   - A bearer counts only while Git lists its key for its node.
//   - A join token lets in one node, also when several hubs are asked at once.
//     A guide's bound on nodes holds likewise.
//   - No more than 10,000 requests are pending, and each goes after 7 days, when it is
//     dropped, or when Git lists its key.
//   - No answer depends on a node's clock, and none says why a join token is refused.
//
// It writes nothing to Git: approval is a commit of a person.
package enrol
