package console

import (
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"selvedge/schema/hubapi"
)

// chart is the last hour of a figure, or less, for an SVG of 600 by 100 units that is stretched.
type chart struct {
	Title     string
	Line      string // points of polylines, one a gap-free stretch, as a path; empty: no figures
	Area      string
	Top       string // the scale's end
	Half      string
	Limit     string // the machine's own, if it is the scale's end
	Now       string // a dash if nothing came lately
	Last      string // then, what came last, and when
	Most      string
	Label     string // for those who do not see it
	Span, Mid int    // minutes
}

const (
	chartWide = 600
	chartHigh = 100
	chartGap  = 3 * time.Minute // without a sample the line breaks, and the last one is not what is now
)

// newChart draws samples up to a limit that is known, or to a round number above the most.
func newChart(title string, samples []hubapi.Sample, now time.Time, limit float64, value func(hubapi.Sample) float64, text func(float64) string) chart {
	samples = slices.DeleteFunc(slices.Clone(samples), func(s hubapi.Sample) bool {
		age := now.Sub(s.Time)
		return age > time.Hour || age < -time.Minute
	})
	c := chart{Title: title, Span: 60, Now: "–"}
	if len(samples) == 0 {
		return c
	}
	for _, m := range []int{30, 10} { // of a node that is new, what there is
		if now.Sub(samples[0].Time) <= time.Duration(m)*time.Minute {
			c.Span = m
		}
	}
	c.Mid = c.Span / 2
	whole := time.Duration(c.Span) * time.Minute
	most := 0.0
	for _, s := range samples {
		most = math.Max(most, value(s))
	}
	top := ceiling(most)
	if limit > 0 {
		top = math.Max(limit, most)
		c.Limit = text(limit)
	}
	if top <= 0 {
		top = 1
	}
	c.Top, c.Half, c.Most = text(top), text(top/2), text(most)
	last := samples[len(samples)-1]
	is := "now " + text(value(last))
	if now.Sub(last.Time) <= chartGap {
		c.Now = text(value(last))
	} else {
		c.Last = "last: " + text(value(last)) + ", " + ago(now, last.Time)
		is = c.Last
	}
	c.Label = fmt.Sprintf("%s over the last %d minutes: %s, at most %s, of %s", title, c.Span, is, c.Most, c.Top)
	x := func(s hubapi.Sample) float64 {
		return float64(chartWide) * (1 - max(0, now.Sub(s.Time).Seconds())/whole.Seconds())
	}
	y := func(s hubapi.Sample) float64 { return float64(chartHigh) * (1 - value(s)/top) }
	for part := range stretches(samples) {
		line := polyline(part, x, y)
		c.Line += line
		c.Area += fmt.Sprintf("%sL%.1f %d L%.1f %d Z", line, x(part[len(part)-1]), chartHigh, x(part[0]), chartHigh)
	}
	return c
}

// stretches yields samples in a row, without a gap.
func stretches(samples []hubapi.Sample) iter.Seq[[]hubapi.Sample] {
	return func(yield func([]hubapi.Sample) bool) {
		from := 0
		for i := range samples {
			if i > from && samples[i].Time.Sub(samples[i-1].Time) > chartGap {
				if !yield(samples[from:i]) {
					return
				}
				from = i
			}
		}
		if from < len(samples) {
			yield(samples[from:])
		}
	}
}

// polyline is the path through samples. One alone is a short dash, so that it is seen.
func polyline(samples []hubapi.Sample, x, y func(hubapi.Sample) float64) string {
	var b strings.Builder
	for i, s := range samples {
		verb := "L"
		if i == 0 {
			verb = "M"
		}
		fmt.Fprintf(&b, "%s%.1f %.1f", verb, x(s), y(s))
	}
	if len(samples) == 1 {
		b.WriteString("h-3")
	}
	return b.String()
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
	first, last := samples[0].Time, samples[len(samples)-1].Time
	wide := math.Max(1, last.Sub(first).Seconds())
	x := func(p hubapi.Sample) float64 { return 60 * p.Time.Sub(first).Seconds() / wide }
	y := func(p hubapi.Sample) float64 { return 15 - 14*p.CPU/most }
	for part := range stretches(samples) {
		s.Line += polyline(part, x, y)
	}
	return s
}
