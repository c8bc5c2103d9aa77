package resolve

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
)

// What can become of a node between two results.
const (
	Added   = "added"
	Removed = "removed"
	Changed = "changed"
	IsHeld  = "held"
)

// Change is what becomes of one node.
type Change struct {
	Node      string  `json:"node"`
	Workspace string  `json:"workspace"`
	Kind      string  `json:"kind"`             // added, removed, changed or held
	Why       string  `json:"why,omitempty"`    // of a held node
	Fields    []Field `json:"fields,omitempty"` // of a changed node, sorted by path
}

// Field is one difference between two states.
type Field struct {
	// Path names the entities on the way, such as apps.hmi.containers.web.env.SITE.
	Path string `json:"path"`
	// Before and After are JSON, or text of several lines for a file; empty where there
	// was or is nothing.
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// Diff returns which nodes change from one result to another, sorted by node. A nil
// result stands for a platform without nodes. A held node is no difference when it was
// held before.
func Diff(before, after *Result) []Change {
	if before == nil {
		before = &Result{}
	}
	if after == nil {
		after = &Result{}
	}
	var out []Change
	for name, b := range before.Nodes {
		a, ok := after.Nodes[name]
		switch {
		case ok && a.Digest == b.Digest:
		case ok:
			out = append(out, Change{Node: name, Workspace: a.Workspace, Kind: Changed, Fields: fieldsOf(b.Bytes(), a.Bytes())})
		default:
			if _, held := after.Held[name]; !held {
				out = append(out, Change{Node: name, Workspace: b.Workspace, Kind: Removed})
			}
		}
	}
	for name, a := range after.Nodes {
		if _, ok := before.Nodes[name]; !ok {
			if _, was := before.Held[name]; was {
				// What it held is not known here: the state may be new and may be the old one.
				out = append(out, Change{Node: name, Workspace: a.Workspace, Kind: Changed})
				continue
			}
			out = append(out, Change{Node: name, Workspace: a.Workspace, Kind: Added})
		}
	}
	for name, h := range after.Held {
		if _, was := before.Held[name]; !was {
			out = append(out, Change{Node: name, Workspace: h.Workspace, Kind: IsHeld, Why: h.Why})
		}
	}
	for name, h := range before.Held {
		_, rendered := after.Nodes[name]
		if _, held := after.Held[name]; !rendered && !held {
			out = append(out, Change{Node: name, Workspace: h.Workspace, Kind: Removed})
		}
	}
	slices.SortFunc(out, func(a, b Change) int { return strings.Compare(a.Node, b.Node) })
	return out
}

// String is the text form: a line for the node, and one or two for each field.
func (c Change) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s (%s)", c.Node, c.Kind, c.Workspace)
	if c.Why != "" {
		b.WriteString(": " + c.Why)
	}
	for _, f := range c.Fields {
		b.WriteString("\n  " + f.Path + ":")
		if !strings.Contains(f.Before+f.After, "\n") {
			switch {
			case f.Before == "":
				b.WriteString(" + " + f.After)
			case f.After == "":
				b.WriteString(" - " + f.Before)
			default:
				b.WriteString(" " + f.Before + " → " + f.After)
			}
			continue
		}
		for _, l := range lineDiff(f.Before, f.After) {
			b.WriteString("\n    " + l)
		}
	}
	return b.String()
}

// fieldsOf compares two states in canonical form.
func fieldsOf(before, after []byte) []Field {
	b, a := map[string]string{}, map[string]string{}
	flattenJSON(before, b)
	flattenJSON(after, a)
	all := maps.Clone(b)
	maps.Copy(all, a)
	var out []Field
	for _, path := range slices.Sorted(maps.Keys(all)) {
		if b[path] == a[path] {
			continue
		}
		if app := appOf(path); app != "" && whole(app, b) != whole(app, a) { // one line says it
			if path := "apps." + app; len(out) == 0 || out[len(out)-1].Path != path {
				out = append(out, Field{path, images(app, b), images(app, a)})
			}
			continue
		}
		out = append(out, Field{path, b[path], a[path]})
	}
	// Where entities come or go, their order says nothing more.
	return slices.DeleteFunc(out, func(f Field) bool {
		return strings.HasSuffix(f.Path, orderSuffix) && !sameNames(f.Before, f.After)
	})
}

// appOf returns the app that a path lies in, or "".
func appOf(path string) string {
	rest, ok := strings.CutPrefix(path, "apps.")
	if !ok {
		return ""
	}
	app, _, _ := strings.Cut(rest, ".")
	return app
}

// whole reports whether a state has an app at all.
func whole(app string, state map[string]string) bool {
	_, ok := state["apps."+app+".deadlineMs"]
	return ok
}

// images returns the containers of an app with what they run.
func images(app string, state map[string]string) string {
	prefix := "apps." + app + ".containers"
	var out []string
	for name := range strings.SplitSeq(state[prefix+orderSuffix], ", ") {
		if image := state[prefix+"."+name+".image"]; image != "" {
			out = append(out, name+" "+strings.Trim(image, `"`))
		}
	}
	return strings.Join(out, ", ")
}

const orderSuffix = " order"

func sameNames(a, b string) bool {
	x, y := strings.Split(a, ", "), strings.Split(b, ", ")
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

func flattenJSON(in []byte, out map[string]string) {
	dec := json.NewDecoder(bytes.NewReader(in))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return // no state is nothing
	}
	flatten("", v, out)
}

// flatten writes a value by path. Lists of named entities go by their names and paths.
func flatten(path string, v any, out map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			flatten(join2(path, k), e, out)
		}
	case []any:
		if names := namesOf(v); names != nil {
			for i, e := range v {
				m := maps.Clone(e.(map[string]any))
				delete(m, nameField(m))
				flatten(join2(path, names[i]), m, out)
			}
			out[path+orderSuffix] = strings.Join(names, ", ")
			return
		}
		out[path] = compact(v)
	case string:
		if strings.Contains(v, "\n") && strings.HasSuffix(path, ".content") {
			out[path] = v
			return
		}
		out[path] = compact(v)
	default:
		out[path] = compact(v)
	}
}

func compact(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err.Error()
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func join2(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// nameField returns the field that an entity of a list goes by, or "".
func nameField(m map[string]any) string {
	for _, f := range []string{"name", "path"} {
		if _, ok := m[f].(string); ok {
			return f
		}
	}
	return ""
}

func namesOf(list []any) []string {
	var out []string
	for _, e := range list {
		m, ok := e.(map[string]any)
		if !ok || nameField(m) == "" {
			return nil
		}
		out = append(out, m[nameField(m)].(string))
	}
	return out
}

// lineDiff returns the changed lines of a text with a few around them.
func lineDiff(before, after string) []string {
	text := strings.TrimSuffix(string(diff.Diff("before", []byte(before), "after", []byte(after))), "\n")
	lines := strings.Split(text, "\n")
	return lines[min(3, len(lines)):] // without the names
}
