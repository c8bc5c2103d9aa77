package containerd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"selvedge/edge/apply"
	"selvedge/schema/nodestate"
	"selvedge/test/env"
)

var shell = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "selvedge-shell-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "shell")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, "./testdata/shell")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=")
	if b, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the shell: %w: %s", err, b)
	}
	return os.ReadFile(out)
})

// shellImage is an image of the test's own program.
func (b *bed) shellImage(t *testing.T) string {
	t.Helper()
	program, err := shell()
	if err != nil {
		t.Fatal(err)
	}
	img, err := env.BuildImageOf(program, "shell")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := env.Push(t.Context(), b.host, "shell", "v1", img)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func runs(image string, args ...string) func(*nodestate.Container) {
	return func(c *nodestate.Container) {
		c.Image, c.Args, c.Network = image, args, "none"
	}
}

// screen is a terminal's output that a test can wait for.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *screen) shows(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if strings.Contains(s.String(), text) {
			return
		}
	}
	t.Fatalf("never showed %q, but %.2000q", text, s.String())
}

func TestExecStreams(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	i := b.start(t, b.spec("tool", "main", runs(b.shellImage(t), "idle"), func(c *nodestate.Container) {
		c.User, c.Env = "1234:1234", map[string]string{"OWN": "yes"}
	}))
	fifos := filepath.Join(b.conf.RunDir, "fifo")
	do := func(ctx context.Context, stdin io.Reader, command ...string) (string, string, int, error) {
		var out, err screen
		code, e := b.ExecStream(ctx, i.ID, apply.ExecOptions{Command: command, Stdin: stdin, Stdout: &out, Stderr: &err})
		return out.String(), err.String(), code, e
	}
	if out, errOut, code, err := do(t.Context(), nil, "/hello", "say", "to out", "to err", "42"); out != "to out" || errOut != "to err" || code != 42 || err != nil {
		t.Errorf("%q %q %d %v", out, errOut, code, err)
	}
	if out, _, _, err := do(t.Context(), nil, "/hello", "env"); !strings.HasPrefix(out, "1234 ") || !strings.Contains(out, "OWN=yes") || err != nil {
		t.Errorf("%q %v", out, err)
	}
	big := strings.Repeat("0123456789abcdef\n", 200_000)
	if out, _, code, err := do(t.Context(), strings.NewReader(big), "/hello", "cat"); out != big || code != 0 || err != nil {
		t.Errorf("%d bytes came back of %d: %d %v", len(out), len(big), code, err)
	}
	if _, _, _, err := do(t.Context(), nil, "/no-such-tool"); err == nil || !strings.Contains(err.Error(), "no-such-tool") {
		t.Errorf("a missing program: %v", err)
	}
	if _, _, _, err := do(t.Context(), nil); err == nil {
		t.Error("no command, no error")
	}
	// a child that holds the output must not hold us
	if out, _, code, err := do(t.Context(), nil, "/hello", "child", "left"); !strings.Contains(out, "left it") || code != 0 || err != nil {
		t.Errorf("%q %d %v", out, code, err)
	}
	// cancelled: the command goes, with what it started, whether somebody reads or not
	ctx, cancel := context.WithCancel(t.Context())
	var out screen
	done := make(chan error, 1)
	stdin, feed := io.Pipe()
	defer feed.Close()
	go func() {
		_, err := b.ExecStream(ctx, i.ID, apply.ExecOptions{Command: []string{"/hello", "child", "mark-of-cancel", "stay"}, Stdin: stdin, Stdout: &out})
		done <- err
	}()
	out.shows(t, "idles")
	if !running("mark-of-cancel") {
		t.Error("the command does not run")
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	eventually(t, "the command is gone", func() bool { return !running("mark-of-cancel") })

	for n := range 15 { // at every point of its start
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n*8)*time.Millisecond)
		if _, err := b.ExecStream(ctx, i.ID, apply.ExecOptions{Command: []string{"/hello", "idle", "mark-of-start"}, TTY: n%2 == 0}); err == nil {
			t.Error("ended by itself")
		}
		cancel()
	}
	eventually(t, "no command is left", func() bool { return !running("mark-of-start") })
	var all sync.WaitGroup
	slots := make(chan struct{}, 10)
	for n := range 40 {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			out, _, code, err := do(t.Context(), strings.NewReader("x"), "/hello", "say", fmt.Sprint(n), "", "3")
			if out != fmt.Sprint(n) || code != 3 || err != nil {
				t.Errorf("%d: %q %d %v", n, out, code, err)
			}
		})
	}
	all.Wait()
	if left, err := os.ReadDir(fifos); err != nil || len(left) > 0 {
		t.Errorf("left in %s: %v %v", fifos, left, err)
	}

	if u, err := b.Usage(t.Context(), i.ID); err != nil || u.Memory <= 0 || u.MemoryLimit != 0 || u.CPU < 0 || u.NetRx != 0 {
		t.Errorf("usage %+v %v", u, err)
	}
	b.stop(t, i, true)
	if _, _, _, err := do(t.Context(), nil, "/hello", "env"); !errors.Is(err, apply.ErrNotRunning) {
		t.Errorf("in a stopped container: %v", err)
	}
	if _, err := b.Usage(t.Context(), i.ID); !errors.Is(err, apply.ErrNotRunning) {
		t.Errorf("of a stopped container: %v", err)
	}
}

// running tells whether a process of this machine has that word on its command line.
func running(word string) bool {
	list, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range list {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), word) {
			return true
		}
	}
	return false
}

func TestExecTerminal(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	i := b.start(t, b.spec("tool", "main", runs(b.shellImage(t), "idle")))
	var out screen
	in, type_ := io.Pipe()
	resize := make(chan apply.Size)
	type result struct {
		code int
		err  error
	}
	done := make(chan result, 1)
	go func() {
		code, err := b.ExecStream(t.Context(), i.ID, apply.ExecOptions{Command: []string{"/hello", "terminal"}, TTY: true, Stdin: in, Stdout: &out, Rows: 31, Columns: 97, Resize: resize})
		done <- result{code, err}
	}()
	out.shows(t, "size 31 97 <nil>")
	resize <- apply.Size{Rows: 40, Columns: 120}
	out.shows(t, "size 40 120 <nil>")
	if _, err := io.WriteString(type_, "word\r"); err != nil {
		t.Fatal(err)
	}
	out.shows(t, "read word")
	if r := <-done; r.code != 7 || r.err != nil {
		t.Errorf("%d %v", r.code, r.err)
	}
	type_.Close()

	// the container ends under a terminal: that ends too, and nothing stays
	goroutines := runtime.NumGoroutine()
	in, type_ = io.Pipe()
	go func() {
		_, err := b.ExecStream(t.Context(), i.ID, apply.ExecOptions{Command: []string{"/hello", "terminal"}, TTY: true, Stdin: in, Stdout: &out, Rows: 50, Columns: 50})
		done <- result{0, err}
	}()
	out.shows(t, "size 50 50 <nil>")
	b.stop(t, i, false)
	<-done
	type_.Close()
	if left, _ := os.ReadDir(filepath.Join(b.conf.RunDir, "fifo")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines+8 }) // other tests run beside this one
}

func TestRootIsContainerds(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	root, err := b.Root(t.Context())
	if fi, serr := os.Stat(root); err != nil || serr != nil || !fi.IsDir() || !strings.HasPrefix(root, b.daemon.Dir+"/") {
		t.Errorf("%q, %v", root, errors.Join(err, serr))
	}
}

func TestUsageOfAContainer(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := port(t)
	i := b.start(t, b.spec("web", "main", published(p), func(c *nodestate.Container) { c.Memory, c.Env = 64<<20, map[string]string{"FAIL": "flood"} }))
	get(t, url(p, "/"))
	if _, err := b.Usage(t.Context(), i.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it uses what it is seen to use", func() bool {
		u, err := b.Usage(t.Context(), i.ID)
		return err == nil && u.CPU > 0 && u.CPU < 64 && u.Memory > 0 && u.MemoryLimit == 64<<20 && u.NetRx > 0 && u.NetTx > 0
	})
	if u, err := b.Usage(t.Context(), i.ID); err != nil || u.Disk <= 0 {
		t.Errorf("its own layer: %+v, %v", u, err)
	}
	for _, id := range []string{strings.Repeat("0", 64), "", `x" || id!="`} {
		if _, err := b.Usage(t.Context(), id); err == nil {
			t.Errorf("usage of %q", id)
		}
	}
}
