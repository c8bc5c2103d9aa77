package sealed_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/nats-io/nkeys"

	"selvedge/internal/sealed"
)

type key struct{ nkeys.KeyPair }

func (k key) Public() string { p, _ := k.PublicKey(); return p }

func newKey(t testing.TB) key {
	t.Helper()
	kp, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	return key{kp}
}

func TestOpenReturnsWhatWasSealed(t *testing.T) {
	k := newKey(t)
	for _, text := range []string{"", "one line", "two\nlines\n"} {
		data, err := sealed.Seal(k, "floor", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		got, err := sealed.Open(k.Public(), "floor", data)
		if err != nil || string(got) != text {
			t.Fatalf("opened %q, %v; want %q", got, err, text)
		}
	}
}

func TestOpenRefusesForgeries(t *testing.T) {
	k, other := newKey(t), newKey(t)
	good, err := sealed.Seal(k, "floor", []byte("generation 7"))
	if err != nil {
		t.Fatal(err)
	}
	foreign, _ := sealed.Seal(other, "floor", []byte("generation 7"))
	kind, _ := sealed.Seal(k, "slots", []byte("generation 7"))
	for name, data := range map[string][]byte{
		"empty": nil, "no line": []byte("abc"), "not base64": []byte("!!\ntext"), "empty seal": []byte("\ntext"),
		"another key": foreign, "another kind": kind,
		"changed text": bytes.Replace(good, []byte("7"), []byte("8"), 1), "truncated": good[:len(good)-1], "longer": append(bytes.Clone(good), 'x'),
	} {
		if text, err := sealed.Open(k.Public(), "floor", data); !errors.Is(err, sealed.ErrForged) {
			t.Errorf("%s: opened %q, %v", name, text, err)
		}
	}
	if _, err := sealed.Open("nonsense", "floor", good); err == nil {
		t.Error("a public key that is none was taken")
	}
}

func FuzzOpen(f *testing.F) {
	k := newKey(f)
	good, _ := sealed.Seal(k, "floor", []byte("text"))
	f.Add(good)
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if text, err := sealed.Open(k.Public(), "floor", data); err == nil && string(text) != "text" {
			t.Fatalf("opened %q", text)
		}
	})
}
