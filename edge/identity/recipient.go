package identity

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"

	"selvedge/internal/atomicfile"
)

// Recipient loads the node's age key, or makes it if the file does not exist, and returns its
// public half: age1… What people encrypt for the node is for this key.
func Recipient(file string) (string, error) {
	key, err := recipient(file)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = createRecipient(file)
		if errors.Is(err, fs.ErrExist) { // made by another process just now
			key, err = recipient(file)
		}
	}
	if err != nil {
		return "", fmt.Errorf("age key %s: %w", file, err)
	}
	return key.Recipient().String(), nil
}

func recipient(file string) (*age.X25519Identity, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := errors.Join(private(filepath.Dir(file), true), private(file, false)); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, err
	}
	key, err := age.ParseX25519Identity(strings.TrimSpace(string(b)))
	if err != nil { // it may quote what it read
		return nil, errors.New("not an age key; restore it from a backup, or move it away and enrol the node anew")
	}
	return key, nil
}

func createRecipient(file string) (*age.X25519Identity, error) {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := private(dir, true); err != nil {
		return nil, err
	}
	key, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	fresh, err := os.MkdirTemp(dir, ".new-key-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(fresh)
	name := filepath.Join(fresh, "key")
	if err := atomicfile.Write(name, []byte(key.String()+"\n"), 0o600); err != nil {
		return nil, err
	}
	if err := os.Link(name, file); err != nil { // never replaces one that is there
		return nil, err
	}
	return key, atomicfile.SyncDir(dir)
}
