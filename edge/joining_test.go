package edge_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"selvedge/edge"
	"selvedge/schema/nodestate"
	"selvedge/schema/wire"
)

// A hub that is busy, or goes away in the midst, is asked again as long as there is patience;
// what will not get better is not.
func TestJoinWaits(t *testing.T) {
	b, h := withHub(t)
	h.Tokens["t"] = true
	h.Before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != wire.PathJoin || h.Count(wire.PathJoin) > 2 {
			return false
		}
		if h.Count(wire.PathJoin) == 2 {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	o := b.options(h, "t")
	if _, err := edge.Join(t.Context(), b.cfg.Dir, o); err == nil || !strings.Contains(err.Error(), "503") {
		t.Fatalf("without patience: %v", err)
	}
	h.Lock()
	h.Asked[wire.PathJoin] = 0
	h.Unlock()
	var pauses []time.Duration
	o.Patience, o.Delayed = time.Minute, func(err error, pause time.Duration) { pauses = append(pauses, pause) }
	j, err := edge.Join(t.Context(), b.cfg.Dir, o)
	if err != nil || j.Code != "CODE-1" || len(pauses) < 2 || pauses[0] <= time.Second {
		t.Errorf("%+v, %v; %v", j, err, pauses)
	}
	for _, change := range []func(*edge.JoinOptions){
		func(o *edge.JoinOptions) { o.Pin = nodestate.Digest([]byte("x")) },
		func(o *edge.JoinOptions) { o.Fingerprint = nodestate.Digest([]byte("x")) },
	} {
		o := b.options(h, "t")
		o.Patience, o.Delayed = time.Minute, func(err error, _ time.Duration) { t.Error("asked again after", err) }
		change(&o)
		if _, err := edge.Join(t.Context(), t.TempDir(), o); err == nil {
			t.Error("no error")
		}
	}
}
