package reconciler

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"selvedge/reconciler/feed"
	"selvedge/reconciler/git"
	"selvedge/schema/fleet"
	"selvedge/schema/nodestate"
	"selvedge/schema/roster"
)

// BenchmarkRoster is what hubs cost a pass that changed one node of 10,000: everything between
// a resolved fleet and the events, signing aside.
func BenchmarkRoster(b *testing.B) {
	hubs, err := feed.Open(feed.Config{Path: filepath.Join(b.TempDir(), "roster.db"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer hubs.Close()
	r := New(Config{Feed: hubs, Log: slog.New(slog.DiscardHandler)})
	r.told.nodes = map[string]roster.Node{}
	f := &fleet.Fleet{Workspaces: map[string]*fleet.Source{}, Folders: map[string]*fleet.Source{"": {Unit: &fleet.Unit{Platform: fleet.Platform{Name: "Acme", Engine: 1}}}}}
	const workspaces, nodes = 200, 50
	for w := range workspaces {
		at := fmt.Sprintf("folders/w%d", w)
		u := &fleet.Unit{Platform: fleet.Platform{Name: "Acme", Engine: 1}, Workspace: &fleet.Workspace{Title: at}, Node: map[string]fleet.Node{}, App: map[string]fleet.App{}}
		for a := range 5 {
			u.App[fmt.Sprintf("app-%d", a)] = fleet.App{
				Placement: fleet.Placement{Selector: fleet.Selector{"role": "gateway"}}, Update: fleet.Update{Deadline: "5m"},
				Container: map[string]fleet.Container{"web": {Image: "registry.example/web@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
					Network: "bridge", Restart: "always", Stop: fleet.Stop{Signal: "SIGTERM", Timeout: "10s"}, Log: fleet.Log{MaxSize: "10MiB", MaxFiles: 3}}},
			}
		}
		for n := range nodes {
			raw := make([]byte, 32)
			binary.BigEndian.PutUint64(raw, uint64(w*nodes+n+1))
			key, err := nkeys.Encode(nkeys.PrefixByteUser, raw)
			if err != nil {
				b.Fatal(err)
			}
			u.Node[fmt.Sprintf("gw-%d-%d", w, n)] = fleet.Node{Labels: map[string]string{"role": "gateway", "line": fmt.Sprint(n)}, Identity: &fleet.NodeIdentity{PublicKey: string(key)}}
		}
		f.Workspaces[at] = &fleet.Source{Path: at, ID: at, Unit: u}
	}
	heads := map[string]nodestate.Head{}
	commits := 0
	pass := func() *pass {
		commits++
		p := &pass{commit: &git.Commit{Hash: fmt.Sprint(commits)}, fleet: f, heads: heads}
		if p.result = r.resolver.Resolve(f, r.accepted); len(p.result.Nodes) != workspaces*nodes {
			b.Fatal(p.result.Problems)
		}
		r.accepted = p.result.Accepted
		return p
	}
	p := pass()
	for name, n := range p.result.Nodes {
		heads[name] = nodestate.Head{Generation: 1, ContentDigest: n.Digest}
	}
	if err := r.announce(b.Context(), p); err != nil {
		b.Fatal(err)
	}
	srv := httptest.NewServer(hubs.Handler())
	defer srv.Close()
	res, err := http.Get(srv.URL + roster.Path)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	seen := make(chan time.Time, 1000)
	go func() { // a hub; changes are the last of an event
		for lines := bufio.NewReaderSize(res.Body, roster.MaxEvent); ; {
			line, err := lines.ReadSlice('\n')
			if err != nil {
				return
			}
			if bytes.Contains(line, []byte(`"changes":`)) {
				seen <- time.Now()
			}
		}
	}()
	<-seen
	var took time.Duration
	events := 0
	for i := int64(2); b.Loop(); i++ {
		b.StopTimer()
		at := "folders/w7"
		u := *f.Workspaces[at].Unit
		n := u.Node["gw-7-7"]
		n.Remote.Logs = i%2 == 0
		u.Node["gw-7-7"] = n
		f.Workspaces[at] = &fleet.Source{Path: at, ID: fmt.Sprint(at, i), Unit: &u}
		p := pass()
		heads["gw-7-7"] = nodestate.Head{Generation: i, ContentDigest: p.result.Nodes["gw-7-7"].Digest}
		r.touched["gw-7-7"] = i
		b.StartTimer()
		began := time.Now()
		if err := r.revoke(b.Context(), p); err != nil {
			b.Fatal(err)
		}
		if err := r.announce(b.Context(), p); err != nil {
			b.Fatal(err)
		}
		took += (<-seen).Sub(began)
		events++
	}
	b.ReportMetric(float64(took.Microseconds())/1000/float64(events), "ms/event")
	if e, _, err := hubs.Last(); err != nil || len(e.Nodes) != workspaces*nodes || e.Nodes["gw-7-7"].Generation < 2 {
		b.Error(err, len(e.Nodes))
	}
}
