package backoff

import (
	"testing"
	"time"
)

func TestNextGrowsToMax(t *testing.T) {
	b := Backoff{Min: 100 * time.Millisecond, Max: time.Second}
	for i, want := range []time.Duration{100, 200, 400, 800, 1000, 1000, 1000} {
		want *= time.Millisecond
		if got := b.Next(); got < want/2 || got > want {
			t.Errorf("attempt %d: %v, want between %v and %v", i, got, want/2, want)
		}
	}
	b.Reset()
	if got := b.Next(); got > 100*time.Millisecond {
		t.Errorf("after Reset: %v", got)
	}
}

func TestZeroValue(t *testing.T) {
	var b Backoff
	if got := b.Next(); got < 500*time.Millisecond || got > time.Second {
		t.Errorf("first delay of the zero value: %v, want up to 1 s", got)
	}
	for range 100 {
		if got := b.Next(); got > 5*time.Minute {
			t.Fatalf("delay %v, want at most 5 min", got)
		}
	}
}

func TestJitterOfSmallDurations(t *testing.T) {
	for _, d := range []time.Duration{-1, 0, 1, 2, 3} {
		if got := Jitter(d); got > max(d, 0) && got > d {
			t.Errorf("Jitter(%d) = %d", d, got)
		}
	}
}
