package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nkeys"
)

// Introduction is what a node without a link says of itself, in a file that a person carries to
// where it can be approved.
type Introduction struct {
	Format    string  `json:"format"` // IntroductionFormat
	PublicKey string  `json:"publicKey"`
	Recipient string  `json:"recipient,omitempty"` // age1…
	Machine   Machine `json:"machine"`
	Signature []byte  `json:"signature"` // of the message, by the node's key: whoever wrote the file has it
}

// IntroductionFormat names the shape of an Introduction.
const IntroductionFormat = "selvedge.dev/introduction/v1"

// MaxIntroduction is the most bytes of an introduction's file.
const MaxIntroduction = 16 << 10

// ErrIntroduction marks a file that is no introduction.
var ErrIntroduction = errors.New("not the introduction of a node")

// Message is what the node signs.
func (i Introduction) Message() []byte {
	return []byte("selvedge-introduction-v1\n" + i.PublicKey + "\n" + i.Recipient)
}

// ParseIntroduction reads a file, and checks that its sender has the key.
func ParseIntroduction(b []byte) (Introduction, error) {
	var i Introduction
	if len(b) > MaxIntroduction {
		return i, fmt.Errorf("%w: more than %d bytes", ErrIntroduction, MaxIntroduction)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&i); err != nil {
		return i, fmt.Errorf("%w: %w", ErrIntroduction, err)
	}
	if i.Format != IntroductionFormat {
		return i, fmt.Errorf("%w: its format is %.40q, not %q", ErrIntroduction, i.Format, IntroductionFormat)
	}
	if !nkeys.IsValidPublicUserKey(i.PublicKey) {
		return i, fmt.Errorf("%w: %.80q is no node's public key", ErrIntroduction, i.PublicKey)
	}
	key, err := nkeys.FromPublicKey(i.PublicKey)
	if err != nil {
		return i, fmt.Errorf("%w: %w", ErrIntroduction, err)
	}
	if err := key.Verify(i.Message(), i.Signature); err != nil {
		return i, fmt.Errorf("%w: the signature is not of its key: the file was changed", ErrIntroduction)
	}
	return i, nil
}
