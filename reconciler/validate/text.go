package validate

import (
	"encoding/json"
	"io"

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
