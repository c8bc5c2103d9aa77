package enrol

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/nats-io/nkeys"

	"selvedge/schema/wire"
)

// A nonce is base64url of: 8 bytes of time (Unix milliseconds, big endian), 16 random bytes,
// and the HMAC-SHA256 of both with a key that all hubs of a cluster can derive. So it costs
// no memory until it is used well.
const nonceBytes = 8 + 16

var (
	errNonce = errors.New("the nonce is not of this hub, older than a minute, or used")
	nonce64  = base64.RawURLEncoding.Strict()
)

// maxNonces bounds the used ones of two minutes; holders of keys only can fill it.
const maxNonces = 200000

// nonces remembers those that were used.
type nonces struct {
	mu       sync.Mutex
	key      []byte
	now, old map[string]bool // of these two minutes, of the two before
	turned   time.Time       // with a monotonic reading
}

func (n *nonces) hmac(signer nkeys.KeyPair, data []byte) ([]byte, error) {
	n.mu.Lock()
	key := n.key
	n.mu.Unlock()
	if key == nil {
		seed, err := signer.Seed()
		if err != nil {
			return nil, err
		}
		if key, err = hkdf.Key(sha256.New, seed, nil, "selvedge-nonce-v1", sha256.Size); err != nil {
			return nil, err
		}
		n.mu.Lock()
		n.key = key
		n.mu.Unlock()
	}
	h := hmac.New(sha256.New, key)
	h.Write(data)
	return h.Sum(nil), nil
}

func (n *nonces) make(signer nkeys.KeyPair, now time.Time) (string, error) {
	b := binary.BigEndian.AppendUint64(nil, uint64(now.UnixMilli()))
	b = append(b, make([]byte, nonceBytes-8)...)
	rand.Read(b[8:])
	sum, err := n.hmac(signer, b)
	if err != nil {
		return "", err
	}
	return nonce64.EncodeToString(append(b, sum...)), nil
}

// check tells whether a nonce was given within the last minute, by a hub of the cluster.
func (n *nonces) check(signer nkeys.KeyPair, text string, now time.Time) error {
	if len(text) > nonce64.EncodedLen(nonceBytes+sha256.Size) {
		return errNonce
	}
	b, err := nonce64.DecodeString(text)
	if err != nil || len(b) != nonceBytes+sha256.Size {
		return errNonce
	}
	sum, err := n.hmac(signer, b[:nonceBytes])
	if err != nil {
		return err
	}
	age := now.Sub(time.UnixMilli(int64(binary.BigEndian.Uint64(b))))
	if !hmac.Equal(sum, b[nonceBytes:]) || age > nonceLife || age < -nonceLife {
		return errNonce
	}
	return nil
}

// use takes a nonce that was checked; false if somebody did before.
func (n *nonces) use(text string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	// a nonce may come from a clock a minute ahead, and then lives for two; a clock that is set
	// forth and back makes none forgotten
	if n.now == nil || time.Since(n.turned) > 2*nonceLife {
		n.old, n.now, n.turned = n.now, map[string]bool{}, time.Now()
	}
	if n.now[text] || n.old[text] || len(n.now) >= maxNonces {
		return false
	}
	n.now[text] = true
	return true
}

func (e *Enrol) serveNonce(w http.ResponseWriter, _ *http.Request) {
	n, err := e.nonces.make(e.c.Signer(), e.c.Now())
	if err != nil {
		e.log.Error("make a nonce", "error", err)
		unavailable(w, "the hub has no keys yet")
		return
	}
	answer(w, wire.Nonce{Nonce: n})
}
