package show

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// Movable reports whether w is a terminal on which text can be put in place of other text.
func Movable(w any) bool { return os.Getenv("TERM") != "dumb" && Terminal(w) }

// Rows returns how many lines a terminal shows; 0: nobody knows.
func Rows(w any) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	_, rows, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return rows
}

// Screen returns what a terminal of so many rows is sent to show a text in place of all that
// it shows (ECMA-48, and DEC's mode 7). Of a text that is too high the first lines are shown,
// and how many are not: if it scrolled, the next one would not be in its place. Lines that are
// too wide are cut for that, too.
func Screen(text string, rows int) string {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if most := rows - 1; most > 1 && len(lines) > most { // the cursor stands in the last row
		more := len(lines) - most + 1
		lines = append(lines[:most-1:most-1], fmt.Sprintf("… %d more lines; they need a taller window", more))
	}
	const home, restOfLine, below, cut, wrap = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[?7l", "\x1b[?7h"
	return cut + home + strings.Join(lines, restOfLine+"\n") + restOfLine + "\n" + below + wrap
}
