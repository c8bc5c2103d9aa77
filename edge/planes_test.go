package edge_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"selvedge/edge"
	"selvedge/edge/hubtest"
	"selvedge/edge/mirror"
	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

// beside is a node that pulls from a registry and has a hub beside it.
func beside(t *testing.T) (*bed, *hubtest.Hub) {
	t.Helper()
	b, h := withHub(t)
	public, err := edge.Init(b.cfg.Dir, edge.Settings{Node: "gw-1", Registry: b.front.URL, Prefix: "eu", Hubs: []string{h.URL}, HubPin: h.Pin}, b.cloud.Docs[0])
	if err != nil {
		t.Fatal(err)
	}
	b.key = public
	h.Approve(public, "gw-1")
	return b, h
}

// life is what must go its way whatever a hub does: a state, an update, a rollback.
func (b *bed) life(first int64) {
	b.Helper()
	b.sign1(nodestate.Remote{Logs: true, Exec: true, Restart: true}, first, app("a", fmt.Sprint(first)))
	b.good(first)
	b.publish(first+1, app("a", "next"))
	b.good(first + 1)
	b.publish(first+2, app("a", "bad", failing))
	b.rejected(first + 2)
	b.until("the last good state to run", func() bool { return b.runs("a", "next") })
}

// A hub that answers never, slowly or with nonsense changes and delays nothing of what the node runs.
func TestHubThatDoesNotAnswer(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
	for name, before := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"never":        hang,
		"never on bus": func(w http.ResponseWriter, r *http.Request) bool { return r.URL.Path == wire.PathBus && hang(w, r) },
		"drop by drop": func(w http.ResponseWriter, r *http.Request) bool {
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte(" ")); err != nil {
					break
				}
				http.NewResponseController(w).Flush()
				time.Sleep(10 * time.Millisecond)
			}
			return true
		},
		"nonsense": func(w http.ResponseWriter, _ *http.Request) bool {
			w.Write([]byte(strings.Repeat("{", 100_000)))
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, h := beside(t)
			h.Lock()
			h.Before = before
			h.Unlock()
			b.start()
			b.life(1)
			if b.status().Hub.Connected {
				t.Error("it is connected")
			}
		})
	}
}

// A bus that is flooded with all that a hub may say, and with what it may not, holds no state up.
func TestFloodOnTheBus(t *testing.T) {
	b, h := beside(t)
	b.cfg.Fallback = 50 * time.Millisecond // the registry tells nobody of changes
	b.start()
	b.until("the live connection", func() bool { return b.status().Hub.Connected })
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		big := []byte(`{"app":"` + strings.Repeat("a", 60_000) + `"}`)
		restart, _ := json.Marshal(wire.RestartRequest{App: "nobody", By: "eve"})
		logs, _ := json.Marshal(wire.LogsRequest{App: "a", By: "eve", Stream: "s", Window: 1, Follow: true})
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			for verb, m := range map[string][]byte{wire.VerbNotice: []byte(`{"generation":99}`), wire.VerbReport: nil, wire.VerbRestart: restart, wire.VerbLogs: logs,
				wire.VerbExec: big, "s.s": []byte(`{"credit":1}`), "what": big[:100]} {
				h.Conn.PublishRequest(wire.RequestSubject("gw-1", verb), "n.none", m)
			}
			if n%20 == 0 {
				h.Conn.Flush()
			}
		}
	}()
	for first := int64(1); first <= 4; first += 3 {
		b.life(first)
	}
	close(stop)
	<-ended
	b.halt() // fails if it does not end
	if n := strings.Count(b.log.String(), "does not allow it"); n == 0 || n > 5 {
		t.Errorf("%d times the same was logged", n)
	}
}

// Who restarts an app that is on trial does not have it taken back.
func TestRestartDuringATrial(t *testing.T) {
	b, h := beside(t)
	b.cfg.Fallback = 50 * time.Millisecond
	b.start()
	all := nodestate.Remote{Restart: true}
	b.sign1(all, 1, app("a", "1"))
	b.good(1)
	b.until("the live connection", func() bool { return b.status().Hub.Connected })
	ask := func() string {
		m, err := h.Conn.Request(wire.RequestSubject("gw-1", wire.VerbRestart), []byte(`{"by":"ana","app":"a"}`), patience)
		if err != nil {
			t.Fatal(err)
		}
		var a wire.Answer
		json.Unmarshal(m.Data, &a)
		if a.Error == nil {
			return ""
		}
		return a.Error.Code + ": " + a.Error.Message
	}
	b.sign1(all, 2, app("a", "2", func(a *nodestate.App) {
		failing(a)
		a.DeadlineMS = 5000
	}))
	b.until("the trial", func() bool { s := b.status(); return s.Update.Phase == edge.Applying && s.Update.Generation == 2 })
	if got := ask(); !strings.HasPrefix(got, wire.CodeBusy) || !strings.Contains(got, "generation 2 is on trial") {
		t.Errorf("%s", got)
	}
	b.rejected(2)
	b.until("a restart", func() bool { return ask() == "" })
}

// A hub that gives a node names by turns does not keep it busy.
func TestNamesByTurns(t *testing.T) {
	b, h := withHub(t)
	j := b.join(h)
	h.Approve(j.PublicKey, "n0")
	h.Before = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == wire.PathToken {
			h.Lock()
			h.Nodes[j.PublicKey] = fmt.Sprint("n", h.Asked[wire.PathToken])
			h.Unlock()
		}
		return false
	}
	b.start()
	b.until("some names", func() bool { return h.Count(wire.PathToken) >= 3 })
	began, asked := time.Now(), h.Count(wire.PathToken)
	time.Sleep(2 * time.Second) // how often is the question
	if n, took := h.Count(wire.PathToken)-asked, time.Since(began); float64(n) > 3*took.Seconds() {
		t.Errorf("%d names in %v", n, took)
	}
}

// A node that has no hub any more pulls its images past the hub that it had.
func TestMirrorsOfNoHub(t *testing.T) {
	b := newBed(t)
	b.cfg.HostsDir = filepath.Join(t.TempDir(), "certs.d")
	if err := mirror.Write(b.cfg.HostsDir, mirror.Via{Hub: "https://hub.example", Bearer: "old"}, []string{"registry.example"}); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.until("no settings of a hub", func() bool {
		_, err := os.Stat(filepath.Join(b.cfg.HostsDir, "registry.example"))
		return errors.Is(err, fs.ErrNotExist)
	})
}
