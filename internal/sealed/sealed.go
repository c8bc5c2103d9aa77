// Package sealed makes texts that only the holder of a node's key could have written.
//
// A sealed text is one line of base64, an nkey signature (Ed25519) over the text's
// kind, a newline and the text, followed by the text itself. The kind keeps a text
// of one purpose from passing for another. Sealing keeps nothing secret, and cannot
// tell an old text from a new one: its owner compares generations or sequences.
package sealed

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"

	"github.com/nats-io/nkeys"
)

// ErrForged is wrapped by the errors of Open that a text earns which the key did not seal.
var ErrForged = errors.New("not sealed by this node's key")

// Signer holds the private half of a node's key.
type Signer interface {
	Public() string // nkey, U…
	Sign(message []byte) ([]byte, error)
}

// Seal returns the sealed text.
func Seal(key Signer, kind string, text []byte) ([]byte, error) {
	sig, err := key.Sign(message(kind, text))
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", kind, err)
	}
	out := make([]byte, 0, base64.StdEncoding.EncodedLen(len(sig))+1+len(text))
	out = base64.StdEncoding.AppendEncode(out, sig)
	out = append(out, '\n')
	return append(out, text...), nil
}

// Open returns the text of a sealed text, a slice of it, if the key of that public
// half sealed it as that kind.
func Open(publicKey, kind string, data []byte) ([]byte, error) {
	line, text, ok := bytes.Cut(data, []byte{'\n'})
	if !ok || len(line) > 128 {
		return nil, fmt.Errorf("open %s: no seal: %w", kind, ErrForged)
	}
	sig := make([]byte, base64.StdEncoding.DecodedLen(len(line)))
	n, err := base64.StdEncoding.Strict().Decode(sig, line)
	if err != nil {
		return nil, fmt.Errorf("open %s: seal is not base64: %w", kind, ErrForged)
	}
	key, err := nkeys.FromPublicKey(publicKey)
	if err != nil {
		return nil, fmt.Errorf("open %s: public key %q: %w", kind, publicKey, err)
	}
	if err := key.Verify(message(kind, text), sig[:n]); err != nil {
		return nil, fmt.Errorf("open %s: %w", kind, ErrForged)
	}
	return text, nil
}

func message(kind string, text []byte) []byte {
	m := make([]byte, 0, len(kind)+1+len(text))
	m = append(m, kind...)
	m = append(m, '\n')
	return append(m, text...)
}
