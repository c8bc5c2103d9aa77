package git

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
)

// FuzzDirectory decodes tree objects that no git would write.
func FuzzDirectory(f *testing.F) {
	hash := strings.Repeat("h", 20)
	for _, raw := range []string{"", "100644 a\x00" + hash, "40000 a\x00" + hash + "100644 a.b\x00" + hash, "120000 l\x00" + hash + "160000 m\x00" + hash, "100644 ..\x00" + hash, "1 \x00", "100644 a\xff\x00" + hash} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := decodeDirectory(plumbing.ZeroHash, raw, 100)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrTooLarge) {
				t.Fatal(err)
			}
			return
		}
		if !slices.IsSortedFunc(d.entries, func(a, b entry) int { return strings.Compare(a.name, b.name) }) {
			t.Error("not sorted")
		}
		for _, e := range d.entries {
			if !fs.ValidPath(e.name) || strings.Contains(e.name, "/") {
				t.Errorf("entry %q cannot be named", e.name)
			}
		}
		d.id()
	})
}

// FuzzResolve asks a small repository for anything.
func FuzzResolve(f *testing.F) {
	r := initRepo(f, f.TempDir())
	r.commit("one", "f", "1")
	r.commit("two", "f", "2")
	r.git("tag", "-a", "-m", "x", "v1")
	repo, err := Open(r.dir)
	if err != nil {
		f.Fatal(err)
	}
	for _, rev := range []string{"HEAD", "@~1", "v1^{}", "main^0~1", "v1^{commit}^", "abcdef", "refs/heads/main", "HEAD~99", "^", "~", "", "a/../b", "HEAD^{"} {
		f.Add(rev)
	}
	f.Fuzz(func(t *testing.T, rev string) {
		c, err := repo.Resolve(context.Background(), rev)
		if err == nil && c.Subject() != "one" && c.Subject() != "two" {
			t.Errorf("%q is %+v", rev, c)
		}
		if err != nil && !errors.Is(err, ErrNoRevision) {
			t.Errorf("%q: %v", rev, err)
		}
	})
}
