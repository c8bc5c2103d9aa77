package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxDepth bounds the nesting of manifests, bundles and statements: they need 6.
const maxDepth = 16

// unmarshal decodes JSON that readers must not be able to understand differently: one
// value, no unknown name, and what unambiguous asks for.
func unmarshal(b []byte, v any) error {
	if err := unambiguous(b); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("more follows the JSON value")
	}
	return nil
}

// unambiguous refuses bad UTF-8, deep nesting, and names that are there twice in an
// object, whatever their case: encoding/json ignores case, by Unicode's rules for letters
// beyond ASCII, and takes the last. Whether the rest is JSON is for the decoder to say.
func unambiguous(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("not valid UTF-8")
	}
	depth := 0
	var names [maxDepth + 1]map[string]bool // of the objects that are open; nil: a list
	key := false                            // the next string is a name
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '{', '[':
			if depth++; depth > maxDepth {
				return fmt.Errorf("nested deeper than %d levels at byte %d", maxDepth, i)
			}
			if key = b[i] == '{'; key {
				names[depth] = map[string]bool{}
			} else {
				names[depth] = nil
			}
		case '}', ']':
			if depth--; depth < 0 {
				return fmt.Errorf("unexpected %q at byte %d", b[i], i)
			}
			key = false
		case ',':
			key = names[depth] != nil
		case '"':
			end := stringEnd(b, i+1)
			if end < 0 {
				return errors.New("unexpected end of a string")
			}
			if key {
				name := string(b[i+1 : end])
				if strings.Contains(name, `\`) {
					if err := json.Unmarshal(b[i:end+1], &name); err != nil {
						return err
					}
				}
				if strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) {
					return fmt.Errorf("name %.40q is not ASCII", name)
				}
				if name = strings.ToLower(name); names[depth][name] {
					return fmt.Errorf("name %.40q is there twice in one object", name)
				}
				names[depth][name] = true
				key = false
			}
			i = end
		}
	}
	return nil
}

// stringEnd returns the index of the quote that ends the string whose content starts at i.
func stringEnd(b []byte, i int) int {
	for {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return -1
		}
		slashes := 0
		for j := i + n - 1; j >= i && b[j] == '\\'; j-- {
			slashes++
		}
		i += n
		if slashes%2 == 0 {
			return i
		}
		i++
	}
}
