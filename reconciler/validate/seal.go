package validate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/cuecontext"
	cuejson "cuelang.org/go/encoding/json"

	"selvedge/schema/fleet"
)

// An inherited entity is sealed: in a workspace it must be what the directory that
// declares it makes of it, with the workspace's own fields and, for an app, its
// params filled in. What the files below that directory say is read as syntax
// first, so that only what they touch is evaluated a second time.

// unsealed are the fields that every directory fills in for itself.
var unsealed = []string{"workspace", "folder", "node", "device"}

// touch is where a file says something of an entity that it may have inherited.
type touch struct {
	dir, kind, name string // name "": any of the kind; kind "": anything
	pos             fleet.Position
}

func (u *unit) sealed(values map[string]any) {
	u.undeclaredParams()
	broken := map[string]touch{} // "kind/name" of what must be compared
	for _, t := range u.touches() {
		if t.kind == "platform" {
			if t.dir != "." {
				broken["platform"] = t
			}
			continue
		}
		for key, scope := range u.job.Inherits {
			kind, name, _ := strings.Cut(key, "/")
			below := t.dir != "." && (scope == "" || t.dir != scope && within(t.dir, scope))
			if !below || slices.Contains(unsealed, kind) || t.kind != "" && t.kind != kind || t.name != "" && t.name != name {
				continue
			}
			if _, ok := broken[key]; !ok {
				broken[key] = t
			}
		}
	}
	byScope := map[string][]string{}
	for key := range broken {
		byScope[u.job.Inherits[key]] = append(byScope[u.job.Inherits[key]], key)
	}
	for scope, names := range byScope {
		slices.Sort(names)
		u.compare(scope, names, broken, values)
	}
}

// compare evaluates the directory that declares entities, with what may be filled
// in below it, and refuses those that came out otherwise here.
func (u *unit) compare(scope string, names []string, at map[string]touch, values map[string]any) {
	dir := scope
	if scope == "" {
		dir = "."
	}
	l := newLoader(u.fs, u.module, u.version)
	l.extra = filling(names, values)
	v := cuecontext.New().BuildInstance(l.instance(dir, ".", fleetPackage, u.inst.ImportPath))
	for _, key := range names {
		kind, name, _ := strings.Cut(key, "/")
		p, have := cue.MakePath(cue.Str(kind)), values[kind]
		if name != "" {
			p = cue.MakePath(cue.Str(kind), cue.Str(name))
			have = have.(map[string]any)[name]
		}
		var want any
		b, err := v.LookupPath(p).MarshalJSON()
		if err == nil {
			dec := json.NewDecoder(bytes.NewReader(b))
			dec.UseNumber()
			err = dec.Decode(&want)
		}
		field := ""
		if err == nil {
			if field = difference(want, have, ""); field == "" && reflect.DeepEqual(want, have) {
				continue
			}
		}
		u.add(fleet.Problem{Position: at[key].pos, Kind: kind, Name: name, Message: sealMessage(kind, filePath(dir), field)})
	}
}

func sealMessage(kind, from, field string) string {
	what := "nothing of it"
	if kind == "app" {
		what = "nothing of it but params"
	}
	if field != "" {
		field = " (" + field + " differs)"
	}
	next := "declare another under a name of your own"
	if kind == "platform" {
		next = "change it there"
	}
	return fmt.Sprintf("inherited from %s and sealed: %s may be set here%s; %s", from, what, field, next)
}

// filling is a file with what a directory adds to what it inherits.
func filling(names []string, values map[string]any) *ast.File {
	fill := map[string]any{}
	for _, k := range unsealed {
		if v, ok := values[k]; ok {
			fill[k] = v
		}
	}
	apps := map[string]any{}
	for _, key := range names {
		kind, name, _ := strings.Cut(key, "/")
		if kind != "app" {
			continue
		}
		if app, ok := values["app"].(map[string]any)[name].(map[string]any); ok && app["params"] != nil {
			apps[name] = map[string]any{"params": app["params"]}
		}
	}
	if len(apps) > 0 {
		fill["app"] = apps
	}
	b, err := json.Marshal(fill)
	if err != nil {
		panic(err) // it came from JSON
	}
	expr, err := cuejson.Extract(builtin+"filling.json", b)
	if err != nil {
		panic(err)
	}
	f := &ast.File{Filename: builtin + "filling.cue", Decls: []ast.Decl{&ast.Package{Name: ast.NewIdent(fleetPackage)}}}
	f.Decls = append(f.Decls, expr.(*ast.StructLit).Elts...)
	return f
}

// difference returns the path of the first value in which a and b differ.
func difference(a, b any, at string) string {
	ma, okA := a.(map[string]any)
	mb, okB := b.(map[string]any)
	if !okA || !okB {
		if reflect.DeepEqual(a, b) {
			return ""
		}
		return at
	}
	both := map[string]any{}
	for k := range ma {
		both[k] = nil
	}
	for k := range mb {
		both[k] = nil
	}
	for _, k := range slices.Sorted(keys(both)) {
		x, inA := ma[k]
		y, inB := mb[k]
		if inA != inB {
			return strings.TrimPrefix(at+"."+k, ".")
		}
		if d := difference(x, y, strings.TrimPrefix(at+"."+k, ".")); d != "" {
			return d
		}
	}
	return ""
}

// touches lists what the instance's files below the platform say of sealed kinds.
func (u *unit) touches() []touch {
	var out []touch
	for _, f := range u.inst.Files {
		dir := path.Dir(f.Filename)
		if dir == "." {
			continue
		}
		for _, d := range f.Decls {
			out = append(out, u.touched(dir, f, d)...)
		}
	}
	return out
}

func (u *unit) touched(dir string, f *ast.File, d ast.Decl) []touch {
	pos := u.position(d.Pos())
	switch d := d.(type) {
	case *ast.Package, *ast.ImportDecl, *ast.Attribute, *ast.CommentGroup, *ast.LetClause:
		return nil
	case *ast.Field:
		kind := labelOf(d)
		if slices.Contains(unsealed, kind) {
			return nil
		}
		if strings.HasPrefix(kind, "_") || strings.HasPrefix(kind, "#") {
			if u.namedAbove(dir, kind) {
				return []touch{{dir: dir, pos: pos}}
			}
			return nil
		}
		st, ok := d.Value.(*ast.StructLit)
		if kind == "" || !ok || len(d.Attrs) > 0 || kind == "platform" {
			return []touch{{dir: dir, kind: kind, pos: pos}}
		}
		var out []touch
		for _, e := range st.Elts {
			switch e := e.(type) {
			case *ast.CommentGroup, *ast.Attribute:
			case *ast.Field:
				if name := labelOf(e); name == "" || kind != "app" || !paramsOnly(e) {
					out = append(out, touch{dir: dir, kind: kind, name: name, pos: u.position(e.Pos())})
				}
			default:
				out = append(out, touch{dir: dir, kind: kind, pos: u.position(e.Pos())})
			}
		}
		return out
	}
	return []touch{{dir: dir, pos: pos}}
}

// paramsOnly tells an app of which nothing but params is said.
func paramsOnly(app *ast.Field) bool {
	st, ok := app.Value.(*ast.StructLit)
	if !ok || len(app.Attrs) > 0 {
		return false
	}
	for _, e := range st.Elts {
		if labelOf(e) != "params" {
			return false
		}
	}
	return true
}

// namedAbove tells whether a file above a directory mentions a name: then a field of
// that name below it changes what the file says.
func (u *unit) namedAbove(dir, name string) bool {
	for p, f := range u.fs.files {
		up := path.Dir(p)
		if above := up == "." || up != dir && within(dir, up); above && bytes.Contains(f.data, []byte(name)) {
			return true
		}
	}
	return false
}
