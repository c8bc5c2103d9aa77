package validate

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"cuelang.org/go/cue"

	"selvedge/schema"
	"selvedge/schema/fleet"
)

// supported says what nothing acts on yet: once a kind or field, or for each entity
// where it would be dangerous to go on.
func (u *unit) supported(values map[string]any) {
	for _, s := range schema.Supported() {
		if s.Level == schema.Acts {
			continue
		}
		u.unsupported(s, values)
	}
}

func (u *unit) unsupported(s schema.Support, values map[string]any) {
	parts := strings.Split(s.Path, ".")
	var hits [][]string
	var walk func(v any, rest, at []string)
	walk = func(v any, rest, at []string) {
		if len(rest) == 0 {
			if !empty(v) && !u.isDefault(s.Path, v) {
				hits = append(hits, at)
			}
			return
		}
		m, ok := v.(map[string]any)
		if !ok {
			return
		}
		if rest[0] != "*" {
			if x, ok := m[rest[0]]; ok {
				walk(x, rest[1:], append(at[:len(at):len(at)], rest[0]))
			}
			return
		}
		for _, k := range slices.Sorted(keys(m)) {
			walk(m[k], rest[1:], append(at[:len(at):len(at)], k))
		}
	}
	walk(values, parts, nil)
	if len(hits) == 0 {
		return
	}
	if s.Level == schema.Refuse {
		for _, at := range hits {
			u.odd(at, "not supported yet: %s", s.Why)
		}
		return
	}
	kind, name, field := split(hits[0])
	if len(parts) == 1 {
		m, _ := values[kind].(map[string]any)
		names := slices.Sorted(keys(m))
		u.add(fleet.Problem{Severity: fleet.Warning, Position: u.placeOf(kind, names[0]).Position, Kind: kind,
			Message: fmt.Sprintf("not supported yet (%d here): %s", len(names), s.Why)})
		return
	}
	u.add(fleet.Problem{Severity: fleet.Warning, Position: u.placeOf(kind, name).Position, Kind: kind, Name: name,
		Message: fmt.Sprintf("%s: not supported yet (%d here): %s", field, len(hits), s.Why)})
}

func empty(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	case string:
		return v == ""
	}
	return v == nil
}

// isDefault tells whether a value is what the schema fills in by itself.
func (u *unit) isDefault(p string, v any) bool {
	parts := strings.Split(p, ".")
	if len(parts) < 3 {
		return false
	}
	def := u.definition(parts[0])
	for _, f := range parts[2:] {
		def = def.LookupPath(cue.MakePath(cue.Str(f)))
	}
	d, ok := def.Default()
	if !ok {
		return false
	}
	b, err := d.MarshalJSON()
	if err != nil {
		return false
	}
	var x any
	return json.Unmarshal(b, &x) == nil && reflect.DeepEqual(x, v)
}

// definition returns the vendored schema's definition of a kind: #App of app.
func (u *unit) definition(kind string) cue.Value {
	if !u.schema.Exists() {
		for _, dep := range u.inst.Dependencies() {
			if dep.ImportPath == schema.ImportPath || strings.HasPrefix(dep.ImportPath, schema.ImportPath+":") {
				u.schema = u.ctx.BuildInstance(dep)
			}
		}
	}
	return u.schema.LookupPath(cue.MakePath(cue.Def(strings.ToUpper(kind[:1]) + kind[1:])))
}
