package apply

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"selvedge/schema/nodestate"
)

func TestDiff(t *testing.T) {
	want := func(list ...string) []Spec { // app/container=hash
		var out []Spec
		for _, s := range list {
			k, h, _ := strings.Cut(s, "=")
			a, c, _ := strings.Cut(k, "/")
			out = append(out, Spec{App: a, Hash: h, Container: nodestate.Container{Name: c}})
		}
		return out
	}
	have := func(id, s string, st State, gen int64) Instance {
		k, h, _ := strings.Cut(s, "=")
		a, c, _ := strings.Cut(k, "/")
		return Instance{ID: id, App: a, Container: c, Hash: h, State: st, Generation: gen}
	}
	for _, c := range []struct {
		name   string
		want   []Spec
		have   []Instance
		remove string
		keep   string
		start  string
	}{
		{"nothing", nil, nil, "", "", ""},
		{"first", want("a/x=1", "a/y=1"), nil, "", "", "a/x a/y"},
		{"unchanged", want("a/x=1"), []Instance{have("i", "a/x=1", Exited, 1)}, "", "i", ""},
		{"changed", want("a/x=2"), []Instance{have("i", "a/x=1", Running, 1)}, "i", "", "a/x"},
		{"unwanted", nil, []Instance{have("i", "a/x=1", Running, 1)}, "i", "", ""},
		{"of two the running", want("a/x=1"), []Instance{have("i", "a/x=1", Exited, 9), have("j", "a/x=1", Running, 1)}, "i", "j", ""},
		{"of two the paused", want("a/x=1"), []Instance{have("i", "a/x=1", Exited, 9), have("j", "a/x=1", Paused, 1)}, "i", "j", ""},
		{"of two the newer", want("a/x=1"), []Instance{have("i", "a/x=1", Exited, 1), have("j", "a/x=1", Exited, 2)}, "i", "j", ""},
		{"old and new", want("a/x=2"), []Instance{have("i", "a/x=1", Running, 1), have("j", "a/x=2", Created, 2)}, "i", "j", ""},
		{"same name in another app", want("a/x=1", "b/x=1"), []Instance{have("i", "a/x=1", Running, 1)}, "", "i", "b/x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := diff(c.want, c.have)
			var remove, keep, start []string
			for _, i := range p.remove {
				remove = append(remove, i.ID)
			}
			for _, s := range c.want {
				if i, ok := p.keep[s.Key()]; ok {
					keep = append(keep, i.ID)
				}
			}
			for _, k := range p.start {
				start = append(start, k.String())
			}
			got := []string{strings.Join(remove, " "), strings.Join(keep, " "), strings.Join(start, " ")}
			if d := cmp.Diff([]string{c.remove, c.keep, c.start}, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		policy string
		state  State
		code   int
		want   verdict
	}{
		{"always", Absent, 0, bringUp}, {"always", Created, 0, bringUp}, {"always", Paused, 0, bringUp}, {"always", Running, 0, watchIt},
		{"always", Exited, 0, bringUp}, {"always", Lost, 0, bringUp},
		{"on-failure", Exited, 0, finished}, {"on-failure", Exited, 1, bringUp}, {"on-failure", Lost, 0, bringUp},
		{"never", Absent, 0, bringUp}, {"never", Exited, 0, finished}, {"never", Exited, 1, failed}, {"never", Lost, 0, failed},
	} {
		if got := judge(c.policy, c.state, c.code); got != c.want {
			t.Errorf("judge(%s, %s, %d) = %d, want %d", c.policy, c.state, c.code, got, c.want)
		}
	}
}

func TestHash(t *testing.T) {
	base := nodestate.Container{Name: "x", Image: "i", Env: map[string]string{"A": "1", "B": "2"}, Restart: "always"}
	same := base
	same.Env = map[string]string{"B": "2", "A": "1"}
	same.Restart, same.Probe = "never", &nodestate.Probe{}
	if hash("a", base) != hash("a", same) {
		t.Error("probe, policy or the order of a map counts")
	}
	if base.Restart == "" {
		t.Error("hash changed its argument")
	}
	file := base
	file.Files = []nodestate.File{{Path: "/f", Content: "1"}}
	other := base
	other.Files = []nodestate.File{{Path: "/f", Content: "2"}}
	seen := map[string]bool{hash("a", base): true}
	for _, h := range []string{hash("b", base), hash("a", file), hash("a", other)} {
		if seen[h] {
			t.Error("two containers of one hash")
		}
		seen[h] = true
	}
}

func TestRetryAfter(t *testing.T) {
	p := &nodestate.Probe{IntervalMS: 100}
	var got []time.Duration
	var d time.Duration
	for range 6 {
		d = retryAfter(p, d)
		got = append(got, d.Round(time.Millisecond))
	}
	want := []time.Duration{25e6, 38e6, 56e6, 84e6, 100e6, 100e6}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestHTTPAndTCPProbes(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/bad", http.StatusFound)
		case "/bad":
			http.Error(w, "database is away", http.StatusServiceUnavailable)
		case "/slow":
			<-r.Context().Done()
		}
	}))
	defer srv.Close()
	host, ps, _ := net.SplitHostPort(srv.Listener.Addr().String())
	port, _ := strconv.Atoi(ps)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().(*net.TCPAddr).Port
	l.Close()
	p := newProber(nil)
	for _, c := range []struct {
		name  string
		probe nodestate.Probe
		addr  string
		want  string
	}{
		{"ok", nodestate.Probe{HTTP: &nodestate.HTTPProbe{Port: port, Path: "/"}}, host, ""},
		{"redirect is healthy", nodestate.Probe{HTTP: &nodestate.HTTPProbe{Port: port, Path: "/moved"}}, host, ""},
		{"bad", nodestate.Probe{HTTP: &nodestate.HTTPProbe{Port: port, Path: "/bad"}}, host, "503 Service Unavailable: database is away"},
		{"slow", nodestate.Probe{HTTP: &nodestate.HTTPProbe{Port: port, Path: "/slow"}, TimeoutMS: 50}, host, "no answer within 50ms"},
		{"tcp", nodestate.Probe{TCP: &nodestate.TCPProbe{Port: port}}, host, ""},
		{"tcp closed", nodestate.Probe{TCP: &nodestate.TCPProbe{Port: closed}}, host, "refused"},
		{"no address", nodestate.Probe{TCP: &nodestate.TCPProbe{Port: port}}, "", "use an exec probe"},
		{"exec without a runtime that can", nodestate.Probe{Exec: &nodestate.ExecProbe{Command: []string{"true"}}}, host, "use an http or tcp probe"},
		{"empty", nodestate.Probe{}, host, "neither http, tcp nor exec"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := p.probe(t.Context(), Instance{Address: c.addr}, &c.probe)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("probe says %v", err)
			}
		})
	}
}

func TestUnhealthyReads(t *testing.T) {
	err := error(&Unhealthy{Generation: 9, Reasons: []Reason{
		{App: "a", Container: "x", Problem: "exited with code 3", Log: []string{"one", "two"}},
		{App: "b", Container: "y", Problem: "port 80/tcp of the node is taken"}}})
	want := `generation 9 is not healthy: app "a": container "x": exited with code 3 (last printed: "two"); app "b": container "y": port 80/tcp of the node is taken`
	if err.Error() != want {
		t.Errorf("reads %s", err)
	}
	var u *Unhealthy
	if !errors.As(err, &u) {
		t.Error("not found by errors.As")
	}
}
