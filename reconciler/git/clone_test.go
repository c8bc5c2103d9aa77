package git

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestDamagedClonesAreReplaced(t *testing.T) {
	damage := map[string]func(t *testing.T, clone string){
		"no HEAD":    func(_ *testing.T, c string) { os.Remove(filepath.Join(c, "HEAD")) },
		"empty HEAD": func(t *testing.T, c string) { writeFile(t, filepath.Join(c, "HEAD"), "", 0o600) },
		"no ref":     func(_ *testing.T, c string) { os.RemoveAll(filepath.Join(c, "refs", "heads")) },
		"empty ref":  func(t *testing.T, c string) { writeFile(t, filepath.Join(c, "refs/heads/main"), "", 0o600) },
		"no objects": func(_ *testing.T, c string) { os.RemoveAll(filepath.Join(c, "objects")) },
		"no pack":    func(t *testing.T, c string) { os.Remove(one(t, c, "pack")) },
		"no index":   func(t *testing.T, c string) { os.Remove(one(t, c, "idx")) },
		"cut pack": func(t *testing.T, c string) {
			breakFile(t, one(t, c, "pack"), func(b []byte) []byte { return b[:len(b)/2] })
		},
		"empty pack":  func(t *testing.T, c string) { breakFile(t, one(t, c, "pack"), func([]byte) []byte { return nil }) },
		"empty index": func(t *testing.T, c string) { breakFile(t, one(t, c, "idx"), func([]byte) []byte { return nil }) },
		"flipped pack": func(t *testing.T, c string) {
			breakFile(t, one(t, c, "pack"), func(b []byte) []byte { b[len(b)-30] ^= 1; return b })
		},
		"flipped index": func(t *testing.T, c string) {
			breakFile(t, one(t, c, "idx"), func(b []byte) []byte { b[1040] ^= 1; return b })
		},
		"a file": func(t *testing.T, c string) { os.RemoveAll(c); writeFile(t, c, "", 0o600) },
	}
	_, _, work, cfg := remoteSource(t)
	head := work.git("rev-parse", "HEAD")
	dirs := t.TempDir()
	for name, f := range damage {
		for _, running := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s running=%v", name, running), func(t *testing.T) {
				cfg := cfg
				cfg.Dir = filepath.Join(dirs, strings.ReplaceAll(t.Name(), "/", "-"))
				src := New(cfg)
				c := wantHead(t, src, head, First)
				f(t, clonePath(cfg.Dir, 1))
				if running {
					// caches hide it until something must be read again
					c.Tree.objects.mu.Lock()
					c.Tree.objects.reopen()
					c.Tree.objects.trees = nil
					c.Tree.objects.mu.Unlock()
					c.Tree.ReadFile("sub/b.txt")
				} else {
					src = New(cfg)
				}
				rel := First
				if running {
					rel = Same
				}
				c = wantHead(t, src, head, rel)
				wantFile(t, c.Tree, "a.txt", "one\n")
				wantFile(t, c.Tree, "sub/b.txt", "two\n")
				wantHead(t, src, head, Same)
			})
		}
	}
}

func one(t *testing.T, clone, ext string) string {
	t.Helper()
	list, _ := filepath.Glob(filepath.Join(clone, "objects", "pack", "*."+ext))
	if len(list) != 1 {
		t.Fatalf("packs: %v", list)
	}
	return list[0]
}

func TestManyPacksMakeANewClone(t *testing.T) {
	_, _, work, cfg := remoteSource(t)
	src := New(cfg)
	first := mustHead(t, src)
	pack := one(t, clonePath(cfg.Dir, 1), "pack")
	for i := range maxPacks { // as many fetches would leave behind
		fake := fmt.Sprintf("%s/pack-%040x", filepath.Dir(pack), i+1)
		if err := os.Link(pack, fake+".pack"); err != nil {
			t.Fatal(err)
		}
	}
	h := work.commit("next", "a.txt", "next")
	work.push("main")
	c := wantHead(t, src, h, Forward)
	wantFile(t, c.Tree, "a.txt", "next")
	if n := must(newest(cfg.Dir)); n != 2 {
		t.Errorf("clone %d is the newest", n)
	}
	one(t, clonePath(cfg.Dir, 2), "pack")
	wantFile(t, first.Tree, "sub/b.txt", "two\n") // the old one is still there to read
	h = work.commit("next", "a.txt", "and next")
	work.push("main")
	wantHead(t, New(cfg), h, First) // a restart clears it away
	if _, err := os.Stat(clonePath(cfg.Dir, 1)); !os.IsNotExist(err) {
		t.Error(err)
	}
}

func TestTwoSourcesOneFolder(t *testing.T) {
	_, _, work, cfg := remoteSource(t)
	a, b := New(cfg), New(cfg)
	done := make(chan error, 2)
	for _, s := range []*Source{a, b} {
		go func() { _, err := s.Head(context.Background()); done <- err }()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	h := work.commit("next", "a.txt", "next")
	work.push("main")
	wantHead(t, a, h, Forward)
	wantHead(t, b, h, Forward)
}

// TestKilledFetches kills a process in the middle of clones and fetches, again and again.
func TestKilledFetches(t *testing.T) {
	if dir := os.Getenv("GIT_TEST_KILLED"); dir != "" {
		New(Config{Remote: os.Getenv("GIT_TEST_REMOTE"), CAFile: os.Getenv("GIT_TEST_CA"), Dir: dir, Log: silent}).Head(context.Background())
		os.Exit(0)
	}
	h, _, work, cfg := remoteSource(t)
	var posts atomic.Int64
	h.set(func() {
		h.password = ""
		h.wrap = func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					posts.Add(1)
					w = slowWriter{w}
				}
				next.ServeHTTP(w, r)
			})
		}
	})
	exe := must(os.Executable())
	for round := range 6 {
		var text strings.Builder
		for i := range 20_000 {
			fmt.Fprintf(&text, "%x", (i+round)*(i+7)*7919)
		}
		work.commit("next", "noise", text.String(), "round", fmt.Sprint(round))
		work.push("main")
		cmd := exec.Command(exe, "-test.run=^TestKilledFetches$")
		cmd.Env = append(os.Environ(), "GIT_TEST_KILLED="+cfg.Dir, "GIT_TEST_REMOTE="+cfg.Remote, "GIT_TEST_CA="+cfg.CAFile)
		asked := posts.Load()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the fetch began", func() bool { return posts.Load() > asked })
		time.Sleep(time.Duration(round*5) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		if round == 2 { // half-way it gets through: before it whole clones are killed, then fetches
			h.set(func() { h.wrap = nil })
			wantHead(t, New(cfg), work.git("rev-parse", "HEAD"), First)
			h.set(func() {
				h.wrap = func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.Method == http.MethodPost {
							posts.Add(1)
							w = slowWriter{w}
						}
						next.ServeHTTP(w, r)
					})
				}
			})
		}
	}
	h.set(func() { h.wrap = nil })
	wantFile(t, wantHead(t, New(cfg), work.git("rev-parse", "HEAD"), First).Tree, "round", "5")
	n := must(newest(cfg.Dir))
	testRepo{t, clonePath(cfg.Dir, n)}.git("fsck", "--full")
	left, _ := filepath.Glob(filepath.Join(cfg.Dir, "*"))
	for _, name := range left {
		if base := filepath.Base(name); base != "lock" && cloneNumber(base) != n {
			t.Errorf("left behind: %s", base)
		}
	}
	if tmp, _ := filepath.Glob(filepath.Join(cfg.Dir, "*/objects/pack/tmp_*")); len(tmp) > 0 {
		t.Errorf("left behind: %v", tmp)
	}
}

// slowWriter gives a kill time to strike.
type slowWriter struct{ http.ResponseWriter }

func (w slowWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		var m int
		m, err = w.ResponseWriter.Write(p[:min(len(p), 2000)])
		w.ResponseWriter.(http.Flusher).Flush()
		time.Sleep(2 * time.Millisecond)
		n += m
		p = p[m:]
	}
	return n, err
}
