// Package identity holds the node's own key.
//
// The key is an nkey of the user kind (Ed25519, base32 with a checksum; see
// github.com/nats-io/nkeys) in one file of mode 0600 in a directory of mode 0700.
// Its public half is what Git lists as the node's identity; the private half never
// leaves the file and this process. A key is made once: a file that exists is never
// overwritten, for whoever replaces it makes another node. Never touches the network.
package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nkeys"

	"selvedge/internal/atomicfile"
)

// maxFile bounds what is read: a seed is 58 bytes.
const maxFile = 1 << 10

// Key is the node's key pair. It is safe for concurrent use.
type Key struct {
	pair   nkeys.KeyPair
	public string
}

// Create makes a key in a new file, and the file's directory if it is missing. The
// error wraps fs.ErrExist if the file exists, whatever is in it.
func Create(file string) (*Key, error) {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	if err := private(dir, true); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(file); err == nil {
		return nil, exists(file)
	}
	pair, err := nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("make node key: %w", err)
	}
	seed, err := pair.Seed()
	if err != nil {
		return nil, fmt.Errorf("make node key: %w", err)
	}
	// A link fails if the name exists, which a rename would replace: of two that
	// create at once, one wins and the other reads an error.
	fresh, err := os.MkdirTemp(dir, ".new-key-")
	if err != nil {
		return nil, fmt.Errorf("make node key: %w", err)
	}
	defer os.RemoveAll(fresh)
	name := filepath.Join(fresh, "key")
	if err := atomicfile.Write(name, append(seed, '\n'), 0o600); err != nil {
		return nil, fmt.Errorf("write node key %s: %w", file, err)
	}
	if err := os.Link(name, file); errors.Is(err, fs.ErrExist) {
		return nil, exists(file)
	} else if err != nil {
		return nil, fmt.Errorf("write node key %s: %w", file, err)
	}
	if err := atomicfile.SyncDir(dir); err != nil {
		return nil, fmt.Errorf("write node key %s: %w", file, err)
	}
	return parse(file, seed)
}

func exists(file string) error {
	return fmt.Errorf("node key %s is there already and is never overwritten; to make this machine another node, move it away first: %w", file, fs.ErrExist)
}

// Load reads the key. The error wraps fs.ErrNotExist if there is none.
func Load(file string) (*Key, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no node key in %s; make one with selvedge-edge init: %w", file, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read node key: %w", err)
	}
	defer f.Close()
	if err := private(filepath.Dir(file), true); err != nil {
		return nil, err
	}
	if err := private(file, false); err != nil {
		return nil, err
	}
	seed, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("read node key %s: %w", file, err)
	}
	return parse(file, bytes.TrimSpace(seed))
}

// LoadOrCreate loads the key, or makes it if the file does not exist.
func LoadOrCreate(file string) (*Key, error) {
	key, err := Load(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key, err = Create(file)
	if errors.Is(err, fs.ErrExist) { // made by another process just now
		return Load(file)
	}
	return key, err
}

func parse(file string, seed []byte) (*Key, error) {
	bad := func(why string) error {
		return fmt.Errorf("node key %s: %s; restore it from a backup, or move it away and enrol the node anew", file, why)
	}
	if len(seed) == 0 {
		return nil, bad("the file is empty")
	}
	pair, err := nkeys.FromSeed(seed)
	if err != nil {
		return nil, bad("not an nkey seed (" + err.Error() + ")")
	}
	public, err := pair.PublicKey()
	if err != nil {
		return nil, bad(err.Error())
	}
	if !nkeys.IsValidPublicUserKey(public) {
		return nil, bad("an nkey of another kind, not of a user")
	}
	return &Key{pair, public}, nil
}

// private refuses what others could read: a key that leaked is no identity.
func private(name string, dir bool) error {
	fi, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("node key: %w", err)
	}
	switch {
	case dir && !fi.IsDir():
		return fmt.Errorf("node key: %s is not a directory", name)
	case dir && fi.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("node key: others may enter %s (mode %04o); chmod 700 %s", name, fi.Mode().Perm(), name)
	case !dir && !fi.Mode().IsRegular():
		return fmt.Errorf("node key: %s is not a regular file", name)
	case !dir && fi.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("node key: others may read %s (mode %04o); chmod 600 %s, and enrol the node anew if someone may have read it", name, fi.Mode().Perm(), name)
	}
	return nil
}

// Public returns the public half: U and 55 more characters.
func (k *Key) Public() string { return k.public }

// Sign returns the Ed25519 signature of a message. Whoever calls it keeps messages
// of different purposes apart, as internal/sealed does.
func (k *Key) Sign(message []byte) ([]byte, error) {
	sig, err := k.pair.Sign(message)
	if err != nil {
		return nil, fmt.Errorf("sign with node key: %w", err)
	}
	return sig, nil
}

// String names the key by its public half, so that a log never shows the other.
func (k *Key) String() string { return k.public }
