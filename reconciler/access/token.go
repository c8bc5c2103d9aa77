package access

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"selvedge/schema/roster"
)

// TokenPrefix begins every API token, so that people and scanners know one when they see it.
const TokenPrefix = "selvedge_"

const tokenRandom = 43 // base64url characters after the prefix: 256 bits

// Why a token opens nothing.
var (
	ErrToken   = errors.New("this is no token that Git knows: it was never there, was removed, or is mistyped")
	ErrExpired = errors.New("the token has expired")
)

// Hash returns what Git holds of a token.
func Hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ValidToken reports whether a text has the form of a token.
func ValidToken(token string) bool {
	random, ok := strings.CutPrefix(token, TokenPrefix)
	if !ok || len(random) != tokenRandom {
		return false
	}
	for _, c := range []byte(random) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// Authenticate returns whose token it is. The error wraps ErrToken or ErrExpired. Who asks
// often makes Tokens once.
func Authenticate(f *roster.Fleet, token string, now time.Time) (s Subject, name string, expires time.Time, err error) {
	h, err := NewTokens(f).Authenticate(token, now)
	return h.Subject, h.Token, h.Expires, err
}

// Holder is whose a token is.
type Holder struct {
	Subject
	Token   string // its name
	Expires time.Time
}

// Tokens finds a token's holder by its hash.
//
// The look-up is not in constant time and need not be: what is compared is the SHA-256 of
// what the caller sent. To learn something from the time it takes, one would have to steer
// the bits of that hash, and what could be learned is a hash that readers of Git see anyway;
// a token cannot be computed from it.
type Tokens struct {
	byHash map[string]Holder
	twice  map[string]bool // in Git more than once: nobody's
}

// NewTokens indexes the tokens of a fleet.
func NewTokens(f *roster.Fleet) *Tokens {
	t := &Tokens{byHash: map[string]Holder{}, twice: map[string]bool{}}
	if f == nil {
		return t
	}
	for name, id := range f.Identities {
		for tokenName, tok := range id.Tokens {
			if _, ok := t.byHash[tok.Hash]; ok {
				t.twice[tok.Hash] = true
			}
			t.byHash[tok.Hash] = Holder{
				Subject: Subject{Kind: id.Kind, Name: name, Groups: id.Groups, Role: tok.Role, Scope: tok.Scope},
				Token:   tokenName,
				Expires: tok.Expires,
			}
		}
	}
	return t
}

// Authenticate returns whose token it is. The error wraps ErrToken or ErrExpired.
func (t *Tokens) Authenticate(token string, now time.Time) (Holder, error) {
	if !ValidToken(token) {
		return Holder{}, ErrToken
	}
	return t.ByHash(Hash(token), now)
}

// ByHash is Authenticate for who has shown the token before and kept its Hash.
func (t *Tokens) ByHash(hash string, now time.Time) (Holder, error) {
	h, ok := t.byHash[hash]
	switch {
	case !ok:
		return Holder{}, ErrToken
	case t.twice[hash]:
		return Holder{}, fmt.Errorf("%w; its hash is in Git more than once, so it is nobody's: make a new token for each", ErrToken)
	case !now.Before(h.Expires):
		return Holder{}, fmt.Errorf("%w (token %s of %s, %s); make a new one with selvedge token create", ErrExpired, h.Token, h.Subject, h.Expires.UTC().Format(time.RFC3339))
	}
	return h, nil
}
