package world

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestUntilInterrupted holds that who is interrupted did not wait in vain.
func TestUntilInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&World{}).Until(ctx, time.Hour, "the moon", func() bool { return false }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
