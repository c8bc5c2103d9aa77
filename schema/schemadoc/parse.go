package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/format"
	"cuelang.org/go/cue/parser"
	"cuelang.org/go/cue/token"
)

// definition is one #Name of the schema.
type definition struct {
	name, doc string
	expr      ast.Expr
	fields    []field // of a struct; empty for a map or a scalar
}

// field is one field of a struct.
type field struct {
	name, doc, def string
	required       bool
	typ            shape
}

// shape is what a field may hold.
type shape struct {
	text string // for people
	// elem names the definition of a struct that lies below, after via: "", or ".*" for
	// the values of a map or list.
	elem, via string
}

type schemaFiles map[string]*definition

// parse reads the definitions of the schema's files.
func parse(files map[string][]byte) (schemaFiles, error) {
	defs := schemaFiles{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, err := parser.ParseFile(name, files[name], parser.ParseComments)
		if err != nil {
			return nil, err
		}
		for _, decl := range f.Decls {
			d, ok := decl.(*ast.Field)
			if !ok {
				continue
			}
			def := &definition{name: label(d), doc: doc(d), expr: d.Value}
			if def.doc == "" {
				return nil, fmt.Errorf("%s: %s has no comment", name, def.name)
			}
			defs[def.name] = def
		}
	}
	for _, name := range slices.Sorted(maps.Keys(defs)) {
		if err := defs.fields(defs[name]); err != nil {
			return nil, err
		}
	}
	return defs, nil
}

func (defs schemaFiles) fields(def *definition) error {
	lit, ok := def.expr.(*ast.StructLit)
	if !ok {
		return nil
	}
	for _, decl := range lit.Elts {
		d, ok := decl.(*ast.Field)
		if !ok {
			continue
		}
		if _, isPattern := d.Label.(*ast.ListLit); isPattern {
			continue
		}
		name := label(d)
		if strings.HasPrefix(name, "_") {
			continue
		}
		f := field{name: name, doc: doc(d), required: d.Constraint == token.NOT}
		if f.doc == "" {
			return fmt.Errorf("%s.%s has no comment", def.name, name)
		}
		f.typ, f.def = defs.shape(d.Value)
		def.fields = append(def.fields, f)
	}
	return nil
}

// shape tells a field's type, and its default as CUE.
func (defs schemaFiles) shape(e ast.Expr) (s shape, dflt string) {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return defs.shape(e.X)
	case *ast.Ident:
		def, ok := defs[e.Name]
		switch {
		case !ok:
			return shape{text: e.Name}, ""
		case isStruct(def.expr) && isMap(def.expr):
			return defs.shape(def.expr)
		case isStruct(def.expr):
			return shape{text: "struct", elem: e.Name}, ""
		}
		return shape{text: strings.TrimPrefix(e.Name, "#")}, ""
	case *ast.StructLit:
		return defs.structShape(e), ""
	case *ast.ListLit:
		return defs.listShape(e), ""
	case *ast.BinaryExpr:
		if e.Op == token.OR {
			return defs.oneOf(e)
		}
		if n, ok := atMost(e.X, "list.MaxItems"); ok {
			s, _ = defs.shape(e.Y)
			s.text += ", at most " + n
			return s, ""
		}
	}
	return shape{text: "`" + source(e) + "`"}, ""
}

func (defs schemaFiles) structShape(lit *ast.StructLit) shape {
	var s shape
	bound := ""
	for _, decl := range lit.Elts {
		switch d := decl.(type) {
		case *ast.EmbedDecl:
			if n, ok := atMost(d.Expr, "struct.MaxFields"); ok {
				bound = ", at most " + n
			}
		case *ast.Field:
			if key, ok := d.Label.(*ast.ListLit); ok && len(key.Elts) == 1 {
				elem, _ := defs.shape(d.Value)
				k, _ := defs.shape(key.Elts[0])
				s = shape{text: "map from " + k.text + " to " + elem.text, elem: elem.elem, via: ".*" + elem.via}
			}
		case *ast.Ellipsis:
			s.text = "anything"
		}
	}
	s.text += bound
	return s
}

func (defs schemaFiles) listShape(lit *ast.ListLit) shape {
	prefix := "list of "
	if len(lit.Elts) > 1 {
		prefix = "list of at least one "
	}
	last, ok := lit.Elts[len(lit.Elts)-1].(*ast.Ellipsis)
	if !ok {
		return shape{text: "`" + source(lit) + "`"}
	}
	elem, _ := defs.shape(last.Type)
	return shape{text: prefix + elem.text, elem: elem.elem, via: ".*" + elem.via}
}

// oneOf tells a disjunction; the alternative with a star is the default.
func (defs schemaFiles) oneOf(e *ast.BinaryExpr) (s shape, dflt string) {
	var texts []string
	var walk func(ast.Expr)
	walk = func(x ast.Expr) {
		if b, ok := x.(*ast.BinaryExpr); ok && b.Op == token.OR {
			walk(b.X)
			walk(b.Y)
			return
		}
		if u, ok := x.(*ast.UnaryExpr); ok && u.Op == token.MUL {
			dflt = source(u.X)
			texts = append(texts, "`"+dflt+"`")
			return
		}
		alt, _ := defs.shape(x)
		texts = append(texts, alt.text)
		if alt.elem != "" {
			s.elem, s.via = alt.elem, alt.via
		}
	}
	walk(e)
	if len(texts) == 2 && dflt != "" && !strings.HasPrefix(texts[1], "`\"") {
		texts = texts[1:] // the default is one of what the other allows
	}
	s.text = strings.Join(texts, " or ")
	return s, dflt
}

func isStruct(e ast.Expr) bool {
	_, ok := e.(*ast.StructLit)
	return ok
}

// isMap reports whether a struct's fields are given by a pattern alone.
func isMap(e ast.Expr) bool {
	for _, decl := range e.(*ast.StructLit).Elts {
		if f, ok := decl.(*ast.Field); ok {
			if _, pattern := f.Label.(*ast.ListLit); !pattern {
				return false
			}
		}
	}
	return true
}

// atMost returns n of a call such as list.MaxItems(n).
func atMost(e ast.Expr, fn string) (string, bool) {
	call, ok := e.(*ast.CallExpr)
	if !ok || source(call.Fun) != fn || len(call.Args) != 1 {
		return "", false
	}
	return source(call.Args[0]), true
}

func label(f *ast.Field) string {
	name, _, err := ast.LabelName(f.Label)
	if err != nil {
		return source(f.Label.(ast.Expr))
	}
	return name
}

func doc(n ast.Node) string {
	var out []string
	for _, g := range ast.Comments(n) {
		if g.Doc {
			out = append(out, strings.TrimSpace(g.Text()))
		}
	}
	return strings.Join(out, "\n")
}

func source(n ast.Node) string {
	b, err := format.Node(n)
	if err != nil {
		return "?"
	}
	return string(b)
}
