package console

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"selvedge/schema/hubapi"
)

// chart is the last hour of a figure, or less, for an SVG of 600 by 100 units that is stretched.
type chart struct {
	Title     string
	Line      string // points of polylines, one a gap-free stretch, as a path
	Area      string
	Top       string // the scale's end
	Half      string
	Limit     string // the machine's own, if it is the scale's end
	Now       string
	Most      string
	Label     string // for those who do not see it
	Span, Mid int    // minutes
}

const (
	chartWide = 600
	chartHigh = 100
	chartGap  = 3 * time.Minute // without a sample the line breaks
)

// newChart draws samples up to a limit that is known, or to a round number above the most.
func newChart(title string, samples []hubapi.Sample, now time.Time, limit float64, value func(hubapi.Sample) float64, text func(float64) string) chart {
	samples = slices.DeleteFunc(slices.Clone(samples), func(s hubapi.Sample) bool {
		age := now.Sub(s.Time)
		return age > time.Hour || age < -time.Minute
	})
	c := chart{Title: title, Span: 60}
	for _, m := range []int{30, 10} { // of a node that is new, what there is
		if len(samples) > 0 && now.Sub(samples[0].Time) <= time.Duration(m)*time.Minute {
			c.Span = m
		}
	}
	c.Mid = c.Span / 2
	whole := time.Duration(c.Span) * time.Minute
	most, last := 0.0, 0.0
	for _, s := range samples {
		last = value(s)
		most = math.Max(most, last)
	}
	top := ceiling(most)
	if limit > 0 {
		top = math.Max(limit, most)
		c.Limit = text(limit)
	}
	if top <= 0 {
		top = 1
	}
	c.Top, c.Half, c.Now, c.Most = text(top), text(top/2), text(last), text(most)
	c.Label = fmt.Sprintf("%s over the last %d minutes: now %s, at most %s, of %s", title, c.Span, c.Now, c.Most, c.Top)
	var line, area strings.Builder
	var began, before float64
	open := false
	var at time.Time
	for _, s := range samples {
		x := float64(chartWide) * (1 - max(0, now.Sub(s.Time).Seconds())/whole.Seconds())
		y := float64(chartHigh) * (1 - value(s)/top)
		if open && s.Time.Sub(at) > chartGap {
			fmt.Fprintf(&area, "L%.1f %d L%.1f %d Z", before, chartHigh, began, chartHigh)
			open = false
		}
		if !open {
			fmt.Fprintf(&line, "M%.1f %.1f", x, y)
			fmt.Fprintf(&area, "M%.1f %.1f", x, y)
			began, open = x, true
		} else {
			fmt.Fprintf(&line, "L%.1f %.1f", x, y)
			fmt.Fprintf(&area, "L%.1f %.1f", x, y)
		}
		before, at = x, s.Time
	}
	if open {
		fmt.Fprintf(&area, "L%.1f %d L%.1f %d Z", before, chartHigh, began, chartHigh)
	}
	c.Line, c.Area = line.String(), area.String()
	return c
}

// ceiling is the next of 1, 2, 5 times a power of ten.
func ceiling(f float64) float64 {
	if f <= 0 {
		return 0
	}
	p := math.Pow(10, math.Floor(math.Log10(f)))
	for _, m := range []float64{1, 2, 5} {
		if f <= m*p {
			return m * p
		}
	}
	return 10 * p
}

// spark is a small line without a scale, of 60 by 16 units.
type spark struct{ Line string }

func newSpark(samples []hubapi.Sample) (s spark) {
	if len(samples) < 2 {
		return s
	}
	samples = samples[max(0, len(samples)-60):]
	most := 0.0
	for _, p := range samples {
		most = math.Max(most, p.CPU)
	}
	if most <= 0 {
		most = 1
	}
	var b strings.Builder
	first, last := samples[0].Time, samples[len(samples)-1].Time
	wide := math.Max(1, last.Sub(first).Seconds())
	for i, p := range samples {
		verb := "L"
		if i == 0 {
			verb = "M"
		}
		fmt.Fprintf(&b, "%s%.1f %.1f", verb, 60*p.Time.Sub(first).Seconds()/wide, 15-14*p.CPU/most)
	}
	s.Line = b.String()
	return s
}
