package validate

import (
	"strconv"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/mod/modfile"
	"golang.org/x/mod/semver"

	"selvedge/schema"
	"selvedge/schema/fleet"
)

const moduleFile = "cue.mod/module.cue"

// readModule reads the repo's module file; the platform's evaluation checks it. It
// returns the version of the language.
func (u *unit) readModule() string {
	b, err := u.fs.read(moduleFile)
	if err != nil {
		return "" // said for the whole repo
	}
	m, err := modfile.ParseNonStrict(b, moduleFile)
	pos := fleet.Position{File: moduleFile}
	if err != nil {
		if u.job.Dir == "." {
			u.report(err)
		}
		return ""
	}
	u.module = ast.ParseImportPath(m.Module).Path
	version := ""
	if m.Language != nil {
		version = m.Language.Version
	}
	if u.job.Dir != "." {
		return version
	}
	switch {
	case u.module == "":
		u.say(pos, "no module name; run `selvedge init`")
	case semver.Compare(version, schema.LanguageVersion) < 0:
		u.say(pos, "language version %q is older than %s, from which on the schema closes; write `language: version: %q`", version, schema.LanguageVersion, schema.LanguageVersion)
	case len(m.Deps) > 0:
		u.say(pos, "deps: no registry is asked; remove them, and vendor packages below cue.mod/pkg")
	}
	return version
}

// imports refuses what is not in the tree.
func (u *unit) imports(f *ast.File) {
	for spec := range f.ImportSpecs() {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the loader says it
		}
		dir, err := importDir(p, u.module)
		if err == nil && dir != "" {
			_, err = u.fs.listCUE(dir)
		}
		if err != nil {
			u.say(u.position(spec.Path.Pos()), "%s", importProblem(p, dir, u.module))
		}
	}
}
