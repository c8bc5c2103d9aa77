package fleet

import (
	"testing"
	"time"

	"selvedge/schema/hubapi"
	"selvedge/test/swarm"
)

// TestReady needs nodes that connect to be seen, with what they report.
func TestReady(t *testing.T) {
	b := newBed(t, 5)
	b.swarm(swarm.Config{Interval: time.Second})
	b.until(30*time.Second, "all nodes to be connected", func() bool {
		s, err := b.client("ana").Summary(t.Context())
		return err == nil && s.Nodes == 5 && s.Status[hubapi.Unknown] == 0
	})
	n := b.node("node-3")
	if !n.Connected || n.Report == nil || n.Report.Machine.Hostname != "node-3" {
		t.Errorf("%+v", n)
	}
}
