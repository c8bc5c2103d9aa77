package bus

import (
	"testing"
	"time"
)

// TestTakeovers tells a link that breaks again and again from two machines.
func TestTakeovers(t *testing.T) {
	const long = 20 * time.Minute
	for _, c := range []struct {
		every []time.Duration // in turn
		want  int             // alarms in that time
	}{
		{[]time.Duration{2 * time.Second}, 4},
		{[]time.Duration{15 * time.Second}, 4},
		{[]time.Duration{2 * time.Second, time.Minute}, 4}, // a thief who comes seldom, and whom the node puts out at once
		{[]time.Duration{2 * time.Second, 4 * time.Minute}, 1},
		{[]time.Duration{40 * time.Second}, 0},
		{[]time.Duration{time.Minute}, 0},
		{[]time.Duration{2 * time.Second, 10 * time.Minute}, 0},
	} {
		all, now, alarms := contests{}, time.Now(), 0
		swept := now
		for i, end := 0, now.Add(long); now.Before(end); i++ {
			if all.over("a", now) {
				alarms++
			}
			now = now.Add(c.every[i%len(c.every)])
			for ; now.Sub(swept) >= sweepTime; swept = swept.Add(sweepTime) {
				all.sweep(swept)
			}
		}
		if alarms != c.want {
			t.Errorf("taken over every %v: %d alarms, not %d", c.every, alarms, c.want)
		}
		all.sweep(now.Add(takeoverTime + time.Second))
		if len(all) != 0 {
			t.Errorf("taken over every %v: remembered for ever", c.every)
		}
	}
}

// TestTakeoversAreBounded: a machine that connects without a pause fills no memory.
func TestTakeoversAreBounded(t *testing.T) {
	all, now := contests{}, time.Now()
	for i := range 10_000 {
		all.over("a", now.Add(time.Duration(i)*time.Millisecond))
	}
	if n := len(all["a"].quick); n > takeovers {
		t.Errorf("%d are kept", n)
	}
}
