package api

import (
	"reflect"
	"strings"
	"time"
)

// schemas makes JSON Schemas (2020-12) of Go types as encoding/json writes them.
type schemas struct {
	all      object // components by name
	comments map[string]string
	seen     map[string]bool // types by typeKey; may be nil
}

// of returns the schema of a value's type; types with a name become components.
func (s *schemas) of(v any) object {
	if _, ok := v.(document); ok {
		return object{"type": "object"}
	}
	return s.schema(reflect.TypeOf(v))
}

var timeType = reflect.TypeFor[time.Time]()

func (s *schemas) schema(t reflect.Type) object {
	switch {
	case t == timeType:
		return object{"type": "string", "format": "date-time"}
	case t.Kind() == reflect.Pointer:
		return s.schema(t.Elem()) // one that is nil is left out: see required
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return object{"type": "string", "contentEncoding": "base64"}
	}
	switch t.Kind() {
	case reflect.Struct:
		return s.component(t, func() object { return s.structure(t) })
	case reflect.Slice:
		return object{"type": "array", "items": s.schema(t.Elem())}
	case reflect.Map:
		o := object{"type": "object", "additionalProperties": s.schema(t.Elem())}
		if names, ok := enums[t.Key().Name()]; ok {
			o["propertyNames"] = object{"enum": names}
		}
		return o
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uint:
		return object{"type": "integer", "minimum": 0}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	case reflect.String:
		if names, ok := enums[t.Name()]; ok {
			return s.component(t, func() object { return object{"type": "string", "enum": names} })
		}
		return object{"type": "string"}
	}
	return object{} // anything
}

// component keeps a type's schema once, and refers to it.
func (s *schemas) component(t reflect.Type, make func() object) object {
	name := componentName(t)
	if _, ok := s.all[name]; !ok {
		s.all[name] = object{} // for types that hold themselves
		o := make()
		if c := s.comments[typeKey(t)]; c != "" {
			o["description"] = c
		}
		s.all[name] = o
	}
	return object{"$ref": "#/components/schemas/" + name}
}

// componentName names a type: those of hubapi as they are, of others with their package in
// front, as their names are the same for other things.
func componentName(t reflect.Type) string {
	name := t.Name()
	if base, arg, ok := strings.Cut(name, "["); ok { // List[selvedge/schema/hubapi.Node]
		arg = strings.TrimSuffix(arg, "]")
		return arg[strings.LastIndexByte(arg, '.')+1:] + base
	}
	pkg := t.PkgPath()[strings.LastIndexByte(t.PkgPath(), '/')+1:]
	if pkg == "hubapi" {
		return name
	}
	return strings.ToUpper(pkg[:1]) + pkg[1:] + name
}

// typeKey is how comments and enums name a type: package.Name, or Name of hubapi's.
func typeKey(t reflect.Type) string {
	name, _, _ := strings.Cut(t.Name(), "[")
	pkg := t.PkgPath()[strings.LastIndexByte(t.PkgPath(), '/')+1:]
	if pkg == "hubapi" {
		return name
	}
	return pkg + "." + name
}

func (s *schemas) structure(t reflect.Type) object {
	props, required := object{}, []string{}
	s.fields(t, props, &required)
	o := object{"type": "object", "properties": props}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}

// fields adds the fields of a struct, and of those that it embeds, to properties.
func (s *schemas) fields(t reflect.Type, props object, required *[]string) {
	if s.seen != nil {
		s.seen[typeKey(t)] = true
	}
	for i := range t.NumField() {
		f := t.Field(i)
		_, tagged := f.Tag.Lookup("json")
		if f.Anonymous && !tagged {
			s.fields(f.Type, props, required)
		}
	}
	for i := range t.NumField() { // after: a field hides one of the same name that is embedded
		f := t.Field(i)
		tag, tagged := f.Tag.Lookup("json")
		if f.Anonymous && !tagged || !f.IsExported() || tag == "-" {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		if name == "" {
			name = f.Name
		}
		o := s.schema(f.Type)
		key := typeKey(t) + "." + name
		if names, ok := enums[key]; ok {
			o["enum"] = names
		}
		if c := s.comments[key]; c != "" {
			o["description"] = c
		}
		props[name] = o
		if !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") {
			*required = append(*required, name)
		}
	}
}
