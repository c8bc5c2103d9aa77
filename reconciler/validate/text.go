package validate

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"

	"selvedge/schema/fleet"
)

// WriteText writes problems for people, one a line.
func WriteText(w io.Writer, problems []fleet.Problem) error {
	for _, p := range problems {
		if _, err := io.WriteString(w, p.String()+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// WriteJSON writes problems as one JSON array.
func WriteJSON(w io.Writer, problems []fleet.Problem) error {
	if problems == nil {
		problems = []fleet.Problem{} // an array, not null
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(problems)
}

const maxMessage = 2000 // bytes

// printable makes a problem fit for a terminal: names and values in it are those of
// whoever wrote the repo.
func printable(p fleet.Problem) fleet.Problem {
	p.File, p.Kind, p.Name, p.Message = clean(p.File), clean(p.Kind), clean(p.Name), clean(p.Message)
	return p
}

func clean(s string) string {
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "") + "…"
	}
	if !strings.ContainsFunc(s, unprintable) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unprintable(r) {
			fmt.Fprintf(&b, "\\u%04x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool { return r != ' ' && !unicode.IsPrint(r) }
