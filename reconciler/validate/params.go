package validate

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"cuelang.org/go/cue/ast"

	"selvedge/schema/fleet"
)

// undeclaredParams refuses params of inherited apps that nothing above declares: the schema
// leaves params open, so that CUE takes a typo for one more. It looks at what is plainly
// written; where an app is put together otherwise above, anything may be declared there.
func (u *unit) undeclaredParams() {
	for _, key := range slices.Sorted(maps.Keys(u.job.Inherits)) {
		name, ok := strings.CutPrefix(key, "app/")
		if !ok {
			continue
		}
		scope := u.job.Inherits[key]
		if scope == "" {
			scope = "."
		}
		above, below := declared{}, declared{}
		for _, f := range u.inst.Files {
			if dir := path.Dir(f.Filename); dir == "." || within(scope, dir) {
				above.collect(u, f.Decls, []string{"app", name, "params"})
			} else {
				below.collect(u, f.Decls, []string{"app", name, "params"})
			}
		}
		if above.open {
			continue
		}
		for _, p := range slices.Sorted(maps.Keys(below.at)) {
			if _, ok := above.at[p]; ok {
				continue
			}
			next := "it has no params"
			if len(above.at) > 0 {
				next = "there are " + strings.Join(slices.Sorted(maps.Keys(above.at)), ", ")
			}
			for q := range above.at {
				if distance(p, q) <= min(3, (len(p)+1)/2) {
					next = fmt.Sprintf("did you mean %q?", q)
				}
			}
			u.add(fleet.Problem{Position: below.at[p], Kind: "app", Name: name,
				Message: fmt.Sprintf("params: %q is not declared in %s; %s", p, filePath(scope), next)})
		}
	}
}

// declared is the names below a path in files.
type declared struct {
	at   map[string]fleet.Position
	open bool // there may be others
}

func (ps *declared) collect(u *unit, decls []ast.Decl, at []string) {
	for _, d := range decls {
		switch d := d.(type) {
		case *ast.Package, *ast.ImportDecl, *ast.Attribute, *ast.CommentGroup, *ast.LetClause:
		case *ast.Field:
			label := labelOf(d)
			switch {
			case len(at) == 0 && label != "":
				if ps.at == nil {
					ps.at = map[string]fleet.Position{}
				}
				if _, ok := ps.at[label]; !ok {
					ps.at[label] = u.position(d.Pos())
				}
			case label == "": // a pattern, or a name that is computed
				ps.open = true
			case label != at[0]:
			default:
				st, ok := d.Value.(*ast.StructLit)
				if !ok {
					ps.open = true
					continue
				}
				ps.collect(u, st.Elts, at[1:])
			}
		case *ast.EmbedDecl:
			if _, plain := d.Expr.(*ast.SelectorExpr); len(at) < 3 || !plain { // at the top: v1.#Repo
				ps.open = true
			}
		default:
			ps.open = true
		}
	}
}
