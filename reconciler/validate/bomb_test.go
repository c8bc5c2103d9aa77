package validate

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"selvedge/schema/fleet"
)

func doubling(n int) string {
	var b strings.Builder
	b.WriteString("_a0: {x: 1, y: 2}\n")
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, "_a%d: {x: _a%d, y: _a%d}\n", i, i-1, i-1)
	}
	return b.String()
}

func disjunctions(n int) string {
	var b strings.Builder
	b.WriteString("_x: {}\n")
	for i := range n {
		fmt.Fprintf(&b, "_x: {a%d: 1} | {a%d: 2, b%d: 1}\n", i, i, i)
	}
	return b.String()
}

// TestBombs holds that what never ends, or would take all memory, refuses its own
// workspace and no other.
func TestBombs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector cannot work within limits of memory")
	}
	v := validator(t, Config{Workers: 2, Limits: Limits{CPU: time.Second, Wall: 20 * time.Second, Memory: 512 << 20, Output: 8 << 20}})
	for _, c := range []struct{ name, text, want string }{
		{"comprehension", "_l: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n_y: [for a in _l for b in _l for c in _l for d in _l for e in _l for f in _l for g in _l for h in _l {a + b + c + d + e + f + g + h}]\n", "evaluation stopped: it "},
		{"disjunctions", disjunctions(24), "evaluation stopped: it "},
		{"range", "import \"list\"\n\n_x: list.Range(0, 1e8, 1)\n", "evaluation stopped: it needed more than 256 MiB"},
		{"repeat", "import \"strings\"\n\n_x: strings.Repeat(\"aaaaaaaaaa\", 1000000000)\n", "x.cue:5:5: _x: "},
		{"doubling", doubling(40) + "app: web: params: {x: _a39}\n", "evaluation stopped: it "},
		{"output", "import \"strings\"\n\n_a: strings.Repeat(\"a\", 1000000)\napp: web: params: {for i in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] {\"x\\(i)\": _a}}\n", "evaluation stopped: its result has"},
		{"brackets", "_x: " + strings.Repeat("[", 1_000_000) + strings.Repeat("]", 1_000_000) + "\n", ""},
		{"unclosed brackets", "_x: " + strings.Repeat("[", 1_000_000), ""},
		{"braces", "_x: " + strings.Repeat("{a: ", 500_000) + "1" + strings.Repeat("}", 500_000) + "\n", ""},
		{"regexp", "_x: =~\"" + strings.Repeat("(a{1,900}){1,900}", 100) + "\"\n_y: _x & \"a\"\n", ""},
		{"power", "import \"math\"\n\n_x: math.Pow(10, 100000000)\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := v
			if c.name == "range" { // memory must run out before the processor's time does
				v = validator(t, Config{Workers: 1, Limits: Limits{CPU: 10 * time.Second, Memory: 256 << 20}})
			}
			dir := repoDir(t, with(map[string]string{wsDir + "/x.cue": "package fleet\n\n" + c.text}))
			f, repo := check(t, v, dir)
			got := all(f, repo)
			if len(got) > 4000 {
				got = got[:4000]
			}
			t.Log(got)
			s := f.Workspaces[wsDir]
			if s == nil || c.want != "" && s.Unit != nil || !strings.Contains(got, c.want) {
				t.Errorf("want %q", c.want)
			}
			if f.Workspaces[otherDir].Unit == nil {
				t.Error("a neighbour is refused too")
			}
		})
	}
}

// TestBombAbove holds that a bomb in a folder is not lit once a workspace.
func TestBombAbove(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector cannot work within limits of memory")
	}
	v := validator(t, Config{Limits: Limits{CPU: time.Second, Memory: 256 << 20}})
	files := map[string]string{"folders/plant-a/x.cue": "package fleet\n\n" + disjunctions(24)}
	for i := range 5 {
		files[fmt.Sprintf("folders/plant-a/w%d/workspace.cue", i)] = "package fleet\n\nworkspace: title: \"w\"\n"
	}
	start := time.Now()
	f, _ := check(t, v, repoDir(t, with(files)))
	for i := range 5 {
		s := f.Workspaces[fmt.Sprintf("folders/plant-a/w%d", i)]
		if s == nil || s.Unit != nil || len(s.Problems) == 0 || !strings.Contains(s.Problems[0].Message, "evaluation stopped") {
			t.Errorf("w%d: %+v", i, s)
		}
	}
	t.Log(time.Since(start))
}

// killing is a tree that kills the child that asks for a file, so many times.
type killing struct {
	Tree
	file string
	left *atomic.Int32
}

func (k killing) ReadFile(name string) ([]byte, error) {
	if name == k.file && k.left.Add(-1) >= 0 {
		killChildren()
	}
	return k.Tree.ReadFile(name)
}

func killChildren() {
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
}

// A bomb is not set off again by the commits of others, and is by a change of its own.
func TestBombOnce(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector cannot work within memory limits")
	}
	v := validator(t, Config{Workers: 1, Limits: Limits{CPU: time.Second}})
	dir := repoDir(t, baseRepo())
	bomb := filepath.Join(dir, wsDir, "bomb.cue")
	source := "package fleet\nl: [0,1,2,3,4,5,6,7,8,9]\nx: [for a in l for b in l for c in l for d in l for e in l for f in l for g in l for h in l {a+b}]\n"
	write := func(name, s string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	look := func() *fleet.Source {
		t.Helper()
		f, repo, err := v.Validate(context.Background(), tree(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		s := f.Workspaces[wsDir]
		if s == nil {
			t.Fatalf("no workspace: %v", repo)
		}
		return s
	}
	write(bomb, source)
	first := look()
	if first.Unit != nil {
		t.Fatal("the bomb was accepted")
	}
	if again := look(); again != first {
		t.Error("the bomb was set off again though nothing changed")
	}
	write(bomb, "package fleet\n")
	if look().Unit == nil {
		t.Error("the mended workspace is refused still")
	}
}

func TestChildKilled(t *testing.T) {
	v := validator(t, Config{Workers: 1})
	dir := repoDir(t, baseRepo())
	var left atomic.Int32
	left.Store(1)
	k := killing{tree(t, dir), wsDir + "/apps.cue", &left}
	f, repo, err := v.Validate(context.Background(), k)
	if err != nil {
		t.Fatal(err)
	}
	if f.Workspaces[wsDir].Unit == nil {
		t.Errorf("one death of a child refuses the workspace:\n%s", all(f, repo))
	}

	v = validator(t, Config{Workers: 1})
	left.Store(2)
	f, repo, err = v.Validate(context.Background(), k)
	if err != nil {
		t.Fatal(err)
	}
	if got := all(f, repo); f.Workspaces[wsDir].Unit != nil || !strings.Contains(got, "the evaluator died twice") {
		t.Errorf("got %s", got)
	}
	// It is no verdict: the next round tries again.
	if v.Again().IsZero() {
		t.Error("nothing says that another round is worth it")
	}
	if f, repo, err = v.Validate(context.Background(), k); err != nil || f.Workspaces[wsDir].Unit == nil {
		t.Errorf("%v %s", err, all(f, repo))
	}
	if !v.Again().IsZero() {
		t.Error("another round is asked for after a good one")
	}
}

func TestCancelled(t *testing.T) {
	v := validator(t, Config{})
	ctx, cancel := context.WithCancel(context.Background())
	var left atomic.Int32
	k := cancelling{tree(t, repoDir(t, baseRepo())), wsDir + "/apps.cue", cancel}
	left.Store(1)
	if _, _, err := v.Validate(ctx, k); err == nil {
		t.Error("no error")
	}
	if f, _, err := v.Validate(context.Background(), k); err != nil || f.Workspaces[wsDir].Unit == nil {
		t.Error("it does not recover", err)
	}
}

type cancelling struct {
	Tree
	file   string
	cancel func()
}

func (c cancelling) ReadFile(name string) ([]byte, error) {
	if name == c.file {
		c.cancel()
	}
	return c.Tree.ReadFile(name)
}
