package enrol

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
)

// A bearer is a JWT as NATS writes them, of a type of its own: no NATS server takes it for a
// user's, and what is a user's has another type.
const (
	bearerType     = "selvedge-bearer"
	bearerAudience = "selvedge-hub/v2"
	bearerAlg      = "ed25519-nkey"
	maxBearer      = 2048
	clocksOfHubs   = time.Minute // that may take each other's bearers
)

// Reasons why a bearer does not count.
var (
	ErrNoBearer = errors.New("no bearer: ask for one at /auth/token")
	ErrBearer   = errors.New("the bearer is not valid or has expired: ask for another at /auth/token")
	ErrRemoved  = errors.New("this key is not in Git for this node any more")
)

func (e *Enrol) makeBearer(node, publicKey string, expires time.Time) (string, error) {
	c := jwt.NewGenericClaims(publicKey)
	c.Name, c.Audience, c.Expires = node, bearerAudience, expires.Unix()
	c.Data["type"] = bearerType
	return c.Encode(e.c.Signer())
}

// Bearer tells which node a request is of: by "Authorization: Bearer", or by Basic with the
// bearer as the password, as clients of registries send it. What is shown and does not count is
// noted, unless it has merely expired, or the hub cannot be sure that the key has left Git.
func (e *Enrol) Bearer(r *http.Request) (node, publicKey string, err error) {
	text, ok := bearerOf(r)
	if !ok {
		return "", "", ErrNoBearer
	}
	issuer, err := e.c.Signer().PublicKey()
	if err != nil {
		return "", "", err
	}
	c := bearerBy(issuer, text)
	if c == nil {
		e.rejects.add(r, true, eventPull, "reason", "no bearer of this hub")
		return "", "", ErrBearer
	}
	if e.c.Now().After(time.Unix(c.Expires, 0).Add(clocksOfHubs)) {
		return "", "", ErrBearer
	}
	if now, ok := e.known(c.Subject); !ok || now != c.Name {
		if e.sure() {
			e.rejects.add(r, true, eventPull, "reason", "key is not in Git", "node", c.Name, "key", c.Subject)
		}
		return "", "", ErrRemoved
	}
	return c.Name, c.Subject, nil
}

// bearerBy reads a bearer that the issuer signed; nil: it is none. Header and issuer are looked at
// before anything else: the library writes into a nil map for headers of its older form, and
// checks signatures by whatever issuer is named.
func bearerBy(issuer, text string) *jwt.GenericClaims {
	parts := strings.Split(text, ".")
	if len(text) > maxBearer || len(parts) != 3 {
		return nil
	}
	var h struct {
		Type      string `json:"typ"`
		Algorithm string `json:"alg"`
	}
	var p struct {
		Issuer string `json:"iss"`
	}
	for i, into := range []any{&h, &p} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || json.Unmarshal(b, into) != nil {
			return nil
		}
	}
	if h.Type != "JWT" || h.Algorithm != bearerAlg || p.Issuer != issuer {
		return nil
	}
	c, err := jwt.DecodeGeneric(text)
	if err != nil || c.Issuer != issuer || c.Audience != bearerAudience || c.Expires == 0 {
		return nil
	}
	if kind, _ := c.Data["type"].(string); kind != bearerType {
		return nil
	}
	return c
}

func bearerOf(r *http.Request) (string, bool) {
	if _, password, ok := r.BasicAuth(); ok {
		return password, password != ""
	}
	scheme, text, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	text = strings.TrimSpace(text)
	return text, ok && strings.EqualFold(scheme, "Bearer") && text != ""
}
