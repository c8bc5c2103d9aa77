package main

import (
	"testing"
	"time"

	"selvedge/reconciler/hub/client"
	"selvedge/schema/hubapi"
	"selvedge/schema/wire"
)

// TestChosen: a watch tells more than was asked for, and things again.
func TestChosen(t *testing.T) {
	now := time.Now()
	e := hubapi.Event{Node: "gw-1", Received: now.Add(-time.Hour), Event: wire.Event{Severity: "warning", Reason: "Restarting", App: "web", Message: "It fell over"}}
	for _, c := range []struct {
		q    client.EventQuery
		want bool
	}{
		{client.EventQuery{}, true},
		{client.EventQuery{Node: "gw-1", App: "web", Reason: "Restarting", Severity: "warning", Search: "FELL"}, true},
		{client.EventQuery{Since: now.Add(-2 * time.Hour)}, true},
		{client.EventQuery{Since: now.Add(-time.Minute)}, false},
		{client.EventQuery{Node: "gw-2"}, false},
		{client.EventQuery{App: "db"}, false},
		{client.EventQuery{Reason: "Ready"}, false},
		{client.EventQuery{Severity: "error"}, false},
		{client.EventQuery{Search: "rose"}, false},
	} {
		if got := chosen(c.q, e); got != c.want {
			t.Errorf("%+v: %v", c.q, got)
		}
	}
}
