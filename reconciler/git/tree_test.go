package git

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
)

func headTree(tb testing.TB, dir string, lim Limits) *Tree {
	tb.Helper()
	c, err := New(Config{Remote: dir, Limits: lim, Log: silent}).Head(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	return c.Tree
}

func TestTreeIsAFileSystem(t *testing.T) {
	r := initRepo(t, t.TempDir())
	// "a.cue" and "a" sort differently in Git, where a folder counts as "a/"
	r.commit("x", "a/b/c.txt", "deep", "a.cue", "file", "a-b", "dash", "empty", "", "ünï/ç.yaml", "unicode", "run.sh", "#!/bin/sh")
	r.git("update-index", "--chmod=+x", "run.sh")
	r.git("commit", "-q", "-m", "mode")
	for _, packed := range []bool{false, true} {
		if packed {
			r.git("gc", "-q")
		}
		tree := headTree(t, r.dir, Limits{})
		if err := fstest.TestFS(tree, "a/b/c.txt", "a.cue", "a-b", "empty", "ünï/ç.yaml", "run.sh"); err != nil {
			t.Fatal(err)
		}
		wantFile(t, tree, "a/b/c.txt", "deep")
		below, err := tree.Subtree("a/b")
		if err != nil {
			t.Fatal(err)
		}
		wantFile(t, below, "c.txt", "deep")
		if _, err := tree.Subtree("a.cue"); err == nil {
			t.Error("a file was taken for a tree")
		}
		st, err := tree.Stat("run.sh")
		if err != nil || st.Mode() != 0o555 || st.Size() != 9 || st.Name() != "run.sh" {
			t.Errorf("run.sh: %v %v", st, err)
		}
		for _, name := range []string{"none", "a/none", "a.cue/x", "a/b/c.txt/d"} {
			if _, err := tree.Open(name); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, name := range []string{"/a", "../a", "a/", "a//b", "", "./a"} {
			if _, err := tree.Stat(name); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%q: %v", name, err)
			}
		}
		if _, err := tree.ReadFile("a"); err == nil {
			t.Error("a folder was read as a file")
		}
		if _, err := tree.ReadDir("a.cue"); err == nil {
			t.Error("a file was listed as a folder")
		}
	}
}

func TestIDs(t *testing.T) {
	r := initRepo(t, t.TempDir())
	id := func(name string) string {
		t.Helper()
		got, err := headTree(t, r.dir, Limits{}).ID(name)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	r.commit("x", "d/a", "1", "d/sub/b", "2")
	file, dir, root := id("d/a"), id("d"), id(".")
	if want := "blob:" + r.git("rev-parse", "HEAD:d/a"); file != want {
		t.Errorf("id of a file is %s, want %s", file, want)
	}
	r.commit("contents", "d/a", "changed", "d/sub/c", "new")
	if id("d/a") == file {
		t.Error("a changed file keeps its id")
	}
	if id("d") != dir || id(".") != root {
		t.Error("the id of a folder depends on contents")
	}
	r.commit("name", "d/z", "1")
	if id("d") == dir {
		t.Error("a new name does not change its folder's id")
	}
	if id(".") != root {
		t.Error("a new name changes the folder above")
	}
	with := id("d")
	r.git("rm", "-q", "d/z")
	r.commit("kind", "d/z/file", "1")
	if id("d") == with {
		t.Error("a file that became a folder does not change the id")
	}
	h, err := headTree(t, r.dir, Limits{}).Hash("d")
	if want := r.git("rev-parse", "HEAD:d"); err != nil || h != want {
		t.Errorf("hash is %s (%v), want %s", h, err, want)
	}
	if _, err := headTree(t, r.dir, Limits{}).ID("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestLinksAndSubmodules(t *testing.T) {
	r := initRepo(t, t.TempDir())
	first := r.commit("x", "real/file", "text")
	for link, to := range map[string]string{"link": "real/file", "dirlink": "real", "out": "/etc/passwd"} {
		if err := os.Symlink(to, filepath.Join(r.dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	r.git("update-index", "--add", "--cacheinfo", "160000,"+first+",module")
	r.git("add", "link", "dirlink", "out")
	r.git("commit", "-q", "-m", "links")
	tree := headTree(t, r.dir, Limits{})
	for name, mode := range map[string]fs.FileMode{"link": fs.ModeSymlink, "dirlink": fs.ModeSymlink, "out": fs.ModeSymlink, "module": fs.ModeIrregular} {
		st, err := tree.Stat(name)
		if err != nil || st.Mode().Type() != mode {
			t.Errorf("%s: %v %v", name, st, err)
		}
	}
	entries, err := tree.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name()+" "+e.Type().String())
	}
	want := []string{"dirlink L---------", "link L---------", "module ?---------", "out L---------", "real d---------"}
	if !slices.Equal(got, want) {
		t.Errorf("entries are %v, want %v", got, want)
	}
	for _, name := range []string{"link", "out", "dirlink", "dirlink/file"} {
		_, err := tree.ReadFile(name)
		wantErr(t, err, ErrSymlink, strings.TrimSuffix(name, "/file")+": symlink is not followed; commit the file itself")
		_, err = tree.Open(name)
		wantErr(t, err, ErrSymlink)
	}
	_, err = tree.ReadDir("dirlink")
	wantErr(t, err, ErrSymlink)
	_, err = tree.ReadDir("module")
	wantErr(t, err, ErrSubmodule)
	_, err = tree.ReadFile("module/x")
	wantErr(t, err, ErrSubmodule)
	if id, err := tree.ID("link"); err != nil || !strings.HasPrefix(id, "symlink:") {
		t.Error(id, err)
	}
	if id, err := tree.ID("module"); err != nil || id != "submodule:"+first {
		t.Error(id, err)
	}
}

func TestLimits(t *testing.T) {
	r := initRepo(t, t.TempDir())
	var many []string
	for i := range 30 {
		many = append(many, fmt.Sprintf("many/f%d", i), "x")
	}
	noise := make([]byte, 100_000)
	rand.Read(noise)
	r.commit("x", append(many, "zeroes", strings.Repeat("0", 100_000), "noise", string(noise), "small", "ok",
		strings.Repeat("d/", 20)+"deep", "x")...)
	lim := Limits{FileBytes: 50_000, DirEntries: 20, Depth: 10}
	for _, packed := range []bool{false, true} {
		if packed {
			r.git("gc", "-q")
		}
		tree := headTree(t, r.dir, lim)
		for _, name := range []string{"zeroes", "noise"} {
			_, err := tree.ReadFile(name)
			wantErr(t, err, ErrTooLarge, name, "100000 bytes", "at most 50000")
			if st, err := tree.Stat(name); err != nil || st.Size() != 100_000 {
				t.Error(st, err)
			}
		}
		_, err := tree.ReadDir("many")
		wantErr(t, err, ErrTooLarge, "30 entries", "at most 20")
		_, err = tree.ReadFile(strings.Repeat("d/", 20) + "deep")
		wantErr(t, err, ErrTooLarge, "21 folders deep")
		wantFile(t, tree, "small", "ok")
		// the default takes a file of 8 MiB
		wantFile(t, headTree(t, r.dir, Limits{}), "noise", string(noise))
	}
}

// literal writes a tree object that git itself would not make, and commits it.
func (r testRepo) literal(entries string) {
	r.tb.Helper()
	tree := r.gitIn(entries, "hash-object", "-w", "-t", "tree", "--literally", "--stdin")
	commit := r.git("commit-tree", "-m", "odd", tree)
	r.git("update-ref", "refs/heads/main", commit)
}

func TestOddTrees(t *testing.T) {
	r := initRepo(t, t.TempDir())
	r.commit("x", "f", "x")
	blob := string(must(hexBytes(r.git("rev-parse", "HEAD:f"))))
	for name, c := range map[string]struct {
		raw  string
		kind error
		text string
	}{
		"not utf-8":   {"100644 a\xff\x00" + blob, ErrUnsupported, `"a\xff" is not valid UTF-8; rename it`},
		"dot dot":     {"100644 ..\x00" + blob, ErrCorrupt, `".."`},
		"slash":       {"100644 a/b\x00" + blob, ErrCorrupt, `"a/b"`},
		"twice":       {"100644 a\x00" + blob + "40000 a\x00" + blob, ErrCorrupt, `two entries are called "a"`},
		"cut off":     {"100644 a\x00" + blob[:7], ErrCorrupt, "truncated"},
		"no name":     {"100644 \x00" + blob, ErrCorrupt, "empty filename"},
		"mode":        {"10x644 a\x00" + blob, ErrCorrupt, "mode"},
		"not a tree":  {"hello", ErrCorrupt, ""},
		"folder blob": {"40000 a\x00" + blob, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := r
			r.tb = t
			r.literal(c.raw)
			commit, err := New(Config{Remote: r.dir, Log: silent}).Head(context.Background())
			if c.kind != nil {
				wantErr(t, err, c.kind, c.text)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = commit.Tree.ReadDir("a") // says tree, is a blob
			wantErr(t, err, ErrCorrupt)
		})
	}
}

func objectFile(r testRepo, hash string) string {
	return filepath.Join(r.dir, ".git", "objects", hash[:2], hash[2:])
}

func TestDamagedObjects(t *testing.T) {
	text := strings.Repeat("some text\n", 3000)
	damage := map[string]func([]byte) []byte{
		"cut":     func(b []byte) []byte { return b[:len(b)/2] },
		"emptied": func([]byte) []byte { return nil },
		"flipped": func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 0x55; return b },
		"junk":    func([]byte) []byte { return []byte("not zlib at all") },
	}
	for name, f := range damage {
		t.Run("loose "+name, func(t *testing.T) {
			r := initRepo(t, t.TempDir())
			r.commit("x", "file", text, "other", "fine")
			file := objectFile(r, r.git("rev-parse", "HEAD:file"))
			breakFile(t, file, f)
			tree := headTree(t, r.dir, Limits{})
			for range 2 { // a second look must not find what the first left in a cache
				_, err := tree.ReadFile("file")
				wantErr(t, err, ErrCorrupt, "file", "git fsck")
			}
			wantFile(t, tree, "other", "fine")
		})
		t.Run("packed "+name, func(t *testing.T) {
			r := initRepo(t, t.TempDir())
			noise := make([]byte, 60_000)
			rand.Read(noise)
			r.commit("x", "file", string(noise))
			r.git("gc", "-q")
			packs, _ := filepath.Glob(filepath.Join(r.dir, ".git/objects/pack/*.pack"))
			breakFile(t, packs[0], f)
			c, err := New(Config{Remote: r.dir, Log: silent}).Head(context.Background())
			if err == nil {
				_, err = c.Tree.ReadFile("file")
			}
			wantErr(t, err, ErrCorrupt)
		})
		t.Run("index "+name, func(t *testing.T) {
			r := initRepo(t, t.TempDir())
			r.commit("x", "file", text)
			r.git("gc", "-q")
			packs, _ := filepath.Glob(filepath.Join(r.dir, ".git/objects/pack/*.idx"))
			breakFile(t, packs[0], f)
			c, err := New(Config{Remote: r.dir, Log: silent}).Head(context.Background())
			if err == nil {
				_, err = c.Tree.ReadFile("file")
			}
			if err != nil {
				wantErr(t, err, ErrCorrupt)
			} else { // a flipped checksum hurts nobody
				wantFile(t, c.Tree, "file", text)
			}
		})
	}
	t.Run("swapped", func(t *testing.T) { // a sound object under another's name
		r := initRepo(t, t.TempDir())
		r.commit("x", "file", "right", "other", "wrong")
		data, err := os.ReadFile(objectFile(r, r.git("rev-parse", "HEAD:other")))
		if err != nil {
			t.Fatal(err)
		}
		breakFile(t, objectFile(r, r.git("rev-parse", "HEAD:file")), func([]byte) []byte { return data })
		_, err = headTree(t, r.dir, Limits{}).ReadFile("file")
		wantErr(t, err, ErrCorrupt, "contents have the hash")
	})
	t.Run("missing", func(t *testing.T) {
		r := initRepo(t, t.TempDir())
		r.commit("x", "file", "text")
		os.Remove(objectFile(r, r.git("rev-parse", "HEAD:file")))
		_, err := headTree(t, r.dir, Limits{}).ReadFile("file")
		wantErr(t, err, ErrCorrupt, "is missing")
	})
	t.Run("commit missing", func(t *testing.T) {
		r := initRepo(t, t.TempDir())
		h := r.commit("x", "file", "text")
		os.Remove(objectFile(r, h))
		_, err := New(Config{Remote: r.dir, Log: silent}).Head(context.Background())
		wantErr(t, err, ErrCorrupt, h)
	})
}

func breakFile(tb testing.TB, name string, f func([]byte) []byte) {
	tb.Helper()
	data, err := os.ReadFile(name)
	if err == nil {
		os.Chmod(name, 0o600)
		err = os.WriteFile(name, f(data), 0o600)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

func TestManyReaders(t *testing.T) {
	r := initRepo(t, t.TempDir())
	var files []string
	for i := range 200 {
		files = append(files, fmt.Sprintf("d%d/f%d", i%20, i), strings.Repeat(fmt.Sprint(i), 5000))
	}
	r.commit("x", files...)
	r.git("gc", "-q")
	tree := headTree(t, r.dir, Limits{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := 0; i < len(files); i += 2 {
				if got, err := tree.ReadFile(files[i]); err != nil || string(got) != files[i+1] {
					t.Error(files[i], err)
					return
				}
			}
			if err := fs.WalkDir(tree, ".", func(_ string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					_, err = d.Info()
				}
				return err
			}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
