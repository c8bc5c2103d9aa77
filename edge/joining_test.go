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

// A node that Git lists no more joins anew with the key that it has, unless it has a name to keep.
func TestJoinAnew(t *testing.T) {
	b, h := joined(t)
	j, err := edge.Join(t.Context(), b.cfg.Dir, b.options(h, "used"))
	if err != nil || j.Node != "gw-1" {
		t.Fatalf("%+v, %v", j, err)
	}
	forget := func() {
		h.Lock()
		defer h.Unlock()
		delete(h.Nodes, j.PublicKey)
	}
	name := func() string {
		s, err := edge.LoadSettings(b.cfg.Dir)
		if err != nil {
			t.Fatal(err)
		}
		return s.Node
	}
	forget()
	if _, err := edge.Join(t.Context(), b.cfg.Dir, b.options(h, "used")); err == nil || !strings.Contains(err.Error(), "refuses the join token") || name() != "gw-1" {
		t.Errorf("%v; it is %q", err, name())
	}
	again := b.join(h)
	if again.Node != "" || again.Code != "CODE-2" || again.PublicKey != j.PublicKey || name() != "" {
		t.Fatalf("%+v; it is %q", again, name())
	}
	h.Approve(j.PublicKey, "gw-1")
	b.start()
	b.publish(1, app("a", "1"))
	b.good(1)
	forget()
	h.Lock()
	h.Tokens["t"] = true
	h.Unlock()
	_, err = edge.Join(t.Context(), b.cfg.Dir, b.options(h, "t"))
	if err == nil || !strings.Contains(err.Error(), "--name gw-1") || name() != "gw-1" || !h.Tokens["t"] {
		t.Errorf("%v; it is %q", err, name())
	}
	h.Approve(j.PublicKey, "gw-2")
	if _, err = edge.Join(t.Context(), b.cfg.Dir, b.options(h, "t")); err == nil || !strings.Contains(err.Error(), "the name stays") {
		t.Error(err)
	}
}

// A node that was set up by hand, for a registry, gets the hubs of a line.
func TestJoinByHand(t *testing.T) {
	b, h := withHub(t)
	s := edge.Settings{Node: "gw-1", Registry: "https://registry.example", Prefix: "eu"}
	public, err := edge.Init(b.cfg.Dir, s, b.cloud.Docs[0])
	if err != nil {
		t.Fatal(err)
	}
	h.Approve(public, "gw-1")
	j, err := edge.Join(t.Context(), b.cfg.Dir, b.options(h, "not needed"))
	if err != nil || j.Node != "gw-1" || j.PublicKey != public {
		t.Fatalf("%+v, %v", j, err)
	}
	got, err := edge.LoadSettings(b.cfg.Dir)
	if err != nil || len(got.Hubs) != 1 || got.Hubs[0] != h.URL || got.HubCA == "" || got.Registry != s.Registry || got.Prefix != s.Prefix || got.Node != "gw-1" {
		t.Errorf("%+v, %v", got, err)
	}
}
