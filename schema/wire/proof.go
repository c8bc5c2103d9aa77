package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/nats-io/nkeys"
)

// JoinProof is what a node signed when it asked to join, so that who approves it need not believe
// the hub: the keys belong together. Whose keys they are it cannot say.
type JoinProof struct {
	Hub       string `json:"hub"`       // as the node dialed it
	TokenHash string `json:"tokenHash"` // hex of the SHA-256 of the join token
	// Signature is base64 of the nkey's signature over five lines: selvedge-join-v1, hub,
	// tokenHash, the public key and the recipient.
	Signature string `json:"signature"`
}

// ErrProof marks keys that their node did not sign.
var ErrProof = errors.New("the node did not sign its keys")

// ProofOf is the proof in a request that a hub heard under an address.
func ProofOf(hub string, r JoinRequest) JoinProof {
	sum := sha256.Sum256([]byte(r.Token))
	return JoinProof{Hub: hub, TokenHash: hex.EncodeToString(sum[:]), Signature: r.Signature}
}

func (p JoinProof) message(publicKey, recipient string) []byte {
	return []byte("selvedge-join-v1\n" + p.Hub + "\n" + p.TokenHash + "\n" + publicKey + "\n" + recipient)
}

var hexRE = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Check refuses keys other than those that were signed. The error is ErrProof.
func (p JoinProof) Check(publicKey, recipient string) error {
	key, err := nkeys.FromPublicKey(publicKey)
	if err != nil || !nkeys.IsValidPublicUserKey(publicKey) {
		return fmt.Errorf("%w: %.80q is no node's public key", ErrProof, publicKey)
	}
	signature, err := base64.StdEncoding.DecodeString(p.Signature)
	if err != nil {
		return fmt.Errorf("%w: its signature is none", ErrProof)
	}
	// a line break would move what was signed from one field into another
	if strings.ContainsAny(p.Hub+recipient, "\r\n") || !hexRE.MatchString(p.TokenHash) || key.Verify(p.message(publicKey, recipient), signature) != nil {
		return fmt.Errorf("%w: the signature is not of key %s over recipient %q", ErrProof, publicKey, recipient)
	}
	return nil
}
