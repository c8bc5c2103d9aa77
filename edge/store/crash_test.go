package store

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"selvedge/edge/verify"
	"selvedge/schema/trust"
	"selvedge/test/env"
)

// script is a life of a store: every kind of transition. The child that is killed and
// the parent that looks at what is left run the same one.
type script struct {
	Seed   string
	Signed [][]byte // generations 1, 2, …
	Docs   [][]byte
}

type seedKey struct {
	pair   nkeys.KeyPair
	public string
}

func (k seedKey) Public() string                { return k.public }
func (k seedKey) Sign(b []byte) ([]byte, error) { return k.pair.Sign(b) }

func newScript(t testing.TB) script {
	t.Helper()
	f := newFleet(t)
	pair, err := nkeys.CreateUser()
	must(t, err)
	seed, err := pair.Seed()
	must(t, err)
	public, _ := pair.PublicKey()
	sc := script{Seed: string(seed)}
	for g := int64(1); g <= 4; g++ {
		d := f.desired(g)
		d.Identity.PublicKey = public
		sc.Signed = append(sc.Signed, f.cloud.Sign(t, d, g))
	}
	f.cloud.Rotate(t)
	sc.Docs = f.cloud.Docs
	return sc
}

func (sc script) key() (seedKey, error) {
	pair, err := nkeys.FromSeed([]byte(sc.Seed))
	if err != nil {
		return seedKey{}, err
	}
	public, err := pair.PublicKey()
	return seedKey{pair, public}, err
}

func (sc script) state(generation int) (verify.State, error) {
	key, err := sc.key()
	if err != nil {
		return verify.State{}, err
	}
	root, err := trust.Parse(sc.Docs[0])
	if err != nil {
		return verify.State{}, err
	}
	return verify.Verifier{Node: "gw-1", PublicKey: key.public, Root: root}.Verify(sc.Signed[generation-1], verify.Floor{}, nil)
}

// ops are the steps of the script; each is told to progress before it begins.
func (sc script) ops(s *Store) []func() error {
	pending := func(g int) func() error {
		return func() error {
			st, err := sc.state(g)
			if err != nil {
				return err
			}
			return s.SetPending(st)
		}
	}
	reject := func() error { return s.Reject(s.Floor().Digest, "probe failed") }
	trial := func() error { _, err := s.Trial(); return err }
	retry := func() error { _, err := s.Retry(""); return err }
	return []func() error{
		func() error { return s.SaveRoot(sc.Docs[:1]) },
		pending(1), s.Activate, trial, s.Commit,
		pending(2), s.Activate, reject,
		func() error { return s.Hold("maintenance") },
		retry, pending(2), s.Activate, s.Commit,
		s.Contact,
		func() error { return s.SaveRoot(sc.Docs) },
		pending(3), reject,
		retry,
		s.Release,
		pending(4), s.Activate, s.Commit,
	}
}

func (sc script) open(dir string, step func(op, name string) error) (*Store, error) {
	key, err := sc.key()
	if err != nil {
		return nil, err
	}
	return Open(Config{Dir: dir, Node: "gw-1", Key: key, Now: testClock, step: step})
}

// trace returns the status before the first and after each operation, and how many
// system calls change something on the way.
func (sc script) trace(t *testing.T) (after []string, calls int) {
	t.Helper()
	s, err := sc.open(filepath.Join(t.TempDir(), "store"), func(string, string) error { calls++; return nil })
	must(t, err)
	defer s.Close()
	after = append(after, statusOf(t, s))
	for i, op := range sc.ops(s) {
		if err := op(); err != nil {
			t.Fatalf("operation %d: %v", i, err)
		}
		after = append(after, statusOf(t, s))
	}
	noProblems(t, s)
	return after, calls
}

func statusOf(t *testing.T, s *Store) string {
	t.Helper()
	b, err := json.Marshal(s.Status())
	must(t, err)
	return string(b)
}

// check opens what is left after operation n broke off, and goes on from there.
func (sc script) check(t *testing.T, dir string, after []string, n int, what string) {
	t.Helper()
	s, err := sc.open(dir, nil)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer s.Close()
	if got := statusOf(t, s); got != after[n] && got != after[n+1] {
		t.Fatalf("%s: the store is at\n%s\nneither at\n%s\nnor at\n%s", what, got, after[n], after[n+1])
	}
	if want := len(s.kept()); len(s.disk.list(statesDir))+len(s.disk.list(trustDir)) > want {
		t.Errorf("%s: orphans are left: %v, %v", what, s.disk.list(statesDir), s.disk.list(trustDir))
	}
	last, err := sc.state(4)
	must(t, err)
	if s.slots.LastGood == last.Digest() {
		return
	}
	if _, err := s.Retry(""); err != nil {
		t.Fatalf("%s: going on: %v", what, err)
	}
	must(t, s.SetPending(last))
	if s.slots.Pending != "" {
		must(t, s.Activate())
	}
	must(t, s.Commit())
	slotsAre(t, s, 4, 0, 4, 4)
	noProblems(t, s)
}

const (
	crashDir = "STORE_CRASH_DIR"
	crashAt  = "STORE_CRASH_AT"
)

// TestMain is the child, too: it kills itself before a given system call.
func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		fmt.Fprintln(os.Stderr, live(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func live(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "script"))
	if err != nil {
		return err
	}
	var sc script
	if err := json.Unmarshal(b, &sc); err != nil {
		return err
	}
	at, err := strconv.Atoi(os.Getenv(crashAt))
	if err != nil {
		return err
	}
	calls := 0
	s, err := sc.open(filepath.Join(dir, "store"), func(string, string) error {
		if calls++; calls == at {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, op := range sc.ops(s) {
		os.Stdout.WriteString(strconv.Itoa(i) + "\n")
		if err := op(); err != nil {
			return err
		}
	}
	return errors.New("it was never killed")
}

// ram returns a directory whose syncs cost nothing, where there is one.
func ram(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "selvedge-store-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// stride is 1 but where that would take too long: the race detector makes all of this
// slow, and finds nothing in what one thread does.
func stride() int {
	if testing.Short() || raceEnabled {
		return 7
	}
	return 1
}

func TestKilledBeforeAnySystemCall(t *testing.T) {
	sc := newScript(t)
	after, calls := sc.trace(t)
	exe, err := os.Executable()
	must(t, err)
	b, err := json.Marshal(sc)
	must(t, err)
	for at := 1; at <= calls; at += stride() {
		dir := ram(t)
		must(t, os.WriteFile(filepath.Join(dir, "script"), b, 0o600))
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), crashDir+"="+dir, crashAt+"="+strconv.Itoa(at))
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("call %d: the child was not killed: %v", at, err)
		}
		n := -1
		for lines := bufio.NewScanner(strings.NewReader(string(out))); lines.Scan(); {
			n, err = strconv.Atoi(lines.Text())
			must(t, err)
		}
		sc.check(t, filepath.Join(dir, "store"), after, n, fmt.Sprintf("killed before call %d, in operation %d", at, n))
		os.RemoveAll(dir)
	}
	t.Logf("%d system calls", calls)
}

// A failing system call is an error or is made up for later, and leaves the state before or after.
func TestAnErrorOfAnySystemCall(t *testing.T) {
	sc := newScript(t)
	after, calls := sc.trace(t)
	for at := 1; at <= calls; at += stride() {
		dir := filepath.Join(ram(t), "store")
		n, broken := 0, ""
		s, err := sc.open(dir, func(op, name string) error {
			if n++; n == at {
				broken = op + " " + name
				return syscall.ENOSPC
			}
			return nil
		})
		must(t, err)
		stopped := -1
		ops := sc.ops(s)
		for i, op := range ops {
			if err := op(); err != nil {
				if stopped = i; !errors.Is(err, syscall.ENOSPC) {
					t.Fatalf("%s: operation %d: %v", broken, i, err)
				}
				break
			}
		}
		must(t, s.Close())
		what := fmt.Sprintf("no space at call %d, %s", at, broken)
		if stopped < 0 { // the floor file, or the sweep
			stopped = len(ops) - 1
		}
		sc.check(t, dir, after, stopped, what)
		os.RemoveAll(dir)
	}
}

func TestAfterAFullDiskAllGoesOn(t *testing.T) {
	sc := newScript(t)
	full := false
	s, err := sc.open(filepath.Join(ram(t), "store"), func(op, name string) error {
		if full && op == "write" {
			return syscall.ENOSPC
		}
		return nil
	})
	must(t, err)
	defer s.Close()
	for _, op := range sc.ops(s)[:7] { // generation 1 is good, 2 is current
		must(t, op())
	}
	full = true
	slotsAre(t, s, 2, 0, 1, 2)
	three, err := sc.state(3)
	must(t, err)
	if err := s.SetPending(three); err == nil || !strings.Contains(err.Error(), "is full; free some space") {
		t.Errorf("set pending: %v", err)
	}
	slotsAre(t, s, 2, 0, 1, 3) // what it grants no more is gone all the same
	// the node goes back although it cannot write it down
	two, _ := s.Current()
	if err := s.Reject(two.Digest(), "probe failed"); err == nil {
		t.Error("reject: no error")
	}
	slotsAre(t, s, 1, 0, 1, 3)
	if !s.Rejected(two.Digest()) {
		t.Error("not rejected")
	}
	full = false
	must(t, s.SetPending(three))
	s.Close()
	s, err = sc.open(s.cfg.Dir, nil)
	must(t, err)
	defer s.Close()
	slotsAre(t, s, 1, 3, 1, 3)
	if !s.Rejected(two.Digest()) {
		t.Error("the rejection was not written with the next transition")
	}
}

func TestARealFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		env.Need(t, errors.New("mounting a small tmpfs needs root"))
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		env.Need(t, fmt.Errorf("mount a small tmpfs: %w", err))
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	f := newFleet(t)
	s := f.open(t, filepath.Join(dir, "store"))
	run(t, s, f.state(t, 1))
	ballast := filepath.Join(dir, "ballast")
	b, err := os.OpenFile(ballast, os.O_CREATE|os.O_WRONLY, 0o600)
	must(t, err)
	for err == nil {
		_, err = b.Write(make([]byte, 1024))
	}
	b.Close()
	if err := s.SetPending(f.state(t, 2)); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "what the node runs stays as it is") {
		t.Fatalf("set pending: %v", err)
	}
	s = f.reopen(t, s)
	slotsAre(t, s, 1, 0, 1, 1)
	noProblems(t, s)
	must(t, os.Remove(ballast))
	run(t, s, f.state(t, 2))
	slotsAre(t, f.reopen(t, s), 2, 0, 2, 2)
}

// Old files that are put back do not start an old state, nor lower the floor.
func TestOldFilesPutBack(t *testing.T) {
	f := newFleet(t)
	build := func(t *testing.T) (*Store, map[string]map[string][]byte) {
		s := f.open(t, filepath.Join(t.TempDir(), "store"))
		copies := map[string]map[string][]byte{}
		for g := int64(1); g <= 4; g++ {
			run(t, s, f.state(t, g))
			copies[fmt.Sprint(g)] = files(t, s.cfg.Dir)
		}
		must(t, s.Close())
		return s, copies
	}
	putBack := func(t *testing.T, dir string, old map[string][]byte, which func(string) bool) {
		for name, b := range old {
			if which(name) {
				must(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
			}
		}
	}
	isSlots := func(n string) bool { return strings.HasPrefix(n, "slots.") }
	isState := func(n string) bool { return strings.HasPrefix(n, statesDir) }
	for _, c := range []struct {
		name    string
		which   func(string) bool
		remove  []string
		current int64
	}{
		{"slots", isSlots, nil, 4},
		{"slots and states", func(n string) bool { return isSlots(n) || isState(n) }, nil, 4},
		{"one slots file", func(n string) bool { return n == "slots.0" }, nil, 4},
		{"the other slots file", func(n string) bool { return n == "slots.1" }, nil, 4},
		{"floor", func(n string) bool { return n == "floor" }, nil, 4},
		{"states, and no slots", isState, []string{"slots.0", "slots.1"}, 4},
		{"states, and no floor", isState, []string{"floor"}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, copies := build(t)
			for _, name := range c.remove {
				must(t, os.Remove(filepath.Join(s.cfg.Dir, name)))
			}
			putBack(t, s.cfg.Dir, copies["1"], c.which)
			s = f.open(t, s.cfg.Dir)
			cur, ok := s.Current()
			if !ok || cur.Generation() != c.current || s.Floor().Generation != 4 {
				t.Errorf("current %d, floor %d; %q", cur.Generation(), s.Floor().Generation, s.Status().Problems)
			}
			if err := s.SetPending(f.state(t, 3)); !errors.Is(err, ErrFloor) {
				t.Errorf("an older state from the registry: %v", err)
			}
			run(t, s, f.state(t, 5))
			s = f.reopen(t, s)
			slotsAre(t, s, 5, 0, 5, 5)
		})
	}
	t.Run("slots, and states instead of newer ones", func(t *testing.T) {
		s, copies := build(t)
		for _, name := range s.disk.list(statesDir) {
			must(t, os.Remove(filepath.Join(s.cfg.Dir, statesDir, name)))
		}
		putBack(t, s.cfg.Dir, copies["1"], func(n string) bool { return isSlots(n) || isState(n) })
		s = f.open(t, s.cfg.Dir)
		slotsAre(t, s, 0, 0, 0, 4)
		if p := strings.Join(s.Status().Problems, "\n"); !strings.Contains(p, "old files were put back") || !strings.Contains(p, "older than any") {
			t.Errorf("problems %s", p)
		}
	})
}

// files returns all files of a store by name.
func files(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	must(t, filepath.Walk(dir, func(name string, fi os.FileInfo, err error) error {
		if err != nil || fi.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		out[rel], err = os.ReadFile(name)
		return err
	}))
	return out
}

// Whatever one file becomes, the store opens, says so, and a state starts.
func TestDamagedFiles(t *testing.T) {
	f := newFleet(t)
	other := newFleet(t)
	foreign := other.open(t, filepath.Join(t.TempDir(), "store"))
	run(t, foreign, other.state(t, 9))
	must(t, foreign.SetPending(other.state(t, 10)))
	planted := files(t, foreign.cfg.Dir)

	damage := map[string]func(b []byte) []byte{
		"empty":     func([]byte) []byte { return nil },
		"truncated": func(b []byte) []byte { return b[:len(b)/2] },
		"a bit":     func(b []byte) []byte { c := slices.Clone(b); c[len(c)/2] ^= 4; return c },
		"last byte": func(b []byte) []byte { c := slices.Clone(b); c[len(c)-2] ^= 1; return c },
		"noise":     func([]byte) []byte { return []byte("\x00\xff\n\n{{{{") },
		"huge":      func([]byte) []byte { return make([]byte, maxState+10) },
	}
	build := func(t *testing.T) *Store {
		s := f.open(t, filepath.Join(ram(t), "store"))
		must(t, s.SaveRoot(f.cloud.Docs))
		run(t, s, f.state(t, 1))
		run(t, s, f.state(t, 2))
		must(t, s.SetPending(f.state(t, 3)))
		must(t, s.Activate())
		must(t, s.Contact())
		must(t, s.Close())
		return s
	}
	check := func(t *testing.T, dir, name string) {
		s := f.open(t, dir)
		cur, ok := s.Current()
		if !ok || cur.Generation() < 2 {
			t.Errorf("current is %d, %v: %q", cur.Generation(), ok, s.Status().Problems)
		}
		if s.Floor().Generation != 3 {
			t.Errorf("floor %d", s.Floor().Generation)
		}
		if len(s.Status().Problems) == 0 && name != "seen" && name != "lock" {
			t.Error("nothing is said about it")
		}
		must(t, s.SaveRoot(f.cloud.Docs))
		run(t, s, f.state(t, 4))
		s = f.reopen(t, s)
		slotsAre(t, s, 4, 0, 4, 4)
	}
	var names []string
	for name := range files(t, build(t).cfg.Dir) {
		names = append(names, strings.SplitN(name, "/", 2)[0])
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		for kind, change := range damage {
			t.Run(name+" "+kind, func(t *testing.T) {
				s := build(t)
				all := files(t, s.cfg.Dir)
				for full, b := range all {
					// of the states, current: its name changes from run to run
					if full == name || name == trustDir && strings.HasPrefix(full, name) || name == statesDir && full == file(statesDir, s.slots.Current) {
						must(t, os.WriteFile(filepath.Join(s.cfg.Dir, full), change(b), 0o600))
					}
				}
				check(t, s.cfg.Dir, name)
			})
		}
		t.Run(name+" of another key", func(t *testing.T) {
			s := build(t)
			if name == statesDir || name == trustDir {
				for full, b := range planted {
					if strings.HasPrefix(full, statesDir) {
						must(t, os.WriteFile(filepath.Join(s.cfg.Dir, file(name, s.slots.Current)), b, 0o600))
					}
				}
				if name == trustDir {
					must(t, os.WriteFile(filepath.Join(s.cfg.Dir, file(name, s.slots.Trust)), []byte(`["e30="]`), 0o600))
				}
			} else if b, ok := planted[name]; ok {
				must(t, os.WriteFile(filepath.Join(s.cfg.Dir, name), b, 0o600))
			} else {
				t.Skip("it has none")
			}
			check(t, s.cfg.Dir, name)
		})
	}
	for name, plant := range map[string]func(string) error{
		"a directory":      func(p string) error { return os.Mkdir(p, 0o700) },
		"a pipe":           func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"a link elsewhere": func(p string) error { return os.Symlink("/etc/passwd", p) },
		"an endless link":  func(p string) error { return os.Symlink("/dev/zero", p) },
	} {
		t.Run(name, func(t *testing.T) {
			s := build(t)
			p := filepath.Join(s.cfg.Dir, file(statesDir, s.slots.Current))
			must(t, os.Remove(p))
			must(t, plant(p))
			opened := make(chan *Store, 1)
			go func() { opened <- f.open(t, s.cfg.Dir) }()
			select {
			case s = <-opened:
			case <-time.After(time.Minute):
				t.Fatal("the store does not open")
			}
			slotsAre(t, s, 2, 0, 2, 3)
		})
	}
}

// A revoked signer must not stop a site at boot.
func TestAStateStartsAfterItsSignerWasRevoked(t *testing.T) {
	f := newFleet(t)
	s := f.open(t, filepath.Join(t.TempDir(), "store"))
	st := f.state(t, 1)
	run(t, s, st)
	f.cloud.Rotate(t)
	must(t, s.SaveRoot(f.cloud.Docs))
	s = f.reopen(t, s)
	slotsAre(t, s, 1, 0, 1, 1)
	_, err := f.cloud.Verifier(st.Desired()).Verify(st.Raw(), s.Floor(), s.Rejected)
	var e *verify.Error
	if !errors.As(err, &e) || e.Reason != verify.WrongKey {
		t.Errorf("over the network: %v", err)
	}
}

func FuzzOpenSlots(f *testing.F) {
	fl := newFleet(f)
	good, err := seal(fl.key, kindSlots, slots{Node: "gw-1", Sequence: 3})
	must(f, err)
	f.Add(good)
	f.Add([]byte("\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := openSlots(fl.key.Public(), "gw-1", data); err == nil && s.Sequence != 3 {
			t.Fatalf("opened %+v", s)
		}
		// what the key sealed may still be nonsense, of another version
		wrapped, err := seal(fl.key, kindSlots, json.RawMessage(data))
		if err == nil {
			openSlots(fl.key.Public(), "gw-1", wrapped)
			openFloor(fl.key.Public(), "gw-1", wrapped)
		}
	})
}
