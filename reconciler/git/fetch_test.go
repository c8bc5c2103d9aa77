package git

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const secret = "s3cret+/=&tok"

// host serves repositories as hosts do: git http-backend behind TLS and a password.
type host struct {
	*httptest.Server
	ca string // file

	mu       sync.Mutex
	password string                          // "" lets everyone in
	requests []*http.Request                 // as they came
	wrap     func(http.Handler) http.Handler // to make trouble
}

func (h *host) set(f func()) { h.mu.Lock(); defer h.mu.Unlock(); f() }

func serve(t *testing.T, root string) *host {
	t.Helper()
	needGit(t)
	path := strings.TrimSpace(testRepo{t, root}.git("--exec-path")) + "/git-http-backend"
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	backend := &cgi.Handler{Path: path, Root: "/", Env: append(gitEnv, "GIT_PROJECT_ROOT="+root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=x"),
		Logger: log.New(io.Discard, "", 0), Stderr: io.Discard}
	h := &host{password: secret}
	h.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		password, wrap := h.password, h.wrap
		h.requests = append(h.requests, r.Clone(context.Background()))
		h.mu.Unlock()
		if _, got, _ := r.BasicAuth(); password != "" && got != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			// some servers are chatty
			http.Error(w, "no entry with "+got, http.StatusUnauthorized)
			return
		}
		if wrap != nil {
			wrap(backend).ServeHTTP(w, r)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	h.Config.ErrorLog = log.New(io.Discard, "", 0)
	h.StartTLS()
	t.Cleanup(h.Close)
	h.ca = filepath.Join(t.TempDir(), "ca.pem")
	writeFile(t, h.ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})), 0o644)
	return h
}

func writeFile(tb testing.TB, name, text string, perm fs.FileMode) string {
	tb.Helper()
	if err := os.WriteFile(name, []byte(text), perm); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(name, perm); err != nil {
		tb.Fatal(err)
	}
	return name
}

// remoteSource is a bare repository behind a host, a worktree that pushes to it, and a
// source that follows it.
func remoteSource(t *testing.T) (h *host, bare, work testRepo, cfg Config) {
	t.Helper()
	bare, work = bareAndClone(t)
	h = serve(t, filepath.Dir(bare.dir))
	dir := t.TempDir()
	cfg = Config{
		Remote: h.URL + "/bare.git", Branch: "main", CAFile: h.ca, Dir: filepath.Join(dir, "clones"), Log: silent,
		CredentialsFile: writeFile(t, filepath.Join(dir, "credentials"), "ana:"+secret+"\n", 0o600),
	}
	return h, bare, work, cfg
}

func TestFetch(t *testing.T) {
	_, bare, work, cfg := remoteSource(t)
	var logged recorder
	cfg.Log = logged.log()
	src := New(cfg)
	first := work.git("rev-parse", "HEAD")
	c := wantHead(t, src, first, First)
	wantFile(t, c.Tree, "sub/b.txt", "two\n")
	if c.Ref != "refs/heads/main" {
		t.Errorf("ref is %s", c.Ref)
	}
	wantHead(t, src, first, Same)
	h := work.commit("second", "a.txt", "ONE\n")
	work.push("main")
	wantFile(t, wantHead(t, src, h, Forward).Tree, "a.txt", "ONE\n")

	// a restart needs no second clone, and finds where it was
	cfg.Since = h
	src = New(cfg)
	old, err := src.Commit(context.Background(), first)
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, old.Tree, "a.txt", "one\n")
	wantHead(t, src, h, Same)

	work.git("reset", "-q", "--hard", first)
	h2 := work.commit("rewritten", "a.txt", "two\n")
	work.push("main")
	if c := wantHead(t, src, h2, Rewritten); c.Before != h {
		t.Errorf("before is %s", c.Before)
	}
	work.push(h + ":refs/heads/main") // objects that are here already
	wantHead(t, src, h, Rewritten)
	bare.git("update-ref", "refs/heads/other", h)
	bare.git("update-ref", "-d", "refs/heads/main")
	_, err = src.Head(context.Background())
	wantErr(t, err, ErrNoBranch, `"main" is not there, but other`, "stays in force")
	work.push(h2 + ":refs/heads/main")
	wantHead(t, src, h2, Rewritten)

	// the clone is a plain bare repository
	clone := testRepo{t, clonePath(cfg.Dir, 1)}
	clone.git("fsck", "--full", "--strict")
	if got := clone.git("rev-parse", "HEAD"); got != h2 {
		t.Errorf("the clone's HEAD is %s", got)
	}
	// and holds no credentials
	err = filepath.WalkDir(cfg.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if data := must(os.ReadFile(path)); strings.Contains(string(data), secret) {
				t.Errorf("%s holds the password", path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(logged.String(), secret) {
		t.Errorf("logged the password: %s", logged.String())
	}
}

func TestFetchOtherBranches(t *testing.T) {
	_, bare, work, cfg := remoteSource(t)
	cfg.Branch = ""
	src := New(cfg)
	if c := mustHead(t, src); c.Ref != "refs/heads/main" {
		t.Errorf("ref is %s", c.Ref)
	}
	h := work.commit("dev", "a.txt", "dev")
	work.push("main:dev/x")
	bare.git("symbolic-ref", "HEAD", "refs/heads/dev/x")
	if c := wantHead(t, src, h, Forward); c.Ref != "refs/heads/dev/x" {
		t.Errorf("ref is %s", c.Ref)
	}
	bare.git("update-ref", "--no-deref", "HEAD", h+"~1") // detached
	wantHead(t, src, work.git("rev-parse", h+"~1"), Rewritten)
	bare.git("symbolic-ref", "HEAD", "refs/heads/gone")
	_, err := src.Head(context.Background())
	wantErr(t, err, ErrNoBranch)
}

func TestFetchStates(t *testing.T) {
	ctx := context.Background()
	_, err := New(Config{Remote: "https://127.0.0.1:1/x", Log: silent}).Head(ctx)
	wantErr(t, err, ErrConfig, "no folder is set")

	t.Run("auth", func(t *testing.T) {
		h, _, work, cfg := remoteSource(t)
		src := New(cfg)
		mustHead(t, src)
		h.set(func() { h.password = "rotated" })
		_, err := src.Head(ctx)
		wantErr(t, err, ErrAuth, h.URL+"/bare.git", "credentials file", "stays in force")
		if strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "[hidden]") {
			t.Errorf("the error shows the password: %v", err)
		}
		writeFile(t, cfg.CredentialsFile, "rotated\n", 0o600) // a token alone, read anew
		wantHead(t, src, work.git("rev-parse", "HEAD"), Same)
		cfg.CredentialsFile = ""
		_, err = New(cfg).Head(ctx)
		wantErr(t, err, ErrAuth)
		h.set(func() {
			h.password = ""
			h.wrap = func(http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
			}
		})
		_, err = src.Head(ctx)
		wantErr(t, err, ErrAuth)
	})
	t.Run("credentials file", func(t *testing.T) {
		_, _, _, cfg := remoteSource(t)
		for text, c := range map[string]struct {
			perm fs.FileMode
			want string
		}{
			"a:b":      {0o640, "run chmod 600"},
			"c:d":      {0o604, "run chmod 600"},
			"":         {0o600, "one line"},
			"a:b\nc:d": {0o600, "one line"},
		} {
			writeFile(t, cfg.CredentialsFile, text, c.perm)
			_, err := New(cfg).Head(ctx)
			wantErr(t, err, ErrConfig, cfg.CredentialsFile, c.want)
		}
		cfg.CredentialsFile += ".none"
		_, err := New(cfg).Head(ctx)
		wantErr(t, err, ErrConfig, "no such file")
	})
	t.Run("tls", func(t *testing.T) {
		h, _, _, cfg := remoteSource(t)
		good := cfg.CAFile
		cfg.CAFile = ""
		_, err := New(cfg).Head(ctx)
		wantErr(t, err, ErrTLS, "CA file")
		cfg.CAFile = writeFile(t, filepath.Join(t.TempDir(), "ca"), "nothing", 0o600)
		_, err = New(cfg).Head(ctx)
		wantErr(t, err, ErrConfig, "holds no certificate")
		cfg.CAFile = cfg.CAFile + ".none"
		_, err = New(cfg).Head(ctx)
		wantErr(t, err, ErrConfig, "no such file")
		cfg.CAFile = good
		cfg.Remote = strings.Replace(h.URL, "127.0.0.1", "localhost", 1) + "/bare.git" // not in the certificate
		_, err = New(cfg).Head(ctx)
		wantErr(t, err, ErrTLS, "localhost")
		plain := httptest.NewServer(http.NotFoundHandler())
		t.Cleanup(plain.Close)
		cfg.Remote = strings.Replace(plain.URL, "http:", "https:", 1) + "/x"
		_, err = New(cfg).Head(ctx)
		wantErr(t, err, ErrTLS)
		h.set(func() { h.TLS.MaxVersion = tls.VersionTLS13 })
	})
	t.Run("unreachable", func(t *testing.T) {
		h, _, _, cfg := remoteSource(t)
		src := New(cfg)
		c := mustHead(t, src)
		h.Close()
		_, err := src.Head(ctx)
		wantErr(t, err, ErrUnreachable, h.URL, "connection refused", "stays in force")
		wantFile(t, c.Tree, "a.txt", "one\n")
		// and after a restart
		src = New(cfg)
		if _, err := src.Head(ctx); !errors.Is(err, ErrUnreachable) {
			t.Error(err)
		}
		old, err := src.Commit(ctx, c.Hash)
		if err != nil {
			t.Fatal(err)
		}
		wantFile(t, old.Tree, "a.txt", "one\n")
		cfg.Remote = "https://name.invalid/x"
		_, err = New(cfg).Head(ctx)
		wantErr(t, err, ErrUnreachable)
	})
	t.Run("answers", func(t *testing.T) {
		h, _, _, cfg := remoteSource(t)
		answer := func(code int, kind, body string) error {
			h.set(func() {
				h.wrap = func(http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
						w.Header().Set("Content-Type", kind)
						w.WriteHeader(code)
						io.WriteString(w, body)
					})
				}
			})
			_, err := New(cfg).Head(ctx)
			return err
		}
		wantErr(t, answer(404, "text/plain", ""), ErrNotRepository, "hide")
		wantErr(t, answer(500, "text/plain", ""), ErrUnreachable, "500")
		wantErr(t, answer(503, "text/plain", ""), ErrUnreachable)
		wantErr(t, answer(429, "text/plain", ""), ErrUnreachable)
		wantErr(t, answer(410, "text/plain", ""), ErrProtocol)
		wantErr(t, answer(200, "text/html", "<html>Sign in</html>"), ErrProtocol, "web page")
		const adv = "application/x-git-upload-pack-advertisement"
		for _, junk := range []string{"001e# service=git-upload-pack\n0000zzzz", "001e# service=git-upload-pack\n0000ffff", "001e# service=git-upload-pack\n0000" + strings.Repeat("0008abcd", 50), "0000", "fffffff"} {
			if err := answer(200, adv, junk); !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrEmpty) && !errors.Is(err, ErrUnreachable) {
				t.Errorf("%q: %v", junk, err)
			}
		}
	})
	t.Run("empty", func(t *testing.T) {
		_, bare, _, cfg := remoteSource(t)
		initRepo(t, filepath.Join(filepath.Dir(bare.dir), "empty.git"), "--bare")
		cfg.Remote = strings.Replace(cfg.Remote, "bare.git", "empty.git", 1)
		_, err := New(cfg).Head(ctx)
		wantErr(t, err, ErrEmpty, "push a first commit")
	})
	t.Run("too large", func(t *testing.T) {
		_, _, work, cfg := remoteSource(t)
		src := New(cfg)
		c := mustHead(t, src)
		var noise strings.Builder
		for i := range 40_000 {
			fmt.Fprintf(&noise, "%x", i*i*7919)
		}
		work.commit("big", "noise", noise.String())
		work.push("main")
		cfg.FetchBytes = 20_000
		cfg.Since = c.Hash
		src = New(cfg)
		_, err := src.Head(ctx)
		wantErr(t, err, ErrTooLarge, "raise the limit")
		if list, _ := filepath.Glob(filepath.Join(cfg.Dir, "*", "objects", "pack", "tmp_*")); len(list) > 0 {
			t.Errorf("left behind: %v", list)
		}
	})
	t.Run("slow", func(t *testing.T) {
		h, _, _, cfg := remoteSource(t)
		gone := make(chan struct{})
		t.Cleanup(func() { close(gone) })
		h.set(func() {
			h.wrap = func(http.Handler) http.Handler {
				return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					select {
					case <-r.Context().Done():
					case <-gone:
					}
				})
			}
		})
		cfg.FetchTimeout = 300 * time.Millisecond
		_, err := New(cfg).Head(ctx)
		wantErr(t, err, ErrUnreachable, "not done after 300ms")
		canceling, cancel := context.WithCancel(ctx)
		time.AfterFunc(100*time.Millisecond, cancel)
		cfg.FetchTimeout = 0
		_, err = New(cfg).Head(canceling)
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
			t.Error(err)
		}
	})
	t.Run("disk", func(t *testing.T) {
		_, _, _, cfg := remoteSource(t)
		writeFile(t, cfg.Dir, "a file", 0o600)
		_, err := New(cfg).Head(ctx)
		wantErr(t, err, ErrDisk, cfg.Dir)
	})
}

// TestRedirects: credentials stay with the host that they are for.
func TestRedirects(t *testing.T) {
	h, _, work, cfg := remoteSource(t)
	head := work.git("rev-parse", "HEAD")
	other := serve(t, filepath.Dir(work.dir))
	both := must(os.ReadFile(h.ca)) // httptest's certificates are one and the same
	cfg.CAFile = writeFile(t, filepath.Join(t.TempDir(), "both"), string(both), 0o600)
	redirect := func(to string) {
		h.set(func() {
			h.wrap = func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.HasPrefix(r.URL.Path, "/moved.git/") {
						http.Redirect(w, r, to+strings.TrimPrefix(r.URL.RequestURI(), "/moved.git"), http.StatusMovedPermanently)
						return
					}
					next.ServeHTTP(w, r)
				})
			}
		})
	}
	cfg.Remote = h.URL + "/moved.git"
	redirect("/bare.git") // the same host: they go along
	wantHead(t, New(cfg), head, First)

	redirect(other.URL + "/bare.git")
	cfg.Dir += "2"
	_, err := New(cfg).Head(context.Background())
	wantErr(t, err, ErrAuth)
	other.set(func() { other.password = "" }) // a public one may be followed
	wantHead(t, New(cfg), head, First)
	other.mu.Lock()
	defer other.mu.Unlock()
	if len(other.requests) < 3 {
		t.Errorf("the other host saw %d requests", len(other.requests))
	}
	for _, r := range other.requests {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" || strings.Contains(r.URL.String(), secret) {
			t.Errorf("the other host was sent %v", r.Header)
		}
	}
	// never down to plain text
	plain := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("plain text request: %v", r.Header)
	}))
	t.Cleanup(plain.Close)
	redirect(plain.URL + "/bare.git")
	if _, err := New(cfg).Head(context.Background()); err == nil {
		t.Error("followed to plain text")
	}
}

// TestBrokenTransfers cuts and flips what the server sends.
func TestBrokenTransfers(t *testing.T) {
	h, _, work, cfg := remoteSource(t)
	src := New(cfg)
	before := mustHead(t, src)
	var files []string
	for i := range 50 {
		files = append(files, fmt.Sprint("f", i), strings.Repeat(fmt.Sprint(i*i), 500))
	}
	head := work.commit("next", files...)
	work.push("main")
	for i, f := range []func([]byte) []byte{
		func(b []byte) []byte { return b[:len(b)*2/3] },
		func(b []byte) []byte { return b[:50] },
		func(b []byte) []byte { b[len(b)/2] ^= 0xff; return b },
		func(b []byte) []byte { b[len(b)-10] ^= 0xff; return b },
		func(b []byte) []byte { return nil },
	} {
		h.set(func() {
			h.wrap = func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method != http.MethodPost {
						next.ServeHTTP(w, r)
						return
					}
					rec := httptest.NewRecorder()
					next.ServeHTTP(rec, r)
					w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
					w.Write(f(rec.Body.Bytes()))
				})
			}
		})
		_, err := src.Head(context.Background())
		if !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrUnreachable) {
			t.Errorf("%d: error is %v", i, err)
		}
		wantFile(t, before.Tree, "a.txt", "one\n")
	}
	h.set(func() { h.wrap = nil })
	wantFile(t, wantHead(t, src, head, Forward).Tree, "f7", files[15])
	testRepo{t, clonePath(cfg.Dir, 1)}.git("fsck", "--full")
}

func TestPlainHTTPOnLoopback(t *testing.T) {
	_, bare, work, cfg := remoteSource(t)
	h := serve(t, filepath.Dir(bare.dir))
	plain := httptest.NewServer(h.Config.Handler)
	t.Cleanup(plain.Close)
	if _, _, err := net.SplitHostPort(plain.Listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	cfg.Remote = plain.URL + "/bare.git"
	wantHead(t, New(cfg), work.git("rev-parse", "HEAD"), First)
}

// TestLongHistories makes the two sides find what they share among hundreds of commits.
func TestLongHistories(t *testing.T) {
	_, bare, work, cfg := remoteSource(t)
	grow := func(branch, from string, n int) string {
		var in strings.Builder
		for i := range n {
			fmt.Fprintf(&in, "commit refs/heads/%s\ncommitter Ana <ana@example.com> %d +0000\ndata 1\nc\n", branch, 1_700_000_000+i)
			if i == 0 {
				fmt.Fprintf(&in, "from %s\n", from)
			}
			text := fmt.Sprint(branch, i)
			fmt.Fprintf(&in, "M 100644 inline f\ndata %d\n%s\n", len(text), text)
		}
		bare.gitIn(in.String(), "fast-import", "--quiet", "--force")
		return bare.git("rev-parse", branch)
	}
	start := work.git("rev-parse", "HEAD")
	src := New(cfg)
	wantHead(t, src, start, First)
	wantHead(t, src, grow("main", start, 600), Forward)
	wantHead(t, src, grow("main", start, 3), Rewritten) // beyond all that is offered
	wantHead(t, src, grow("main", "main~0", 700), Forward)
	mid := bare.git("rev-parse", "main~20")
	wantHead(t, src, grow("main", mid, 30), Rewritten)
	bare.git("gc", "-q", "--prune=now")
	wantFile(t, wantHead(t, src, grow("main", "main~0", 1), Forward).Tree, "f", "main0")
	testRepo{t, clonePath(cfg.Dir, 1)}.git("fsck", "--full")
}

// TestShallowRemote: what the server itself does not have cannot be asked for.
func TestShallowRemote(t *testing.T) {
	_, bare, work, cfg := remoteSource(t)
	for i := range 5 {
		work.commit("more", "a.txt", fmt.Sprint(i))
	}
	work.push("main")
	root := filepath.Dir(bare.dir)
	work.git("clone", "-q", "--bare", "--depth=2", "file://"+bare.dir, filepath.Join(root, "shallow.git"))
	cfg.Remote = strings.Replace(cfg.Remote, "bare.git", "shallow.git", 1)
	cfg.Since = work.git("rev-list", "--max-parents=0", "HEAD")
	src := New(cfg)
	c := mustHead(t, src)
	wantFile(t, c.Tree, "a.txt", "4")
	if c.Relation != Unknown {
		t.Errorf("relation is %s", c.Relation)
	}
	h := work.commit("next", "a.txt", "5")
	work.git("push", "-q", filepath.Join(root, "shallow.git"), "main")
	wantFile(t, wantHead(t, src, h, Forward).Tree, "a.txt", "5")
	wantHead(t, src, h, Same)
	wantHead(t, New(cfg), h, Unknown)
	if n := must(newest(cfg.Dir)); n != 1 {
		t.Errorf("cloned %d times", n)
	}
}
