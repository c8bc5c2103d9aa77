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
// bearer as the password, as clients of registries send it.
func (e *Enrol) Bearer(r *http.Request) (node, publicKey string, err error) {
	text, ok := bearerOf(r)
	if !ok {
		return "", "", ErrNoBearer
	}
	if !isBearer(text) {
		return "", "", ErrBearer
	}
	c, err := jwt.DecodeGeneric(text) // checks the signature, by the issuer that it names
	if err != nil {
		return "", "", ErrBearer
	}
	issuer, err := e.c.Signer().PublicKey()
	if err != nil {
		return "", "", err
	}
	if kind, _ := c.Data["type"].(string); c.Issuer != issuer || kind != bearerType || c.Audience != bearerAudience {
		return "", "", ErrBearer
	}
	if c.Expires == 0 || e.c.Now().After(time.Unix(c.Expires, 0).Add(clocksOfHubs)) {
		return "", "", ErrBearer
	}
	if now, ok := e.known(c.Subject); !ok || now != c.Name {
		return "", "", ErrRemoved
	}
	return c.Name, c.Subject, nil
}

// isBearer looks at the header before anything else does: the library writes into a nil map
// for headers of its older form.
func isBearer(text string) bool {
	head, _, ok := strings.Cut(text, ".")
	if !ok || len(text) > maxBearer {
		return false
	}
	b, err := base64.RawURLEncoding.DecodeString(head)
	var h struct {
		Type      string `json:"typ"`
		Algorithm string `json:"alg"`
	}
	return err == nil && json.Unmarshal(b, &h) == nil && h.Type == "JWT" && h.Algorithm == bearerAlg
}

func bearerOf(r *http.Request) (string, bool) {
	if _, password, ok := r.BasicAuth(); ok {
		return password, password != ""
	}
	scheme, text, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	text = strings.TrimSpace(text)
	return text, ok && strings.EqualFold(scheme, "Bearer") && text != ""
}
