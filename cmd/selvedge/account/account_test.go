package account

import (
	"os"
	"path/filepath"
	"testing"
)

// TestPick holds that a token goes to its own hub only.
func TestPick(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	b := &Book{Contexts: map[string]Account{}}
	for _, name := range []string{"a", "b"} {
		if err := b.Put(name, Account{Hub: "https://" + name, Token: "token-" + name, CA: "ca-" + name}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Save(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		hub, token, name string
		want             string // token@hub; empty: an error
	}{
		{"", "", "", "token-b@https://b"},
		{"", "", "a", "token-a@https://a"},
		{"", "", "c", ""},
		{"https://a/", "", "", "token-a@https://a"},
		{"https://other", "", "", ""},
		{"https://other", "t", "", "t@https://other"},
		{"", "t", "", "t@https://b"},
		{"https://other", "t", "a", "token-a@https://a"},
		{"https://a", "t", "a", "t@https://a"},
	} {
		t.Setenv("SELVEDGE_HUB", c.hub)
		t.Setenv("SELVEDGE_TOKEN", c.token)
		t.Setenv("SELVEDGE_CA", "")
		a, err := Pick(c.name)
		got := a.Token + "@" + a.Hub
		if err != nil {
			got = ""
		}
		if got != c.want {
			t.Errorf("%+v: %s, %v", c, got, err)
		}
	}
	name, _ := File()
	if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o600 || filepath.Base(name) != "config.json" {
		t.Error(fi, err)
	}
}

// TestPin holds a hub's root of trust as long as somebody is logged in there.
func TestPin(t *testing.T) {
	b := &Book{Contexts: map[string]Account{"a": {Hub: "https://a"}, "too": {Hub: "https://a"}}}
	if b.Pin("https://b", "sha256:1") || !b.Pin("https://a", "sha256:1") || b.Pin("https://a", "sha256:1") || !b.Pin("https://a", "sha256:2") {
		t.Error(b.Roots)
	}
	b.Remove("a")
	if b.Roots["https://a"] != "sha256:2" {
		t.Error(b.Roots)
	}
	b.Remove("too")
	if len(b.Roots) != 0 {
		t.Error(b.Roots)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"current":"a","contexts":{"a":{"hub":"https://a","token":"t"}}}`))
	f.Add([]byte(`{"contexts":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		b := &Book{}
		if b.decode(text) == nil && b.Contexts == nil {
			t.Error("a book without pages")
		}
	})
}
