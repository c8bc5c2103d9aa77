package identity_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"selvedge/edge/identity"
)

func TestRecipient(t *testing.T) {
	file := filepath.Join(t.TempDir(), "identity", "age.key")
	first, err := identity.Recipient(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := age.ParseX25519Recipient(first); err != nil {
		t.Error(err)
	}
	if again, err := identity.Recipient(file); err != nil || again != first {
		t.Errorf("%s, %v", again, err)
	}
	fi, err := os.Stat(file)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	os.Chmod(file, 0o644)
	if _, err := identity.Recipient(file); err == nil || !strings.Contains(err.Error(), "others may read") {
		t.Error(err)
	}
	os.Chmod(file, 0o600)
	os.WriteFile(file, []byte("AGE-SECRET-KEY-1SECRET"), 0o600)
	if _, err := identity.Recipient(file); err == nil || strings.Contains(err.Error(), "SECRET") {
		t.Error(err)
	}
}
