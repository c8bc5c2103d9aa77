package access

import (
	"errors"
	"strings"
	"testing"
	"time"

	"selvedge/schema/roster"
)

func tokenText(seed string) string {
	return TokenPrefix + (seed + strings.Repeat("x", tokenRandom))[:tokenRandom]
}

func TestAuthenticate(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	f := &roster.Fleet{Identities: map[string]roster.Identity{
		"ana": {Kind: "user", Groups: []string{"line-1"}, Tokens: map[string]roster.Token{
			"laptop": {Hash: Hash(tokenText("laptop")), Expires: now.Add(time.Hour), Role: Viewer, Scope: "folders/munich"},
			"old":    {Hash: Hash(tokenText("old")), Expires: now},
			"shared": {Hash: Hash(tokenText("shared")), Expires: now.Add(time.Hour)},
			"never":  {Hash: Hash(tokenText("never"))},
		}},
		"ci": {Kind: "service", Tokens: map[string]roster.Token{
			"shared": {Hash: Hash(tokenText("shared")), Expires: now.Add(time.Hour)},
			"raw":    {Hash: tokenText("raw"), Expires: now.Add(time.Hour)},
		}},
	}}
	s, name, expires, err := Authenticate(f, tokenText("laptop"), now)
	if err != nil || s.String() != "user:ana" || len(s.Groups) != 1 || s.Role != Viewer || s.Scope != "folders/munich" || name != "laptop" || !expires.Equal(now.Add(time.Hour)) {
		t.Fatalf("%+v %q %v %v", s, name, expires, err)
	}
	if _, _, _, err := Authenticate(f, tokenText("laptop"), now.Add(time.Hour-1)); err != nil {
		t.Error("a moment before its end:", err)
	}
	for what, c := range map[string]struct {
		token string
		want  error
	}{
		"expired now":       {tokenText("old"), ErrExpired},
		"without an expiry": {tokenText("never"), ErrExpired},
		"in Git twice":      {tokenText("shared"), ErrToken},
		"unknown":           {tokenText("laptoq"), ErrToken},
		"empty":             {"", ErrToken},
		"the hash itself":   {Hash(tokenText("laptop")), ErrToken},
		"a text for a hash": {tokenText("raw"), ErrToken},
		"a space behind":    {tokenText("laptop") + " ", ErrToken},
		"no prefix":         {strings.TrimPrefix(tokenText("laptop"), TokenPrefix), ErrToken},
		"too long":          {TokenPrefix + strings.Repeat("a", 1<<20), ErrToken},
	} {
		s, _, _, err := Authenticate(f, c.token, now)
		if !errors.Is(err, c.want) || s.Name != "" {
			t.Errorf("%s: %+v, %v", what, s, err)
		}
		if err != nil && c.token != "" && strings.Contains(err.Error(), c.token) {
			t.Errorf("%s: the error tells the token", what)
		}
	}
	if _, _, _, err := Authenticate(nil, tokenText("laptop"), now); !errors.Is(err, ErrToken) {
		t.Error("no fleet:", err)
	}
}

func FuzzAuthenticate(f *testing.F) {
	now := time.Unix(1e9, 0)
	good := tokenText("good")
	fleet := &roster.Fleet{Identities: map[string]roster.Identity{"a": {Kind: "user", Tokens: map[string]roster.Token{"t": {Hash: Hash(good), Expires: now.Add(1)}}}}}
	f.Add(good)
	f.Add("selvedge_")
	f.Fuzz(func(t *testing.T, token string) {
		if _, _, _, err := Authenticate(fleet, token, now); (err == nil) != (token == good) {
			t.Fatalf("%q: %v", token, err)
		}
	})
}
