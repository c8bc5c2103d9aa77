package identity_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nkeys"

	"selvedge/edge/identity"
)

func TestAKeyIsMadeOnceAndLoaded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node", "key")
	made, err := identity.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{file: 0o600, filepath.Dir(file): 0o700} {
		if fi, _ := os.Stat(name); fi.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", name, fi.Mode(), want)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 1 {
		t.Errorf("left over: %v", left)
	}
	loaded, err := identity.LoadOrCreate(file)
	if err != nil || loaded.Public() != made.Public() {
		t.Fatalf("loaded %v, %v; want %v", loaded, err, made)
	}
	sig, err := loaded.Sign([]byte("message"))
	if err != nil {
		t.Fatal(err)
	}
	pub, err := nkeys.FromPublicKey(made.Public())
	if err != nil || pub.Verify([]byte("message"), sig) != nil {
		t.Fatal("the signature does not verify with the public half")
	}
}

func TestAnExistingFileIsNeverOverwritten(t *testing.T) {
	dir := t.TempDir()
	os.Chmod(dir, 0o700)
	file := filepath.Join(dir, "key")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.Create(file); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create: %v", err)
	}
	if _, err := identity.LoadOrCreate(file); err == nil || !strings.Contains(err.Error(), "not an nkey seed") {
		t.Errorf("LoadOrCreate: %v", err)
	}
	if b, _ := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("content is now %q", b)
	}
}

func TestOfManyThatCreateAtOnceOneWins(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node", "key")
	keys := make([]string, 16)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			if k, err := identity.LoadOrCreate(file); err == nil {
				keys[i] = k.Public()
			} else {
				keys[i] = err.Error()
			}
		})
	}
	wg.Wait()
	for _, k := range keys[1:] {
		if k != keys[0] {
			t.Fatalf("two keys: %s and %s", keys[0], k)
		}
	}
}

func TestBadFilesAreRefusedWithTheNextStep(t *testing.T) {
	account, _ := nkeys.CreateAccount()
	seed, _ := account.Seed()
	user, _ := nkeys.CreateUser()
	good, _ := user.Seed()
	for _, c := range []struct {
		name, content, want string
		mode, dir           fs.FileMode
	}{
		{"empty", "", "empty; restore it from a backup", 0o600, 0o700},
		{"cut", string(good[:20]), "not an nkey seed", 0o600, 0o700},
		{"another kind", string(seed), "another kind", 0o600, 0o700},
		{"huge", strings.Repeat("S", 1<<20), "not an nkey seed", 0o600, 0o700},
		{"readable by others", string(good), "chmod 600", 0o644, 0o700},
		{"open directory", string(good), "chmod 700", 0o600, 0o755},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "d")
			os.Mkdir(dir, c.dir)
			file := filepath.Join(dir, "key")
			os.WriteFile(file, []byte(c.content), c.mode)
			_, err := identity.Load(file)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), string(good)) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
		})
	}
	_, err := identity.Load(filepath.Join(t.TempDir(), "none"))
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "selvedge-edge init") {
		t.Errorf("missing: %v", err)
	}
}

func TestThePrivateHalfIsNotPrinted(t *testing.T) {
	k, err := identity.Create(filepath.Join(t.TempDir(), "n", "key"))
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %s", k, k); s != k.Public()+" "+k.Public() {
		t.Errorf("printed %s", s)
	}
}
