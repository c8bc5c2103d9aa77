// Package auth proves to a hub who this node is, and gets what opens the live connection and
// the registry.
//
// In: the hubs' addresses, what their certificates are checked against, and the node's key. Out:
// root documents, the receipt of a join, or a [Grant]; else a [*Problem], which is what a hub
// said, or why none answered.
//
// What the node signs names the hub as it was dialed, so that no other hub can use it. Answers
// are bounded in size and time, redirects are refused, and hubs are asked in turn. A token's life
// is counted from when it came, by the hub's own idea of how long that is: neither side's clock
// needs to be right. A clock before 2026 was never set: certificates are then judged as of when
// they began to hold.
//
// It stores nothing and believes nothing that a hub says about states: those are signed.
package auth
