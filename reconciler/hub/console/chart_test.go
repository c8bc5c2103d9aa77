package console

import (
	"strings"
	"testing"
	"time"

	"selvedge/schema/hubapi"
)

func cpu(s hubapi.Sample) float64 { return s.CPU }

func TestChart(t *testing.T) {
	now := time.Unix(1.8e9, 0)
	at := func(minutes int, v float64) hubapi.Sample {
		return hubapi.Sample{Time: now.Add(-time.Duration(minutes) * time.Minute), CPU: v}
	}
	c := newChart("CPU", []hubapi.Sample{at(90, 9), at(60, 1), at(59, 2), at(30, 1), at(29, 4), at(0, 0)}, now, 4, cpu, cores)
	if c.Line != "M0.0 75.0L10.0 50.0M300.0 75.0L310.0 0.0M600.0 100.0h-3" || c.Span != 60 || c.Top != "4" || c.Half != "2" || c.Now != "0" || c.Most != "4" {
		t.Errorf("gaps break the line, and what is old does not count: %+v", c)
	}
	if strings.Count(c.Area, "Z") != 3 {
		t.Errorf("%s", c.Area)
	}
	c = newChart("CPU", []hubapi.Sample{at(8, 0.3), at(0, 0.3)}, now, 0, cpu, cores)
	if c.Span != 10 || c.Top != "0.50" {
		t.Errorf("a new node has a shorter span, and no limit a round one: %+v", c)
	}
	for _, odd := range [][]hubapi.Sample{nil, {at(0, 0)}, {at(-5, 1)}, {at(5, 0), at(4, 0)}} {
		if c := newChart("CPU", odd, now, 0, cpu, cores); strings.Contains(c.Line+c.Area+c.Top, "NaN") || strings.Contains(c.Line, "Inf") {
			t.Errorf("%v: %+v", odd, c)
		}
		if s := newSpark(odd); strings.Contains(s.Line, "NaN") {
			t.Errorf("%v: %+v", odd, s)
		}
	}
	if c := newChart("CPU", []hubapi.Sample{at(49, 2), at(48, 3)}, now, 4, cpu, cores); c.Now != "–" || c.Last != "last: 3, 48 min ago" || !strings.Contains(c.Label, c.Last) {
		t.Errorf("what a node used before it went off is not what it uses now: %+v", c)
	}
	if c := newChart("CPU", []hubapi.Sample{at(90, 1)}, now, 4, cpu, cores); c.Line != "" || c.Now != "–" {
		t.Errorf("there is no figure in the last hour: %+v", c)
	}
	if s := newSpark([]hubapi.Sample{at(60, 2), at(59, 2), at(30, 1), at(1, 2), at(0, 2)}); strings.Count(s.Line, "M") != 3 || strings.Count(s.Line, "h-3") != 1 {
		t.Errorf("gaps break the small line, too, and a sample alone is a dash: %+v", s)
	}
}
