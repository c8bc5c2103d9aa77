package store

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"selvedge/edge/verify"
	"selvedge/edge/verify/verifytest"
	"selvedge/schema/nodestate"
)

// fleet makes states for one node.
type fleet struct {
	cloud *verifytest.Cloud
	key   *verifytest.Key
}

func newFleet(t testing.TB) fleet {
	return fleet{verifytest.NewCloud(t), verifytest.NewKey(t)}
}

func (f fleet) desired(generation int64) nodestate.State {
	return verifytest.Fill(nodestate.State{
		Identity: nodestate.Identity{PublicKey: f.key.Public()},
		Remote:   nodestate.Remote{Logs: true, Exec: generation%2 == 0}, // part of every floor
		Apps: []nodestate.App{{Name: "web", DeadlineMS: generation, Containers: []nodestate.Container{{
			Name: "web", Image: "registry.example/web@sha256:" + strings.Repeat("a", 64),
			Network: "bridge", Restart: "always", StopSignal: "SIGTERM", StopMS: 1000, LogBytes: 1024, LogFiles: 1,
		}}}},
	})
}

func (f fleet) state(t testing.TB, generation int64) verify.State {
	t.Helper()
	d := f.desired(generation)
	s, err := f.cloud.Verifier(d).Verify(f.cloud.Sign(t, d, generation), verify.Floor{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testClock() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

func (f fleet) open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(Config{Dir: dir, Node: "gw-1", Key: f.key, Now: testClock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// reopen closes the store and opens it again, as after a restart.
func (f fleet) reopen(t testing.TB, s *Store) *Store {
	t.Helper()
	s.Close()
	return f.open(t, s.cfg.Dir)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run brings a state through to last-good.
func run(t testing.TB, s *Store, st verify.State) {
	t.Helper()
	must(t, s.SetPending(st))
	must(t, s.Activate())
	must(t, s.Commit())
}

// slotsAre compares generations: current, pending, last-good, floor; 0 is empty.
func slotsAre(t testing.TB, s *Store, current, pending, lastGood, floor int64) {
	t.Helper()
	gen := func(st verify.State, ok bool) int64 {
		if ok == st.IsZero() {
			t.Fatal("ok and zero at once")
		}
		return st.Generation()
	}
	got := [4]int64{gen(s.Current()), gen(s.Pending()), gen(s.LastGood()), s.Floor().Generation}
	if want := [4]int64{current, pending, lastGood, floor}; got != want {
		t.Fatalf("current, pending, last-good, floor are %v, want %v; %v", got, want, s.Status().Problems)
	}
}

func noProblems(t testing.TB, s *Store) {
	t.Helper()
	if p := s.Status().Problems; len(p) > 0 {
		t.Fatalf("problems: %q", p)
	}
}

func TestAStateGoesThroughItsSlotsAndSurvivesRestarts(t *testing.T) {
	f := newFleet(t)
	s := f.open(t, filepath.Join(t.TempDir(), "store"))
	steps := []struct {
		name                       string
		do                         func() error
		current, pending, last, fl int64
	}{
		{"empty", func() error { return nil }, 0, 0, 0, 0},
		{"pending", func() error { return s.SetPending(f.state(t, 5)) }, 0, 5, 0, 5},
		{"active", func() error { return s.Activate() }, 5, 0, 0, 5},
		{"good", func() error { return s.Commit() }, 5, 0, 5, 5},
		{"next pending", func() error { return s.SetPending(f.state(t, 7)) }, 5, 7, 5, 7},
		{"a newer one instead", func() error { return s.SetPending(f.state(t, 8)) }, 5, 8, 5, 8},
		{"next active", func() error { return s.Activate() }, 8, 0, 5, 8},
		{"failed", func() error { return s.Reject(s.Floor().Digest, "port taken") }, 5, 0, 5, 8},
		{"mended", func() error { return s.SetPending(f.state(t, 9)) }, 5, 9, 5, 9},
		{"mended active", func() error { return s.Activate() }, 9, 0, 5, 9},
		{"mended good", func() error { return s.Commit() }, 9, 0, 9, 9},
		{"again good", func() error { return s.Commit() }, 9, 0, 9, 9},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		slotsAre(t, s, step.current, step.pending, step.last, step.fl)
		s = f.reopen(t, s)
		slotsAre(t, s, step.current, step.pending, step.last, step.fl)
		noProblems(t, s)
	}
	if cur, _ := s.Current(); cur.Desired().Apps[0].DeadlineMS != 9 {
		t.Error("another content came back")
	}
	if n := len(s.disk.list(statesDir)); n > 2 {
		t.Errorf("%d states are left; the sweep keeps those of two slots files", n)
	}
}

func TestTransitionsOfEmptySlots(t *testing.T) {
	f := newFleet(t)
	s := f.open(t, filepath.Join(t.TempDir(), "store"))
	if err := s.Activate(); !errors.Is(err, ErrEmpty) {
		t.Errorf("activate: %v", err)
	}
	if err := s.Commit(); !errors.Is(err, ErrEmpty) {
		t.Errorf("commit: %v", err)
	}
	if err := s.SetPending(verify.State{}); err == nil {
		t.Error("no state was kept")
	}
	if err := s.SetPending(newFleet(t).state(t, 1)); err == nil {
		t.Error("a state for another key was kept")
	}
	if err := s.Reject("nonsense", ""); err == nil {
		t.Error("nonsense was rejected")
	}
}

func TestTheFloorNeverFalls(t *testing.T) {
	f := newFleet(t)
	s := f.open(t, filepath.Join(t.TempDir(), "store"))
	run(t, s, f.state(t, 10))
	if err := s.SetPending(f.state(t, 9)); !errors.Is(err, ErrFloor) {
		t.Errorf("an older one: %v", err)
	}
	other := f.desired(11)
	again, err := f.cloud.Verifier(other).Verify(f.cloud.Sign(t, other, 10), verify.Floor{}, nil)
	must(t, err)
	if err := s.SetPending(again); !errors.Is(err, ErrFloor) {
		t.Errorf("another one of the same generation: %v", err)
	}
	must(t, s.SetPending(f.state(t, 12)))
	must(t, s.Reject(s.Floor().Digest, "does not start"))
	slotsAre(t, f.reopen(t, s), 10, 0, 10, 12)
}

// The floor tells what the newest state grants after that state has gone, too, and learns it if
// an older agent did not note it.
func TestTheFloorGrants(t *testing.T) {
	f := newFleet(t)
	s := f.open(t, filepath.Join(t.TempDir(), "store"))
	grants := func(want nodestate.Remote) {
		t.Helper()
		if got := s.Floor().Remote; got != want {
			t.Fatalf("the floor grants %+v, want %+v", got, want)
		}
	}
	run(t, s, f.state(t, 10))
	grants(nodestate.Remote{Logs: true, Exec: true})
	s.floor.Floor.Remote, s.slots.Floor.Remote = nodestate.Remote{}, nodestate.Remote{}
	must(t, s.SetPending(f.state(t, 10)))
	must(t, s.commit(s.next()))
	s = f.reopen(t, s)
	grants(nodestate.Remote{Logs: true, Exec: true})
	must(t, s.SetPending(f.state(t, 11)))
	must(t, s.Reject(s.Floor().Digest, "does not start"))
	grants(nodestate.Remote{Logs: true})
	s = f.reopen(t, s)
	slotsAre(t, s, 10, 0, 10, 11)
	grants(nodestate.Remote{Logs: true})
}

func TestAFailedGenerationIsRetriedOnlyByHandOrUnderAHigherOne(t *testing.T) {
	f := newFleet(t)
	s := f.open(t, filepath.Join(t.TempDir(), "store"))
	run(t, s, f.state(t, 1))
	bad := f.state(t, 2)
	must(t, s.SetPending(bad))
	must(t, s.Activate())
	must(t, s.Reject(bad.Digest(), "probe failed"))
	if err := s.SetPending(bad); !errors.Is(err, ErrRejected) || !s.Rejected(bad.Digest()) {
		t.Errorf("again: %v", err)
	}
	if r := s.Status().Rejected; len(r) != 1 || r[0].Reason != "probe failed" || r[0].Generation != 2 || !r[0].At.Equal(testClock()) {
		t.Errorf("rejected %+v", r)
	}
	s = f.reopen(t, s)
	if any, err := s.Retry(bad.Digest()); !any || err != nil {
		t.Errorf("retry: %v, %v", any, err)
	}
	if any, err := s.Retry(bad.Digest()); any || err != nil {
		t.Errorf("retry again: %v, %v", any, err)
	}
	run(t, s, bad)
	slotsAre(t, f.reopen(t, s), 2, 0, 2, 2)
	if err := s.Reject(bad.Digest(), "late"); err == nil {
		t.Error("last-good was rejected")
	}
}

func TestRejectionsAreBounded(t *testing.T) {
	f := newFleet(t)
	s := f.open(t, filepath.Join(t.TempDir(), "store"))
	for i := range maxRejected + 5 {
		must(t, s.Reject(nodestate.Digest([]byte{byte(i)}), strings.Repeat("long", maxReason)))
	}
	s = f.reopen(t, s)
	r := s.Status().Rejected
	if len(r) != maxRejected || r[0].Digest != nodestate.Digest([]byte{5}) || len(r[0].Reason) > maxReason+8 {
		t.Errorf("%d rejections, the first %+.80v", len(r), r[0])
	}
}

func TestTrialsCountUntilTheStateIsGood(t *testing.T) {
	f := newFleet(t)
	s := f.open(t, filepath.Join(t.TempDir(), "store"))
	must(t, s.SetPending(f.state(t, 1)))
	must(t, s.Activate())
	for want := 1; want <= 3; want++ {
		if n, err := s.Trial(); n != want || err != nil || s.Good() {
			t.Fatalf("trial %d, %v", n, err)
		}
		s = f.reopen(t, s)
	}
	must(t, s.Commit())
	if n, err := s.Trial(); n != 0 || err != nil || !s.Good() {
		t.Errorf("trial of a good state: %d, %v", n, err)
	}
}

func TestHoldAndReleaseBesideTheProcess(t *testing.T) {
	f := newFleet(t)
	dir := filepath.Join(t.TempDir(), "store")
	s := f.open(t, dir)
	must(t, Hold(dir, f.key, "maintenance", testClock()))
	if h, ok := s.Held(); !ok || h.Reason != "maintenance" || !h.Since.Equal(testClock()) {
		t.Errorf("hold %+v, %v", h, ok)
	}
	s = f.reopen(t, s)
	if _, ok := s.Held(); !ok {
		t.Error("the hold did not survive")
	}
	bad := f.state(t, 1)
	must(t, s.SetPending(bad))
	must(t, s.Reject(bad.Digest(), "no"))
	must(t, Release(dir, "gw-1", f.key))
	asked, err := os.ReadFile(filepath.Join(dir, "retry"))
	must(t, err)
	if _, ok := s.Held(); ok {
		t.Error("still held")
	}
	if ok, err := s.TakeRetry(); !ok || err != nil || s.Rejected(bad.Digest()) {
		t.Errorf("retry %v, %v", ok, err)
	}
	if ok, err := s.TakeRetry(); ok || err != nil {
		t.Errorf("retry twice: %v, %v", ok, err)
	}
	// put back, the request is about a rejection that is no more
	must(t, s.SetPending(bad))
	must(t, s.Reject(bad.Digest(), "no"))
	must(t, os.WriteFile(filepath.Join(dir, "retry"), asked, 0o600))
	if ok, err := s.TakeRetry(); ok || err != nil || !s.Rejected(bad.Digest()) {
		t.Errorf("an old request was granted: %v, %v", ok, err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "hold"), []byte(`{"reason":"planted"}`), 0o600))
	if _, ok := s.Held(); ok {
		t.Error("a planted hold holds")
	}
}

func TestRootDocumentsNeverGoBack(t *testing.T) {
	f := newFleet(t)
	s := f.open(t, filepath.Join(t.TempDir(), "store"))
	if _, ok := s.Root(); ok {
		t.Error("root documents in an empty store")
	}
	first := f.cloud.Docs[:1]
	must(t, s.SaveRoot(first))
	f.cloud.Rotate(t)
	must(t, s.SaveRoot(f.cloud.Docs))
	s = f.reopen(t, s)
	if docs, ok := s.Root(); !ok || len(docs) != 2 || string(docs[1]) != string(f.cloud.Docs[1]) {
		t.Errorf("%d documents, %v", len(docs), ok)
	}
	if err := s.SaveRoot(first); !errors.Is(err, ErrFloor) {
		t.Errorf("an older chain: %v", err)
	}
	if err := s.SaveRoot([][]byte{[]byte("{}")}); err == nil {
		t.Error("nonsense was kept")
	}
	if s.Status().TrustVersion != 2 {
		t.Errorf("status %+v", s.Status())
	}
}

func TestTimeDoesNotGoBackBehindTheLastContact(t *testing.T) {
	f := newFleet(t)
	now := testClock()
	cfg := Config{Dir: filepath.Join(t.TempDir(), "store"), Node: "gw-1", Key: f.key, Now: func() time.Time { return now }}
	s, err := Open(cfg)
	must(t, err)
	must(t, s.Contact())
	must(t, s.Close())
	now = time.Unix(0, 0) // the battery is gone
	s, err = Open(cfg)
	must(t, err)
	defer s.Close()
	if !s.Now().Equal(testClock()) || !s.Status().LastContact.Equal(testClock()) {
		t.Errorf("now is %v", s.Now())
	}
	run(t, s, f.state(t, 3)) // no clock decides about a state
	slotsAre(t, s, 3, 0, 3, 3)
}

func TestOneProcessAtATime(t *testing.T) {
	f := newFleet(t)
	dir := filepath.Join(t.TempDir(), "store")
	s := f.open(t, dir)
	_, err := Open(Config{Dir: dir, Node: "gw-1", Key: f.key})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "is selvedge-edge running already?") {
		t.Errorf("second open: %v", err)
	}
	run(t, s, f.state(t, 4))
	st, err := Read(dir, "gw-1", f.key.Public())
	if err != nil || st.Current == nil || st.Current.Generation != 4 || st.LastGood == nil || len(st.Problems) > 0 {
		t.Errorf("read beside it: %+v, %v", st, err)
	}
	if _, err := Read(filepath.Join(dir, "none"), "gw-1", f.key.Public()); err == nil {
		t.Error("a store that is not there was read")
	}
}

func TestFilesArePrivate(t *testing.T) {
	f := newFleet(t)
	dir := filepath.Join(t.TempDir(), "store")
	s := f.open(t, dir)
	run(t, s, f.state(t, 1))
	must(t, s.SaveRoot(f.cloud.Docs))
	must(t, s.Contact())
	must(t, s.Hold("x"))
	filepath.Walk(dir, func(name string, fi os.FileInfo, err error) error {
		want := os.FileMode(0o600)
		if fi.IsDir() {
			want = 0o700
		}
		if fi.Mode().Perm() != want {
			t.Errorf("%s has mode %v", name, fi.Mode())
		}
		return err
	})
	s.Close()
	os.Chmod(dir, 0o755)
	if _, err := Open(Config{Dir: dir, Node: "gw-1", Key: f.key}); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("an open directory: %v", err)
	}
}

func TestStatusIsJSON(t *testing.T) {
	f := newFleet(t)
	s := f.open(t, filepath.Join(t.TempDir(), "store"))
	run(t, s, f.state(t, 1))
	b, err := json.Marshal(s.Status())
	if err != nil || !strings.Contains(string(b), `"current":{"generation":1,`) {
		t.Errorf("%s, %v", b, err)
	}
}

func BenchmarkUpdate(b *testing.B) {
	f := newFleet(b)
	s := f.open(b, filepath.Join(b.TempDir(), "store"))
	states := make([]verify.State, 200)
	for i := range states {
		states[i] = f.state(b, int64(i+1))
	}
	i := 0
	for b.Loop() {
		if i == len(states) {
			b.StopTimer()
			s.Close()
			s = f.open(b, filepath.Join(b.TempDir(), "store"))
			i = 0
			b.StartTimer()
		}
		run(b, s, states[i]) // three transitions and one content
		i++
	}
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return b
}
