package wire

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"
)

func introduction(t testing.TB, change func(*Introduction)) []byte {
	t.Helper()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	i := Introduction{Format: IntroductionFormat, Machine: Machine{Hostname: "gw"}}
	if i.PublicKey, err = key.PublicKey(); err != nil {
		t.Fatal(err)
	}
	if i.Signature, err = key.Sign(i.Message()); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&i)
	}
	b, err := json.Marshal(i)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestIntroduction(t *testing.T) {
	if i, err := ParseIntroduction(introduction(t, nil)); err != nil || i.Machine.Hostname != "gw" {
		t.Fatal(i, err)
	}
	other := introduction(t, nil)
	for name, b := range map[string][]byte{
		"empty":            {},
		"no JSON":          []byte("a\nb"),
		"another format":   introduction(t, func(i *Introduction) { i.Format = "x" }),
		"another key":      introduction(t, func(i *Introduction) { p, _ := ParseIntroduction(other); i.PublicKey = p.PublicKey }),
		"another age key":  introduction(t, func(i *Introduction) { i.Recipient = "age1thief" }),
		"no key":           introduction(t, func(i *Introduction) { i.PublicKey = "UAAA" }),
		"an account's key": introduction(t, func(i *Introduction) { i.PublicKey = "A" + i.PublicKey[1:] }),
		"no signature":     introduction(t, func(i *Introduction) { i.Signature = nil }),
		"unknown field":    []byte(strings.Replace(string(other), `"format"`, `"x":1,"format"`, 1)),
		"large":            append(introduction(t, nil), make([]byte, MaxIntroduction)...),
	} {
		if _, err := ParseIntroduction(b); !errors.Is(err, ErrIntroduction) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseIntroduction(f *testing.F) {
	f.Add(introduction(f, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if i, err := ParseIntroduction(b); err == nil && !nkeys.IsValidPublicUserKey(i.PublicKey) {
			t.Errorf("%+v", i)
		}
	})
}
