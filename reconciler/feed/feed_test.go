package feed

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"selvedge/schema/roster"
)

func open(t testing.TB, c Config) *Feed {
	t.Helper()
	c.Log = slog.New(slog.DiscardHandler)
	if c.Path == "" {
		c.Path = filepath.Join(t.TempDir(), "roster.db")
	}
	f, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func tell(t testing.TB, f *Feed, e roster.Event) {
	t.Helper()
	if err := f.Tell(e); err != nil {
		t.Fatal(err)
	}
}

func last(t testing.TB, f *Feed) roster.Event {
	t.Helper()
	e, ok, err := f.Last()
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	return e
}

func nodes(names ...string) map[string]roster.Node {
	out := map[string]roster.Node{}
	for _, n := range names {
		out[n] = roster.Node{Workspace: "folders/a", PublicKey: "U" + n, Generation: 1}
	}
	return out
}

func whole(names ...string) roster.Event {
	return roster.Event{Reset: true, Trust: "t1", Nodes: nodes(names...), Fleet: &roster.Fleet{
		Platform: "<Acme>", Scopes: map[string]roster.Scope{"": {Kind: "platform"}},
	}}
}

func TestKeeps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "roster.db")
	f := open(t, Config{Path: path})
	if _, ok, err := f.Last(); ok || err != nil {
		t.Fatal("told before anything was", err)
	}
	if err := f.Tell(roster.Event{Nodes: nodes("a")}); err == nil {
		t.Error("a change of nothing was taken")
	}
	e := whole("a", "b", "c")
	e.Changes = []roster.Change{{Commit: roster.Commit{Hash: "1"}, Nodes: map[string]int64{"a": 1}}}
	tell(t, f, e)
	tell(t, f, roster.Event{Trust: "t2", Removed: []string{"b", "unknown"}, Nodes: map[string]roster.Node{"c": {Workspace: "folders/b"}},
		Changes: []roster.Change{{Commit: roster.Commit{Hash: "2"}, Removed: []string{"b"}}}})
	want := last(t, f)
	if len(want.Nodes) != 2 || want.Nodes["c"].PublicKey != "" || want.Trust != "t2" || len(want.Changes) != 2 || want.Fleet.Platform != "<Acme>" || want.Changes[1].Count != 1 {
		t.Errorf("%+v", want)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got := last(t, open(t, Config{Path: path}))
	if !reflect.DeepEqual(got, want) {
		t.Errorf("after a restart\n%+v, want\n%+v", got, want)
	}
}

func TestForgets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "roster.db")
	f := open(t, Config{Path: path})
	e := whole("a")
	for i := range maxChanges {
		e.Changes = append(e.Changes, roster.Change{Commit: roster.Commit{Hash: fmt.Sprint(i)}, Nodes: map[string]int64{"a": int64(i)}})
	}
	tell(t, f, e)
	many := map[string]int64{}
	for i := range maxTouched / 2 {
		many[fmt.Sprintf("node-%d", i)] = int64(i)
	}
	for i := maxChanges; i < maxChanges+10; i++ {
		c := roster.Change{Commit: roster.Commit{Hash: fmt.Sprint(i)}, Nodes: map[string]int64{"a": int64(i)}}
		if i > maxChanges+6 {
			c.Nodes = many
		}
		tell(t, f, roster.Event{Trust: "t1", Changes: []roster.Change{c}})
	}
	want := last(t, f).Changes
	n := len(want)
	if n != maxChanges || want[0].Hash != "10" || want[n-1].Nodes["node-1"] != 1 || want[n-2].Nodes["node-1"] != 1 {
		t.Fatalf("%d changes, from %s", n, want[0].Hash)
	}
	if c := want[n-3]; c.Nodes != nil || c.Count != len(many) {
		t.Errorf("%d names of an old change are kept; count %d", len(c.Nodes), c.Count)
	}
	if f.Close() != nil {
		t.Fatal("close")
	}
	f = open(t, Config{Path: path})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := last(t, open(t, Config{Path: path})).Changes; !reflect.DeepEqual(got, want) {
		t.Error("after a restart other changes are known")
	}
}

func TestDamaged(t *testing.T) {
	for name, spoil := range map[string]func(b []byte) []byte{
		"cut":   func(b []byte) []byte { return b[:len(b)/2] },
		"noise": func(b []byte) []byte { return []byte(strings.Repeat("x", len(b))) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "roster.db")
			f := open(t, Config{Path: path})
			tell(t, f, whole("a"))
			f.Close()
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, spoil(b), 0o600); err != nil {
				t.Fatal(err)
			}
			f = open(t, Config{Path: path})
			if _, ok, _ := f.Last(); ok {
				t.Skip("what is needed of it could still be read")
			}
			if _, err := os.Stat(path + ".damaged"); err != nil {
				t.Error(err)
			}
			tell(t, f, whole("b"))
		})
	}
}

// What the system refuses is no damage of the file, which stays where it is.
func TestNotDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "roster.db")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if f, err := Open(Config{Path: path, Log: slog.New(slog.DiscardHandler)}); err == nil {
		f.Close()
		t.Error("a directory is a roster")
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// reader is a hub that reads event by event.
type reader struct {
	t     testing.TB
	res   *http.Response
	lines *bufio.Reader
}

func connect(t testing.TB, f *Feed) *reader {
	t.Helper()
	s := httptest.NewServer(f.Handler())
	t.Cleanup(s.Close)
	res, err := http.Get(s.URL + roster.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return &reader{t, res, bufio.NewReader(res.Body)}
}

// change reads the events of one change; beats are skipped.
func (r *reader) change() (all []roster.Event) {
	r.t.Helper()
	for {
		b, err := r.lines.ReadBytes('\n')
		if err != nil {
			r.t.Fatal(err)
		}
		if len(b) == 1 {
			continue
		}
		if len(b) > roster.MaxEvent {
			r.t.Fatalf("an event of %d bytes", len(b))
		}
		var e roster.Event
		if err := json.Unmarshal(b, &e); err != nil {
			r.t.Fatal(err)
		}
		if all = append(all, e); !e.More {
			return all
		}
	}
}

func names(all []roster.Event) []string {
	var out []string
	for _, e := range all {
		out = slices.AppendSeq(out, maps.Keys(e.Nodes))
	}
	slices.Sort(out)
	return out
}

func TestStream(t *testing.T) {
	f := open(t, Config{Heartbeat: time.Millisecond})
	early := connect(t, f) // before anything is known
	if b, err := early.lines.ReadString('\n'); b != "\n" || err != nil {
		t.Fatalf("%q, %v: no sign of life", b, err)
	}
	tell(t, f, whole("a", "b"))
	first := early.change()
	if !first[0].Reset || fmt.Sprint(names(first)) != "[a b]" {
		t.Errorf("%+v", first)
	}
	late := connect(t, f)
	if got := late.change(); !got[0].Reset || fmt.Sprint(names(got)) != "[a b]" {
		t.Errorf("%+v", got)
	}
	tell(t, f, roster.Event{Trust: "t1", Nodes: nodes("a", "c")}) // a is as it was
	tell(t, f, roster.Event{Trust: "t1", Nodes: nodes("a")})      // nothing
	tell(t, f, roster.Event{Trust: "t2", Removed: []string{"a"}})
	for _, r := range []*reader{early, late} {
		if got := r.change(); got[0].Reset || fmt.Sprint(names(got)) != "[c]" || got[0].Trust != "" {
			t.Errorf("%+v", got)
		}
		if got := r.change(); len(got) != 2 || got[0].Trust != "t2" || got[1].Removed[0] != "a" {
			t.Errorf("%+v", got)
		}
	}
	if n := f.Hubs(); n != 2 {
		t.Errorf("%d hubs", n)
	}
	f.mu.Lock()
	if len(f.log.lines) > 1 || f.now.nodes["a"] != nil {
		t.Errorf("%d events are kept for nobody", len(f.log.lines))
	}
	f.mu.Unlock()
}

// TestLarge holds that a roster of any size comes in events of a bounded size.
func TestLarge(t *testing.T) {
	f := open(t, Config{})
	e := whole()
	e.Fleet.Identities, e.Fleet.Apps = map[string]roster.Identity{}, map[string][]roster.App{}
	for i := range 3_000 {
		e.Nodes[fmt.Sprintf("node-%d", i)] = roster.Node{Images: []string{strings.Repeat("x", 1000)}}
		e.Fleet.Identities[fmt.Sprintf("id-%d", i)] = roster.Identity{Groups: []string{strings.Repeat("x", 1000)}}
		e.Fleet.Problems = append(e.Fleet.Problems, roster.Problem{Text: strings.Repeat("x", 100)})
	}
	tell(t, f, e)
	got := connect(t, f).change()
	people, problems, fleets := 0, 0, 0
	for _, e := range got {
		if e.Fleet != nil {
			fleets++
			people += len(e.Fleet.Identities)
			problems += len(e.Fleet.Problems)
		}
	}
	if len(names(got)) != 3_000 || people != 3_000 || problems != 3_000 || fleets < 3 {
		t.Errorf("%d nodes, %d identities, %d problems in %d events", len(names(got)), people, problems, len(got))
	}
}

// TestSlow holds that a hub that reads nothing costs a bounded amount of memory, is cut off,
// and keeps nobody else waiting.
func TestSlow(t *testing.T) {
	f := open(t, Config{MaxBehind: 1 << 20})
	tell(t, f, whole("a"))
	slow, quick := connect(t, f), connect(t, f)
	slow.change()
	quick.change()
	big := strings.Repeat("x", 512<<10)
	const rounds = 50 // 25 MiB, which no socket holds
	for i := range rounds {
		tell(t, f, roster.Event{Trust: "t1", Nodes: map[string]roster.Node{"a": {Generation: int64(i + 1), Labels: map[string]string{"l": big}}}})
		if got := quick.change(); got[0].Nodes["a"].Generation != int64(i+1) {
			t.Fatalf("%+v", got[0].Nodes)
		}
		f.mu.Lock()
		if f.log.size > f.cfg.MaxBehind {
			t.Errorf("%d bytes are kept", f.log.size)
		}
		f.mu.Unlock()
	}
	n := 0
	for {
		if _, err := slow.lines.ReadBytes('\n'); err != nil {
			break
		}
		n++
	}
	if n == 0 || n >= rounds {
		t.Errorf("the slow hub got %d events of %d, and was not cut off", n, rounds)
	}
}

func TestDoors(t *testing.T) {
	states := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
	f := open(t, Config{MaxHubs: 1, States: states})
	none := open(t, Config{})
	connect(t, f)
	for _, tt := range []struct {
		feed   *Feed
		method string
		path   string
		want   int
	}{
		{f, "GET", "/v2/nodes/a/manifests/signed", 200}, {none, "GET", "/v2/", 404}, {f, "GET", roster.Path, 503},
		{f, "POST", roster.Path, 405}, {f, "GET", "/", 404}, {f, "GET", "/status", 404},
	} {
		w := httptest.NewRecorder()
		tt.feed.Handler().ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != tt.want {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, w.Code, tt.want)
		}
	}
}

func TestSocket(t *testing.T) {
	dir := t.TempDir()
	for range 2 { // the second time over what a crash left
		l, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		info, err := os.Stat(filepath.Join(dir, Socket))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Error(info.Mode(), err)
		}
	}
	if _, err := Listen(filepath.Join(dir, strings.Repeat("x", 100))); err == nil || !strings.Contains(err.Error(), "choose a shorter") {
		t.Error(err)
	}
}

// TestFull holds that hubs learn of a removal even if nothing can be written.
func TestFull(t *testing.T) {
	f := open(t, Config{})
	tell(t, f, whole("a", "b"))
	r := connect(t, f)
	r.change()
	if err := f.file.close(); err != nil { // as good as a full disk
		t.Fatal(err)
	}
	if err := f.Tell(roster.Event{Trust: "t1", Removed: []string{"a"}}); err == nil {
		t.Error("no error")
	}
	if got := r.change(); len(got) != 1 || got[0].Removed[0] != "a" {
		t.Errorf("%+v", got)
	}
	// there is room again: it is told again, and then kept, with what else was not
	if err := f.Add(roster.Event{Trust: "t1", Nodes: nodes("c"), Changes: []roster.Change{{Commit: roster.Commit{Hash: "1"}}}}); err == nil {
		t.Error("no error")
	}
	if got := r.change(); names(got)[0] != "c" {
		t.Errorf("%+v", got)
	}
	var err error
	if f.file, _, err = openFile(f.cfg.Path, f.cfg.Log); err != nil {
		t.Fatal(err)
	}
	tell(t, f, roster.Event{Trust: "t1", Removed: []string{"a"}})
	want := last(t, f)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := last(t, open(t, Config{Path: f.cfg.Path})); !reflect.DeepEqual(got, want) || len(got.Nodes) != 2 || len(got.Changes) != 1 {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func BenchmarkTell(b *testing.B) {
	f := open(b, Config{})
	e := whole()
	for i := range 10_000 {
		e.Nodes[fmt.Sprintf("node-%d", i)] = roster.Node{Workspace: "folders/a/line-1", Labels: map[string]string{"role": "gateway"}, Images: []string{strings.Repeat("x", 100)}}
	}
	tell(b, f, e)
	r := connect(b, f)
	r.change()
	n := 0
	for b.Loop() {
		n++
		tell(b, f, roster.Event{Trust: "t1", Nodes: map[string]roster.Node{"node-7": {Generation: int64(n)}}})
		r.change()
	}
}
