package edge_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

func (b *bed) scrape() string {
	b.Helper()
	rec := httptest.NewRecorder()
	b.agent.Metrics().ServeHTTP(rec, httptest.NewRequestWithContext(b.Context(), "GET", "/metrics", nil))
	if rec.Code != 200 {
		b.Fatalf("%d: %s", rec.Code, rec.Body)
	}
	return rec.Body.String()
}

func (b *bed) measures(lines ...string) {
	b.Helper()
	got := ""
	b.until(strings.Join(lines, ", "), func() bool {
		got = b.scrape()
		for _, l := range lines {
			if !strings.Contains(got, "selvedge_agent_"+l+"\n") {
				return false
			}
		}
		return true
	})
}

// Monitors see what happens to the node, from before it has a name.
func TestMetrics(t *testing.T) {
	b, h := withHub(t)
	j := b.join(h)
	b.start()
	b.measures("uplink_connected 0", "generation{kind=\"running\"} 0", "runtime_up 0")
	if got := b.scrape(); strings.Contains(got, "node_info") {
		t.Error("a node without a name has one")
	}
	h.Approve(j.PublicKey, "gw-1")
	b.sign1(nodestate.Remote{}, 1, app("a", "1"))
	b.good(1)
	b.measures("uplink_connected 1", `generation{kind="last-good"} 1`, `node_info{node="gw-1"} 1`, "runtime_up 1", "well 1", `phase{phase="idle"} 1`, "containers 1", "rollbacks_total 0", "requests_denied_total 0")
	h.Conn.Publish(wire.RequestSubject("gw-1", wire.VerbRestart), []byte(`{"app":"a","by":"eve"}`))
	b.publish(2, app("a", "2", failing))
	h.Conn.Publish(wire.RequestSubject("gw-1", wire.VerbNotice), []byte(`{"generation":2}`))
	b.rejected(2)
	b.measures("rollbacks_total 1", `generation{kind="newest"} 2`, `generation{kind="running"} 1`, "well 0", "requests_denied_total 1", "pull_errors_total 0")
	h.Lock()
	h.Nodes = map[string]string{}
	clear(h.Bearers)
	h.Unlock()
	b.until("errors to be counted", func() bool { b.wake(); return !strings.Contains(b.scrape(), "pull_errors_total 0\n") })
}

// A report may be asked for at any moment, also of an agent that never ran or is being renamed.
func TestReportAtAnyTime(t *testing.T) {
	b, h := withHub(t)
	j := b.join(h)
	b.start()
	b.until("it to wait", func() bool { return b.status().Running })
	if s := b.agent.Report(); s.Node != "" || s.Well || !strings.Contains(s.Why, "let in") || s.Machine.Arch == "" || s.Agent.Runtime == "" {
		t.Errorf("%+v", s)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func(report func() wire.Status) {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				report()
			}
		}
	}(b.agent.Report)
	h.Approve(j.PublicKey, "wrong")
	b.until("the wrong name", func() bool { return b.status().Node == "wrong" })
	h.Lock()
	h.Nodes[j.PublicKey] = "gw-1"
	clear(h.Bearers)
	h.Unlock()
	b.publish(1, app("a", "1"))
	b.until("the right name", func() bool { b.wake(); return b.status().Node == "gw-1" })
	b.good(1)
	close(stop)
	<-ended
	if s := b.agent.Report(); !s.Well || s.Node != "gw-1" {
		t.Errorf("%+v", s)
	}
}
