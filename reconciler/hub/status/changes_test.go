package status

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"selvedge/schema/roster"
	"selvedge/schema/wire"
)

func commit(hash string, at time.Time, nodes map[string]int64, removed ...string) roster.Change {
	return roster.Change{Commit: roster.Commit{Hash: hash, Subject: "s"}, At: at, Nodes: nodes, Removed: removed}
}

func TestProgress(t *testing.T) {
	w := newWorld(t)
	oslo := wanted(7)
	oslo.Workspace = "folders/oslo"
	w.want(map[string]roster.Node{"done": wanted(7), "newer": wanted(7), "failed": wanted(7), "applying": wanted(7), "waiting": wanted(7), "silent": wanted(7), "oslo": oslo, "old": oslo})
	w.Want(false, nil, []string{"old"})
	w.Note("old", wire.Event{Reason: "X"})
	w.Changes([]roster.Change{commit("aaaaaaa1", w.now, map[string]int64{"done": 7, "newer": 7, "failed": 7, "applying": 7, "waiting": 7, "silent": 7, "oslo": 7, "gone": 7}, "old"),
		commit("aaaaaaa2", w.now.Add(time.Second), map[string]int64{"oslo": 8})})
	w.report(good("done", 1, 7, w.now))
	w.report(good("newer", 1, 9, w.now))
	w.report(good("oslo", 1, 7, w.now))
	w.report(good("waiting", 1, 6, w.now))
	s := good("failed", 1, 6, w.now)
	s.State.Pulled.Generation, s.State.Rejected = 7, []wire.Rejected{{Generation: 7}}
	w.report(s)
	s = good("applying", 1, 6, w.now)
	s.State.Pulled.Generation, s.State.Phase = 7, "applying"
	w.report(s)

	c, ok := w.Change("aaaaaaa1", nil)
	if !ok || c.Touched != 7 || c.Done != 3 || c.Failed != 1 || len(c.Nodes) != 7 {
		t.Fatalf("%+v", c)
	}
	want := map[string]string{"done": "done", "newer": "done", "failed": "failed", "applying": "applying", "waiting": "waiting", "silent": "unknown", "oslo": "done"}
	for _, n := range c.Nodes {
		if n.State != want[n.Node] {
			t.Errorf("%s is %s", n.Node, n.State)
		}
	}
	munich := func(w string) bool { return strings.HasPrefix(w, "folders/munich") }
	if c, _ := w.Change("aaaaaaa1", munich); c.Touched != 6 || c.Done != 2 || len(c.Nodes) != 6 {
		t.Errorf("%+v", c)
	}
	if _, ok := w.Change("aaaaaaa2", munich); ok {
		t.Error("a change elsewhere is told")
	}
	if _, ok := w.Change("aaaaaaa", nil); ok {
		t.Error("the start of two")
	}
	if l, err := w.ChangeList(munich, 0, ""); err != nil || len(l.Items) != 1 || l.Total != 1 {
		t.Errorf("%+v %v", l, err)
	}
	w.pass(2 * time.Second)
	w.report(good("waiting", 2, 7, w.now))
	if l, _ := w.ChangeList(nil, 1, ""); l.Items[0].Hash != "aaaaaaa2" || l.Total != 2 || l.Continue == "" {
		t.Errorf("%+v", l)
	} else if l, err := w.ChangeList(nil, 1, l.Continue); err != nil || l.Items[0].Done != 4 || l.Continue != "" {
		t.Errorf("%+v %v", l, err)
	}
	w.restart(false)
	w.want(map[string]roster.Node{"done": wanted(7)})
	w.Changes([]roster.Change{commit("aaaaaaa1", start, map[string]int64{"done": 7}), commit("aaaaaaa2", start.Add(time.Second), nil)}) // told again
	if l, _ := w.ChangeList(nil, 0, ""); len(l.Items) != 2 || l.Items[1].Touched != 1 || l.Items[1].Done != 1 {
		t.Errorf("after a restart: %+v", l)
	}
}

func TestChangeBounds(t *testing.T) {
	w := newWorld(t)
	for i := range 300 {
		w.Changes([]roster.Change{commit(fmt.Sprintf("%040d", i), w.now.Add(time.Duration(i)), map[string]int64{"a": 1})})
	}
	if l, _ := w.ChangeList(nil, 1000, ""); l.Total != changesMost {
		t.Error(l.Total)
	}
	if testing.Short() {
		return
	}
	all := map[string]int64{}
	for i := range 150000 {
		all[fmt.Sprint("gw-", i)] = 1
	}
	for i := range 4 {
		w.Changes([]roster.Change{commit(fmt.Sprintf("b%039d", i), w.now.Add(time.Hour+time.Duration(i)), all)})
	}
	if w.touches > touchesMost || len(w.changes) != 2 {
		t.Error(w.touches, len(w.changes))
	}
	// a commit that comes into force again is the newest
	w.Changes([]roster.Change{commit(w.changes[0].Hash, w.now.Add(2*time.Hour), nil)})
	if l, _ := w.ChangeList(nil, 0, ""); l.Total != 2 || l.Items[0].Hash != fmt.Sprintf("b%039d", 2) || w.touches != 150000 {
		t.Error(l.Total, l.Items[0].Hash, w.touches)
	}
	if err := w.save(false); err != nil {
		t.Fatal(err)
	}
	w.restart(true)
	if len(w.changes) != 2 {
		t.Error(len(w.changes))
	}
}
