// Package account remembers which hubs a person uses, with which token, and which root of trust
// they named.
//
// It is one file, config.json below the user's configuration directory, that nobody else may
// read. The variables SELVEDGE_HUB, SELVEDGE_TOKEN and SELVEDGE_CA take its place, as in CI.
// A token is only ever given out together with the hub that it was stored for.
package account

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"selvedge/internal/atomicfile"
	"selvedge/internal/exit"
)

// Account is a hub and who one is there.
type Account struct {
	Hub   string `json:"hub"` // https://host[:port]
	Token string `json:"token"`
	CA    string `json:"ca,omitempty"` // sha256:…, or certificates in PEM; empty: those of the system
}

// Book holds accounts by name.
type Book struct {
	Current  string             `json:"current"`
	Contexts map[string]Account `json:"contexts"`
	Roots    map[string]string  `json:"roots,omitempty"` // by hub: sha256:… of the first root document, as it was seen first
}

// maxFile bounds what is read.
const maxFile = 1 << 20

var nameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`)

// File is where the book is kept.
func File() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no place for the login: %w", err)
	}
	return filepath.Join(dir, "selvedge", "config.json"), nil
}

// Load reads the book; without a file it is empty.
func Load() (*Book, error) {
	b := &Book{Contexts: map[string]Account{}}
	name, err := File()
	if err != nil {
		return nil, err
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: others may read it (%v), and it holds tokens: 'chmod 600 %s', and think of new tokens", name, fi.Mode().Perm(), name)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if err := b.decode(text); err != nil {
		return nil, fmt.Errorf("%s: %w; remove it and log in again", name, err)
	}
	return b, nil
}

func (b *Book) decode(text []byte) error {
	if len(text) > maxFile {
		return errors.New("it is too large")
	}
	if err := json.Unmarshal(text, b); err != nil {
		return err
	}
	if b.Contexts == nil {
		b.Contexts = map[string]Account{}
	}
	for name := range b.Contexts {
		if !nameRE.MatchString(name) {
			return fmt.Errorf("context %q has a name that is none", name)
		}
	}
	return nil
}

// Save writes the book.
func (b *Book) Save() error {
	name, err := File()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(name, append(text, '\n'), 0o600)
}

// Put stores an account and makes it the current one.
func (b *Book) Put(name string, a Account) error {
	if !nameRE.MatchString(name) {
		return exit.Usagef("context %q: want letters, digits, and . _ : - within", name)
	}
	b.Contexts[name] = a
	b.Current = name
	return nil
}

// Pin remembers a hub's root of trust, if somebody is logged in there, and reports whether that
// is new.
func (b *Book) Pin(hub, fingerprint string) bool {
	if !b.has(hub) || b.Roots[hub] == fingerprint {
		return false
	}
	if b.Roots == nil {
		b.Roots = map[string]string{}
	}
	b.Roots[hub] = fingerprint
	return true
}

func (b *Book) has(hub string) bool {
	for _, a := range b.Contexts {
		if a.Hub == hub {
			return true
		}
	}
	return false
}

// Remove forgets an account, and with the last one of a hub the hub.
func (b *Book) Remove(name string) bool {
	a, ok := b.Contexts[name]
	delete(b.Contexts, name)
	if !b.has(a.Hub) {
		delete(b.Roots, a.Hub)
	}
	if b.Current == name {
		b.Current = ""
		if len(b.Contexts) == 1 {
			b.Current = b.Names()[0]
		}
	}
	return ok
}

// Names lists the accounts.
func (b *Book) Names() []string { return slices.Sorted(maps.Keys(b.Contexts)) }

// Pick returns the account to use: that of the environment, or the named one, or the current.
func Pick(name string) (Account, error) {
	hub := Hub(os.Getenv("SELVEDGE_HUB"))
	token := strings.TrimSpace(os.Getenv("SELVEDGE_TOKEN"))
	ca, err := CA(os.Getenv("SELVEDGE_CA"))
	if err != nil {
		return Account{}, err
	}
	if hub != "" && token != "" && name == "" { // the file may be absent, or another's
		return Account{Hub: hub, Token: token, CA: ca}, nil
	}
	b, err := Load()
	if err != nil {
		return Account{}, err
	}
	if name == "" && hub != "" {
		for _, n := range b.Names() {
			if a := b.Contexts[n]; a.Hub == hub {
				a.CA = cmp.Or(ca, a.CA)
				return a, nil
			}
		}
		return Account{}, fmt.Errorf("SELVEDGE_HUB is %s, and there is no token for it; set SELVEDGE_TOKEN, or 'selvedge login %s'", hub, hub)
	}
	name = cmp.Or(name, b.Current)
	a, ok := b.Contexts[name]
	if !ok {
		if name != "" {
			return Account{}, exit.Usagef("there is no context %q; there are: %s", name, cmp.Or(strings.Join(b.Names(), ", "), "none"))
		}
		return Account{}, errors.New("not logged in; 'selvedge login https://HUB:8443', or set SELVEDGE_HUB and SELVEDGE_TOKEN")
	}
	if hub != "" && hub != a.Hub { // the variables are of that other one
		return a, nil
	}
	a.Token = cmp.Or(token, a.Token)
	a.CA = cmp.Or(ca, a.CA)
	return a, nil
}

// Hub makes the form in which hubs are compared.
func Hub(s string) string { return strings.TrimRight(strings.TrimSpace(s), "/") }

// CA reads what the hub's certificate must be of: sha256:…, or a file, whose text it returns.
func CA(s string) (string, error) {
	if s == "" || strings.HasPrefix(s, "sha256:") {
		return s, nil
	}
	f, err := os.Open(s)
	if err != nil {
		return "", fmt.Errorf("CA: %w; give sha256:… or a file in PEM", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile/4+1))
	if err != nil {
		return "", fmt.Errorf("CA %s: %w", s, err)
	}
	if len(text) > maxFile/4 {
		return "", fmt.Errorf("CA %s: larger than %d KiB", s, maxFile/4>>10)
	}
	return string(text), nil
}
