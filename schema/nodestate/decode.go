package nodestate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds on the form of a state, kept before anything of it is taken into memory.
const (
	maxDepth   = 16      // a state needs 8
	maxObjects = 1 << 16 // JSON objects: what bounds memory, beside the size
)

// Decode returns the state that canonical bytes hold. It is the edge's last line of
// defence: it accepts exactly what Canonical makes, so every state has one form only,
// and refuses unknown and duplicate fields, other versions, and values out of bounds.
func Decode(b []byte) (*State, error) {
	if err := scan(b); err != nil {
		return nil, fmt.Errorf("decode state: %w", err)
	}
	var version struct {
		APIVersion string `json:"apiVersion"`
	}
	// Asked first: the fields of another version would only be said to be unknown.
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, fmt.Errorf("decode state: %w", err)
	}
	if version.APIVersion != APIVersion {
		return nil, fmt.Errorf("decode state: apiVersion is %q; this program knows %q only", clip(version.APIVersion), APIVersion)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	s := new(State)
	if err := dec.Decode(s); err != nil {
		return nil, fmt.Errorf("decode state: %w", err)
	}
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("decode state: %w", err)
	}
	if again := s.append(make([]byte, 0, len(b))); !bytes.Equal(again, b) {
		if name := duplicate(b); name != "" {
			return nil, fmt.Errorf("decode state: field %q is there twice in one object", clip(name))
		}
		return nil, fmt.Errorf("decode state: not in canonical form (RFC 8785, empty fields omitted) %s", differ(again, b))
	}
	return s, nil
}

// scan keeps the bounds on size, depth and count that the JSON decoder does not know.
func scan(b []byte) error {
	if len(b) > MaxStateSize {
		return fmt.Errorf("%d bytes; at most %d are allowed", len(b), MaxStateSize)
	}
	if !utf8.Valid(b) {
		return errors.New("not valid UTF-8")
	}
	depth, objects, quoted := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{', c == '[':
			if depth++; depth > maxDepth {
				return fmt.Errorf("nested deeper than %d levels at byte %d", maxDepth, i)
			}
			if c == '{' {
				if objects++; objects > maxObjects {
					return fmt.Errorf("more than %d objects", maxObjects)
				}
			}
		case c == '}', c == ']':
			depth--
		}
	}
	return nil
}

// duplicate returns the first field name that an object holds twice, or "".
func duplicate(b []byte) string {
	dec := json.NewDecoder(bytes.NewReader(b))
	type level struct {
		names map[string]bool // nil for a list
		name  bool            // the next token is a name
	}
	var stack []level
	for {
		t, err := dec.Token()
		if err != nil {
			return "" // io.EOF: none
		}
		top := len(stack) - 1
		if name, ok := t.(string); ok && top >= 0 && stack[top].name {
			if stack[top].names[name] {
				return name
			}
			stack[top].names[name] = true
			stack[top].name = false
			continue
		}
		switch t {
		case json.Delim('{'):
			stack = append(stack, level{names: map[string]bool{}, name: true})
			continue
		case json.Delim('['):
			stack = append(stack, level{})
			continue
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:top]
			top--
		}
		if top >= 0 && stack[top].names != nil {
			stack[top].name = true // a value is over
		}
	}
}

// differ says where two byte strings begin to differ.
func differ(want, have []byte) string {
	i := 0
	for i < len(want) && i < len(have) && want[i] == have[i] {
		i++
	}
	excerpt := func(b []byte) string {
		if i >= len(b) {
			return "the end"
		}
		return fmt.Sprintf("%q", clip(strings.ToValidUTF8(string(b[i:min(i+24, len(b))]), "?")))
	}
	return fmt.Sprintf("at byte %d: have %s, want %s", i, excerpt(have), excerpt(want))
}

// clip bounds what an error repeats of bytes from outside.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
