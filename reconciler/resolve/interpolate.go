package resolve

import (
	"fmt"
	"strings"
)

// fields are what may be put into strings of an app: {{node.name}},
// {{node.workspace}} and {{node.labels.KEY}}.
type fields struct {
	name, workspace string
	labels          map[string]string
}

// get returns the value of a field that parse has accepted.
func (f fields) get(name string) (string, error) {
	switch name {
	case "node.name":
		return f.name, nil
	case "node.workspace":
		return f.workspace, nil
	}
	key := strings.TrimPrefix(name, "node.labels.")
	v, ok := f.labels[key]
	if !ok {
		return "", fmt.Errorf("{{%s}}: the node has no label %q; set it, or place the app by it", name, key)
	}
	return v, nil
}

// template is a string with fields: text[0], field[0], text[1], field[1], …, text[n].
type template struct {
	text  []string
	field []string
}

// parse splits a string at its fields. {{{{ stands for two braces; what replaces a
// field is not looked at again.
func parse(s string) (template, error) {
	var t template
	var text strings.Builder
	for {
		before, rest, ok := strings.Cut(s, "{{")
		text.WriteString(before)
		if !ok {
			t.text = append(t.text, text.String())
			return t, nil
		}
		if after, ok := strings.CutPrefix(rest, "{{"); ok {
			text.WriteString("{{")
			s = after
			continue
		}
		field, after, ok := strings.Cut(rest, "}}")
		if !ok {
			return template{}, fmt.Errorf("{{ without }}; write {{{{ for two braces")
		}
		name := strings.TrimSpace(field)
		if name != "node.name" && name != "node.workspace" && !(strings.HasPrefix(name, "node.labels.") && len(name) > len("node.labels.")) {
			return template{}, fmt.Errorf("unknown field {{%s}}; there are node.name, node.workspace and node.labels.KEY; write {{{{ for two braces", clip(field))
		}
		t.text = append(t.text, text.String())
		t.field = append(t.field, name)
		text.Reset()
		s = after
	}
}

// with puts values in, those of the template's fields by name.
func (t template) with(values map[string]string) string {
	if len(t.field) == 0 {
		return t.text[0]
	}
	var b strings.Builder
	for i, f := range t.field {
		b.WriteString(t.text[i])
		b.WriteString(values[f])
	}
	b.WriteString(t.text[len(t.field)])
	return b.String()
}

func clip(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}
