package sign

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/klauspost/compress/zstd"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// What can be wrong with a key.
var (
	ErrPassword = errors.New("wrong password; set COSIGN_PASSWORD to the one that the key was made with")
	ErrKey      = errors.New("not a cosign private key; make one with `selvedge keys` or `cosign generate-key-pair`")
)

// maxKey bounds a key file: a real one has less than 1 KB.
const maxKey = 64 << 10

// Signer signs states with one key. It is safe for concurrent use.
type Signer struct {
	key     signature.SignerVerifier
	public  *ecdsa.PublicKey
	hint    string
	encoder *zstd.Encoder
}

// LoadFile loads the key in a file.
func LoadFile(path string, password []byte) (*Signer, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	s, err := Load(b, password)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// Load decrypts a cosign private key on curve P-256. Its errors are ErrPassword and
// ErrKey, with more about it.
func Load(keyPEM, password []byte) (*Signer, error) {
	if len(keyPEM) > maxKey {
		return nil, fmt.Errorf("load signing key: %w: %d bytes", ErrKey, len(keyPEM))
	}
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, fmt.Errorf("load signing key: %w: no PEM block in it", ErrKey)
	}
	switch block.Type {
	case cosign.SigstorePrivateKeyPemType, cosign.CosignPrivateKeyPemType:
	case "PUBLIC KEY":
		return nil, fmt.Errorf("load signing key: %w: it is a public key; the private half is usually in cosign.key", ErrKey)
	default:
		return nil, fmt.Errorf("load signing key: %w: it is a %.40q; import it with `cosign import-key-pair`", ErrKey, block.Type)
	}
	key, err := cosign.LoadPrivateKey(keyPEM, password, nil)
	if err != nil {
		// the library has no sentinel for a wrong password, only this text
		if errors.Unwrap(err) != nil && errors.Unwrap(err).Error() == "encrypted: decryption failed" {
			return nil, fmt.Errorf("load signing key: %w", ErrPassword)
		}
		return nil, fmt.Errorf("load signing key: %w: %w", ErrKey, err)
	}
	debug.FreeOSMemory() // scrypt took 64 MiB; the collector would keep twice that
	s, err := New(key)
	if err != nil {
		return nil, fmt.Errorf("load signing key: %w", err)
	}
	return s, nil
}

// New returns a Signer with a key that is loaded already. It must be ECDSA on P-256.
func New(key signature.SignerVerifier) (*Signer, error) {
	pub, err := key.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	public, ok := pub.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: nodes verify ECDSA P-256 only", ErrKey)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	// no checksum: the digest in the manifest is one
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(false), zstd.WithWindowSize(256<<10))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return &Signer{key: key, public: public, hint: base64.StdEncoding.EncodeToString(sum[:]), encoder: encoder}, nil
}

// GenerateKeyPair makes a key pair that cosign reads, the private half encrypted with
// the password, both as PEM.
func GenerateKeyPair(password []byte) (private, public []byte, err error) {
	k, err := cosign.GenerateKeyPair(func(bool) ([]byte, error) { return password, nil })
	if err != nil {
		return nil, nil, fmt.Errorf("generate key pair: %w", err)
	}
	return k.PrivateBytes, k.PublicBytes, nil
}

// Public returns the public key, as trust documents list it.
func (s *Signer) Public() *ecdsa.PublicKey { return s.public }

// PublicPEM returns the public key as PEM, as `cosign verify --key` reads it.
func (s *Signer) PublicPEM() ([]byte, error) { return cryptoutils.MarshalPublicKeyToPEM(s.public) }

// Hint returns base64 of the SHA-256 of the public key's SPKI DER: what bundles name the key by.
func (s *Signer) Hint() string { return s.hint }

// Key returns the key itself, to sign other things with: root documents.
func (s *Signer) Key() signature.SignerVerifier { return s.key }
