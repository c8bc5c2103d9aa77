package validate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/inject/embed"
	yaml "go.yaml.in/yaml/v3"

	"selvedge/schema/fleet"
)

// embeds checks the files that CUE read as data: what CUE merges or drops in silence is
// refused. It also notes where they declare what.
func (u *unit) embeds(files []*ast.File) {
	done := map[string]bool{}
	for _, dep := range u.inst.Dependencies() {
		files = append(files[:len(files):len(files)], dep.Files...)
	}
	for _, f := range files {
		attrs, err := embed.EmbeddedPaths(f.Filename, f)
		if err != nil {
			continue // CUE has said so
		}
		for _, e := range attrs {
			kind := "" // of the entities in the file, if it holds all of a kind
			for _, d := range f.Decls {
				if l := labelOf(d); d == e.Node && !e.IsGlob() && f.PackageName() == fleetPackage && slices.Contains(entityKinds, l) {
					kind = l
				}
			}
			for _, p := range u.fs.order {
				if done[p] || strings.HasSuffix(p, ".cue") || !e.Matches(p) {
					continue
				}
				done[p] = true
				u.embedded(p, e.Type, kind)
			}
		}
	}
}

func (u *unit) embedded(p, typ, kind string) {
	b, ok := u.readText(p)
	if !ok {
		return
	}
	if typ == "" {
		typ = strings.TrimPrefix(path.Ext(p), ".")
	}
	var err error
	switch {
	case strings.Contains(typ, "yaml") || typ == "yml":
		err = u.yamlKeys(p, b, kind)
	case strings.Contains(typ, "json"):
		err = u.jsonKeys(p, b, kind)
	}
	if err != nil && !u.refusedSoFar() { // CUE's own words come first
		u.say(fleet.Position{File: p}, "%v; mend the file", err)
	}
}

func (u *unit) duplicate(p string, line, col int, key string, first string, kind, name string) {
	u.add(fleet.Problem{Position: fleet.Position{File: p, Line: line, Column: col}, Kind: kind, Name: name,
		Message: fmt.Sprintf("duplicate key %q, first on line %s; remove one of them", key, first)})
}

func (u *unit) yamlKeys(p string, b []byte, kind string) error {
	var doc yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(b)).Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	var walk func(n *yaml.Node, depth int, name string)
	walk = func(n *yaml.Node, depth int, name string) {
		if n.Kind == yaml.MappingNode {
			lines := make(map[string]int, len(n.Content)/2)
			for i := 0; i+1 < len(n.Content); i += 2 {
				k := n.Content[i]
				inner := name
				if depth == 0 && kind != "" {
					inner = k.Value
					u.place(kind+"/"+k.Value, fleet.Position{File: p, Line: k.Line, Column: k.Column})
				}
				id := k.Value // 1 and "1" are one field of CUE
				if line, ok := lines[id]; ok && k.Kind == yaml.ScalarNode && k.Tag != "!!merge" {
					u.duplicate(p, k.Line, k.Column, k.Value, strconv.Itoa(line), kind, inner)
				}
				lines[id] = k.Line
				walk(n.Content[i+1], depth+1, inner)
			}
			return
		}
		for _, c := range n.Content {
			walk(c, depth, name)
		}
	}
	walk(&doc, 0, "")
	return nil
}

func (u *unit) jsonKeys(p string, b []byte, kind string) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	type level struct {
		keys   map[string]int // line of each key; nil in an array
		isKey  bool
		entity string
	}
	var stack []level
	for {
		t, err := dec.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if n, ok := t.(json.Number); ok && beyondExponent(n.String()) {
			u.exponent(positionAt(p, b, max(int(dec.InputOffset())-len(n), 0)), n.String())
		}
		if d, ok := t.(json.Delim); ok && (d == '}' || d == ']') {
			stack = stack[:len(stack)-1]
		}
		if len(stack) > 0 {
			top := &stack[len(stack)-1]
			if s, ok := t.(string); ok && top.keys != nil && top.isKey {
				start := int(dec.InputOffset()) - len(strconv.Quote(s))
				pos := positionAt(p, b, max(start, 0))
				if len(stack) == 1 && kind != "" {
					top.entity = s
					u.place(kind+"/"+s, pos)
				}
				if line, ok := top.keys[s]; ok {
					u.duplicate(p, pos.Line, pos.Column, s, strconv.Itoa(line), kind, stack[0].entity)
				}
				top.keys[s] = pos.Line
				top.isKey = false
				continue
			}
			top.isKey = top.keys != nil
		}
		if d, ok := t.(json.Delim); ok && (d == '{' || d == '[') {
			l := level{}
			if d == '{' {
				l.keys, l.isKey = map[string]int{}, true
			}
			stack = append(stack, l)
		}
	}
}
