package show

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf16"

	"go.yaml.in/yaml/v3"
)

// JSON writes a value, indented.
func JSON(w io.Writer, v any) error { return writeJSON(w, v, "  ") }

// Line writes a value as one line of JSON.
func Line(w io.Writer, v any) error { return writeJSON(w, v, "") }

func writeJSON(w io.Writer, v any, indent string) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		return err
	}
	// a terminal may be what reads it
	_, err := w.Write(escaped(b.Bytes(), func(r rune) string {
		high, low := utf16.EncodeRune(r)
		return fmt.Sprintf(`\u%04x\u%04x`, high, low)
	}))
	return err
}

// YAML writes a value with the names that it has in JSON.
func YAML(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	// JSON is YAML, but for some characters that JSON lets stand: read so, the order of
	// members stays
	var n yaml.Node
	beyond := func(r rune) string { return fmt.Sprintf(`\U%08x`, r) }
	if err := yaml.Unmarshal(escaped(b, beyond), &n); err != nil {
		return err
	}
	block(&n)
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(&n); err != nil {
		return err
	}
	_, err = w.Write(escaped(out.Bytes(), beyond))
	return err
}

// escaped escapes, in the strings of JSON, what a terminal acts on, and what YAML does not
// take as it is. Beyond 16 bits the two formats differ.
func escaped(text []byte, beyond func(rune) string) []byte {
	if !bytes.ContainsFunc(text, hidden) {
		return text
	}
	var b bytes.Buffer
	for _, r := range string(text) {
		switch {
		case r < 0x80 && r != 0x7f || !hidden(r): // of others below a space JSON has ends of lines only
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteString(beyond(r))
		}
	}
	return b.Bytes()
}

// block takes the style of JSON away, but for quotes around what is to be escaped.
func block(n *yaml.Node) {
	if len(n.Content) > 0 {
		n.Style &^= yaml.FlowStyle
	}
	if n.Kind == yaml.ScalarNode {
		n.Style = 0
		if strings.ContainsFunc(n.Value, func(r rune) bool { return hidden(r) && r != '\n' }) {
			n.Style = yaml.DoubleQuotedStyle
		}
	}
	for _, c := range n.Content {
		block(c)
	}
}

// Ago is the time since t, in one or two units as kubectl writes it; "" for no time.
func Ago(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return Duration(now.Sub(t))
}

// Duration is a duration in one or two units.
func Duration(d time.Duration) string {
	if d < 0 {
		d = 0
	}
	s := int64(d / time.Second)
	switch {
	case s < 120:
		return fmt.Sprintf("%ds", s)
	case s < 600:
		return two(s/60, "m", s%60, "s")
	case s < 3*3600:
		return fmt.Sprintf("%dm", s/60)
	case s < 8*3600:
		return two(s/3600, "h", s%3600/60, "m")
	case s < 48*3600:
		return fmt.Sprintf("%dh", s/3600)
	case s < 8*86400:
		return two(s/86400, "d", s%86400/3600, "h")
	}
	return fmt.Sprintf("%dd", s/86400)
}

func two(a int64, unit string, b int64, small string) string {
	if b == 0 {
		return fmt.Sprintf("%d%s", a, unit)
	}
	return fmt.Sprintf("%d%s%d%s", a, unit, b, small)
}

// Bytes is an amount of memory or disk.
func Bytes(n int64) string {
	switch {
	case n <= 0:
		return "0"
	case n < 1<<10:
		return fmt.Sprintf("%d", n)
	case n < 10<<20:
		return fmt.Sprintf("%dKi", n>>10)
	case n < 10<<30:
		return fmt.Sprintf("%dMi", n>>20)
	}
	return fmt.Sprintf("%dGi", n>>30)
}

// CPU is processor time in thousandths of a core.
func CPU(cores float64) string { return fmt.Sprintf("%.0fm", cores*1000) }
