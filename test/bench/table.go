package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// table is printed with its columns aligned.
type table struct {
	head []string
	rows [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print(out io.Writer) {
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{t.head}, t.rows...) {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	w.Flush()
}

// ratio is ours by theirs: below 1 is faster, or smaller.
func ratio[T ~int64 | ~float64](ours, theirs T) string {
	if theirs == 0 {
		return "-"
	}
	r := float64(ours) / float64(theirs)
	if r < 0.1 {
		return fmt.Sprintf("%.3f", r)
	}
	return fmt.Sprintf("%.2f", r)
}

func ms(d time.Duration) string {
	if d >= 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	if d >= time.Second {
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f ms", float64(d)/1e6)
}

func mb(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }

// sample is what was measured, several times.
type sample []time.Duration

func (s sample) sorted() sample { return slices.Sorted(slices.Values(s)) }

func (s sample) median() time.Duration {
	o := s.sorted()
	if len(o) == 0 {
		return 0
	}
	return (o[(len(o)-1)/2] + o[len(o)/2]) / 2
}

// spread is the least and the most.
func (s sample) spread() string {
	o := s.sorted()
	if len(o) < 2 {
		return "once"
	}
	return ms(o[0]) + " to " + ms(o[len(o)-1]) + fmt.Sprintf(" of %d", len(o))
}
