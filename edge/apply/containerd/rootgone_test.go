package containerd_test

import "testing"

// A container whose snapshot was removed is made anew, since it can never start again.
func TestStartWithoutItsSnapshot(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	s := b.spec("web", "main", published(port(t)))
	was := b.start(t, s)
	if err := b.Stop(t.Context(), was.ID, true); err != nil {
		t.Fatal(err)
	}
	b.ctr(t, "snapshots", "rm", was.ID)
	now := b.start(t, s)
	if now.ID == was.ID {
		t.Errorf("the same container %s runs", now.ID)
	}
	answers(t, url(s.Container.Ports[0].Host, "/"), "version v1")
	if i := b.one(t, s); i.ID != now.ID { // and is the only one
		t.Errorf("%+v", i)
	}
}
