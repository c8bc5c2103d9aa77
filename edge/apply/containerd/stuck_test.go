package containerd_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"selvedge/edge/apply"
	"selvedge/edge/apply/containerd"
)

// A containerd that is stopped takes what it is asked and answers nothing.
func TestAStuckContainerdIsAway(t *testing.T) {
	t.Parallel()
	b := privateBed(t, func(c *containerd.Config) { c.Stall = 2 * time.Second })
	s := b.spec("a", "main")
	i := b.start(t, s)
	if err := b.daemon.Freeze(); err != nil {
		t.Fatal(err)
	}
	thaw := func() {
		if err := b.daemon.Thaw(); err != nil {
			t.Error(err)
		}
	}
	defer thaw() // else it could not be ended
	for what, do := range map[string]func(context.Context) error{
		"look":        func(ctx context.Context) error { _, err := b.Observe(ctx); return err },
		"run command": func(ctx context.Context) error { _, _, err := b.Exec(ctx, i.ID, []string{"/hello"}); return err },
		"stop":        func(ctx context.Context) error { return b.Stop(ctx, i.ID, true) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		err := do(ctx)
		cancel()
		if what == "look" && errors.Is(err, context.DeadlineExceeded) {
			continue // Applier makes that of it
		}
		if !errors.Is(err, apply.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := b.Pull(ctx, b.image); err == nil || ctx.Err() != nil {
		t.Errorf("a pull: %v", err)
	}
	thaw()
	eventually(t, "the container is seen again", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		list, err := b.Observe(ctx)
		return err == nil && len(list) == 1 && list[0].State == apply.Running
	})
}
