package wire

import "time"

// Paths of the hub that nodes use. Errors are RFC 9457 problems.
const (
	PathNonce = "/auth/nonce" // GET → Nonce
	PathToken = "/auth/token" // POST TokenRequest → Token
	PathJoin  = "/auth/join"  // POST JoinRequest → Joined
	PathTrust = "/auth/trust" // GET → Trust: the root documents; public
	PathBus   = "/bus"        // NATS over WebSocket
	PathV2    = "/v2/"        // the OCI pull API: a node's own state, trust, the images that it needs
)

// Types of problems that nodes tell apart (the member "type" of RFC 9457).
const (
	ProblemUnknownNode = "urn:selvedge:problem:unknown-node" // the key is in no node's identity in Git
	ProblemPending     = "urn:selvedge:problem:pending"      // joined and not approved yet
	ProblemJoinToken   = "urn:selvedge:problem:join-token"   // used, expired, for another guide, or never given
)

// Nonce is to be signed within a minute, once.
type Nonce struct {
	Nonce string `json:"nonce"`
}

// TokenRequest proves that its sender holds a node's key.
type TokenRequest struct {
	PublicKey string `json:"publicKey"`
	Nonce     string `json:"nonce"`
	Signature string `json:"signature"` // base64 (RFC 4648 section 4) of the nkey's signature of TokenMessage
}

// TokenMessage is what a node signs to get a Token. It names the hub as the node dials it,
// scheme and host[:port], so that no other hub can use the signature.
func TokenMessage(hub, nonce string) []byte {
	return []byte("selvedge-auth-v1\n" + hub + "\n" + nonce)
}

// Token opens the bus and the registry for one node.
type Token struct {
	Node    string    `json:"node"` // the name in Git
	Bus     string    `json:"bus"`  // a NATS user JWT for the node's own nkey
	Bearer  string    `json:"bearer"`
	Expires time.Time `json:"expires"` // of the sooner one, by the hub's clock
	Now     time.Time `json:"now"`     // the hub's clock
	// Images are registries whose images the hub passes on below PathV2 for this node, as host[:port].
	Images []string `json:"images,omitempty"`
	Prefix string   `json:"prefix,omitempty"` // of the repositories of states and trust
}

// JoinRequest asks that a new node be let in.
type JoinRequest struct {
	Token     string  `json:"token"` // from the join line
	PublicKey string  `json:"publicKey"`
	Recipient string  `json:"recipient,omitempty"` // age1…
	Machine   Machine `json:"machine"`
	Signature string  `json:"signature"` // of JoinMessage, as in TokenRequest
}

// JoinMessage is what a node signs to join.
func JoinMessage(hub string, r JoinRequest) []byte {
	return ProofOf(hub, r).message(r.PublicKey, r.Recipient)
}

// Joined says that the request waits for approval. The node asks for a Token until it gets one.
type Joined struct {
	Code string `json:"code"` // names the request to people, e.g. 7KQ2-M9XD
}

// Trust holds the root documents, oldest first.
type Trust struct {
	Documents [][]byte `json:"documents"`
}
