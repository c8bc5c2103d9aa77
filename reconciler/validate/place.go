package validate

import (
	"path"
	"strings"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/token"

	"selvedge/schema"
	"selvedge/schema/fleet"
)

// position is a place in the repo, from CUE's.
func (u *unit) position(p token.Pos) fleet.Position {
	if !p.IsValid() {
		return fleet.Position{}
	}
	return fleet.Position{File: u.fileOf(p), Line: p.Line(), Column: p.Column()}
}

// fileOf returns the path of a position's file. Embedded files are known to CUE by
// the name that the attribute gives them, relative to a directory of the instance.
func (u *unit) fileOf(p token.Pos) string {
	name := strings.TrimPrefix(strings.TrimPrefix(p.Filename(), "/"), "./")
	if strings.HasSuffix(name, ".cue") {
		return name
	}
	best := ""
	for _, read := range u.fs.order {
		if read != name && !strings.HasSuffix(read, "/"+name) || u.fs.files[read].err != nil {
			continue
		}
		// Of two files of one name, the one that has such a line, and of these the nearest.
		if lines := strings.Count(string(u.fs.files[read].data), "\n") + 1; p.Line() <= lines && len(read) >= len(best) {
			best = read
		}
	}
	if best == "" {
		return path.Join(u.job.Dir, name)
	}
	return best
}

// foreign tells positions that people cannot change: the schema, what is vendored,
// what is made here.
func foreign(file string) bool {
	return file == "" || within(file, "cue.mod") || strings.HasPrefix(file, builtin) || strings.Contains(file, schema.ImportPath)
}

// builtin begins the names of files that are ours.
const builtin = "selvedge:"

// placeOf is where an entity was declared.
func (u *unit) placeOf(kind, name string) fleet.Origin {
	key := kind
	if name != "" {
		key += "/" + name
	}
	o, ok := u.places[key]
	if !ok {
		o = u.places[kind] // made by a comprehension, say
	}
	o.Scope = u.scopeOf(kind, name)
	return o
}

func (u *unit) place(key string, pos fleet.Position) {
	if _, ok := u.places[key]; !ok { // files above come first, and the first place is the declaration
		u.places[key] = fleet.Origin{Position: pos}
	}
}

// findPlaces notes where the instance's files declare what.
func (u *unit) findPlaces(files []*ast.File) {
	for _, f := range files {
		for _, d := range f.Decls {
			kind := labelOf(d)
			if kind == "" {
				continue
			}
			field := d.(*ast.Field)
			u.place(kind, u.position(field.Label.Pos()))
			st, ok := field.Value.(*ast.StructLit)
			if !ok {
				continue
			}
			for _, e := range st.Elts {
				name := labelOf(e)
				if name == "" {
					continue
				}
				u.place(kind+"/"+name, u.position(e.(*ast.Field).Label.Pos()))
				inner, ok := e.(*ast.Field).Value.(*ast.StructLit)
				if !ok {
					continue
				}
				for _, x := range inner.Elts {
					if labelOf(x) == "override" {
						u.place(kind+"/"+name+"/override", u.position(x.(*ast.Field).Label.Pos()))
					}
				}
			}
		}
	}
}
