package show

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// Colour is how a cell looks on a terminal.
type Colour string

// The colours.
const (
	Plain  Colour = ""
	Green  Colour = "32"
	Yellow Colour = "33"
	Red    Colour = "31"
	Dim    Colour = "2"
	Bold   Colour = "1"
)

// Cell is one field of a table. Its text may be of anybody.
type Cell struct {
	Text   string
	Colour Colour
}

// Table is lines of cells under a heading.
type Table struct {
	Heading []string // empty: none
	Rows    [][]Cell
}

// Add adds a row of plain cells.
func (t *Table) Add(cells ...any) {
	row := make([]Cell, len(cells))
	for i, c := range cells {
		switch c := c.(type) {
		case Cell:
			row[i] = c
		case string:
			row[i] = Cell{Text: c}
		}
	}
	t.Rows = append(t.Rows, row)
}

const (
	gap  = 3   // spaces between columns
	none = "-" // in an empty cell
)

// Write writes the table. Empty cells are shown as "-".
func (t *Table) Write(w io.Writer, colours bool) error {
	width := make([]int, len(t.Heading))
	rows := make([][]Cell, 0, len(t.Rows)+1)
	if len(t.Heading) > 0 {
		head := make([]Cell, len(t.Heading))
		for i, h := range t.Heading {
			head[i] = Cell{h, Bold}
		}
		rows = append(rows, head)
	}
	for _, r := range t.Rows {
		clean := make([]Cell, len(r))
		for i, c := range r {
			clean[i] = Cell{Text(c.Text), c.Colour}
			if c.Text == "" {
				clean[i].Text = none
			}
		}
		rows = append(rows, clean)
	}
	for _, r := range rows {
		for i, c := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(c.Text))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		for i, c := range r {
			b.WriteString(Paint(c.Text, c.Colour, colours))
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", width[i]+gap-utf8.RuneCountInString(c.Text)))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Columns makes lines that are printed one by one stand below each other.
type Columns struct{ width []int }

// maxFilled bounds how far a cell pushes those behind it to the right, for good.
const maxFilled = 48

// Fill fills the cells of a table up to the widest of all tables so far, but for the last ones
// of its rows, and takes the heading away.
func (c *Columns) Fill(t *Table) {
	widen := func(i int, text string) {
		if i == len(c.width) {
			c.width = append(c.width, 0)
		}
		c.width[i] = max(c.width[i], min(utf8.RuneCountInString(text), maxFilled))
	}
	for i, h := range t.Heading {
		widen(i, h)
	}
	t.Heading = nil
	for _, r := range t.Rows {
		for i := range len(r) - 1 {
			text := cmp.Or(Text(r[i].Text), none)
			widen(i, text)
			r[i].Text = fmt.Sprintf("%-*s", c.width[i], text)
		}
	}
}

// Paint puts a colour around text that is clean already.
func Paint(s string, c Colour, colours bool) string {
	if !colours || c == Plain || s == "" {
		return s
	}
	return "\x1b[" + string(c) + "m" + s + "\x1b[0m"
}

// Terminal reports whether w is one.
func Terminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Colours reports whether w wants them: a terminal, and NO_COLOR (https://no-color.org) is
// not set.
func Colours(w any) bool {
	return os.Getenv("NO_COLOR") == "" && Movable(w)
}
