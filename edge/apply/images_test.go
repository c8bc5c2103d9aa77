package apply_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"selvedge/edge/apply"
	"selvedge/edge/apply/runtimetest"
	"selvedge/edge/verify"
	"selvedge/edge/verify/verifytest"
	"selvedge/schema/nodestate"
)

func pinned(name string) nodestate.Container {
	return ctr(name, func(c *nodestate.Container) {
		c.Image = "r/" + name + "@sha256:" + strings.Repeat("0", 64)
		c.LogBytes, c.LogFiles = 1<<20, 1
	})
}

func none() []verify.State { return nil }

func TestPruneKeepsWhatRunsAndWhatIsKept(t *testing.T) {
	kept := verifytest.State(t, verifytest.Fill(state(app("k", pinned("kept")))), 7)
	image := kept.Desired().Apps[0].Containers[0].Image
	bubble(t, func(t *testing.T, r *rig) {
		for _, i := range []string{image, "old-1", "old-2"} {
			if err := r.fake.Pull(t.Context(), i); err != nil {
				t.Fatal(err)
			}
		}
		r.must(t, state(app("a", ctr("x"))), 1)
		r.must(t, state(app("a", ctr("y"))), 2)
		r.fake.Forget()
		if err := r.Prune(t.Context(), func() []verify.State { return []verify.State{kept, {}} }); err != nil {
			t.Fatal(err)
		}
		calls := r.fake.Calls()
		slices.Sort(calls)
		if !slices.Equal(calls, []string{"prune img-x", "prune old-1", "prune old-2"}) {
			t.Errorf("did %q", calls)
		}
		r.fake.DropImage("img-y")
		if err := r.Prune(t.Context(), none); err != nil {
			t.Fatal(err)
		}
		if calls := r.fake.Calls(); calls[len(calls)-1] != "prune "+image {
			t.Errorf("did %q", calls)
		}
	})
}

// slowPulls is a runtime that has a pull wait until it is let go.
type slowPulls struct {
	*runtimetest.Fake
	begun, goOn chan struct{}
}

func (s slowPulls) Pull(ctx context.Context, image string) error {
	err := s.Fake.Pull(ctx, image)
	s.begun <- struct{}{}
	<-s.goOn
	return err
}

// An image that has come for a state which is not known to anyone yet must not go.
func TestPruneNeverRunsBesideAPull(t *testing.T) {
	s := slowPulls{runtimetest.NewFake(), make(chan struct{}), make(chan struct{})}
	a := apply.New(apply.Config{Runtime: s, FilesDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	next := verifytest.State(t, verifytest.Fill(nodestate.State{Apps: []nodestate.App{app("a", pinned("x"))}}), 1)
	done := make(chan error, 1)
	go func() { done <- a.Prefetch(t.Context(), next) }()
	<-s.begun
	s.Forget()
	asked := false
	if err := a.Prune(t.Context(), func() []verify.State { asked = true; return nil }); err != nil {
		t.Error(err)
	}
	if calls := s.Calls(); asked || len(calls) > 0 {
		t.Errorf("pruned beside a pull: %q", calls)
	}
	close(s.goOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := a.Prune(t.Context(), none); err != nil || len(s.Calls()) != 1 {
		t.Errorf("after it: %v, %q", err, s.Calls())
	}
}
