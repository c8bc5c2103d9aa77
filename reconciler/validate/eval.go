package validate

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/build"
	"cuelang.org/go/cue/cuecontext"
	"cuelang.org/go/cue/parser"

	"selvedge/schema/fleet"
)

// fleetPackage is the one package of a config repo's own files.
const fleetPackage = "fleet"

// entityKinds are the kinds that are maps by name.
var entityKinds = []string{
	"identity", "roleBinding", "policy", "accessGuide", "node", "app", "model", "config",
	"secret", "deviceModel", "device", "endpoint", "route",
}

// unit is the evaluation of one directory, in a child.
type unit struct {
	job job
	fs  *askFS
	res *result

	module  string // path of the repo's module, without its version
	version string // of the language
	loader  *loader
	own     map[string]*ast.File    // the directory's own files that parse, by path
	places  map[string]fleet.Origin // of what is written down: "kind/name"
	ctx     *cue.Context
	inst    *build.Instance
	value   cue.Value
	schema  cue.Value // the vendored schema, once it is asked for
}

func evaluate(j job, fsys *askFS) *result {
	u := &unit{
		job: j, fs: fsys, res: &result{Role: roleUnknown, Entities: map[string]fleet.Origin{}},
		own: map[string]*ast.File{}, places: map[string]fleet.Origin{},
	}
	u.run()
	u.res.Problems = bounded(fleet.SortProblems(u.res.Problems), j.Problems)
	if u.res.refused() {
		u.res.Unit = nil
	}
	return u.res
}

// bounded cuts what is beyond max, and says how many there are.
func bounded(ps []fleet.Problem, max int) []fleet.Problem {
	if len(ps) <= max {
		return ps
	}
	more := len(ps) - max
	slices.SortStableFunc(ps, func(a, b fleet.Problem) int { // errors first: they decide
		return strings.Compare(string(a.Severity), string(b.Severity))
	})
	ps = ps[:max]
	return append(ps, fleet.Problem{Severity: ps[0].Severity, Position: fleet.Position{File: ps[max-1].File},
		Message: fmt.Sprintf("%d more problems are not shown; mend those above first", more)})
}

func (u *unit) run() {
	u.version = languageVersion(u.readModule())
	u.loader = newLoader(u.fs, u.module, u.version)
	if !u.readOwn() {
		return
	}
	if u.refusedSoFar() { // what does not parse, or leaves the tree, is not evaluated
		return
	}
	if !u.load() {
		return
	}
	if u.res.Role == roleWorkspace {
		u.workspace()
	} else {
		u.above()
	}
}

func (u *unit) refusedSoFar() bool { return u.res.refused() }

func (u *unit) add(p fleet.Problem) {
	if p.Severity == "" {
		p.Severity = fleet.Error
	}
	u.res.Problems = append(u.res.Problems, p)
}

func (u *unit) say(pos fleet.Position, format string, args ...any) {
	u.add(fleet.Problem{Position: pos, Message: fmt.Sprintf(format, args...)})
}

// sayOf reports a problem of an entity, at its place.
func (u *unit) sayOf(kind, name, format string, args ...any) {
	u.add(fleet.Problem{Position: u.placeOf(kind, name).Position, Kind: kind, Name: name, Message: fmt.Sprintf(format, args...)})
}

// readOwn parses the directory's own CUE files and checks what can be told from the
// text alone. It reports whether there is anything to evaluate.
func (u *unit) readOwn() bool {
	es, err := u.fs.listCUE(u.job.Dir)
	if err != nil {
		return false
	}
	packages := map[string][]string{}
	text := false // whether a file that does not parse looks like a workspace
	for _, e := range es {
		if hidden(e.Name) {
			continue
		}
		p := path.Join(u.job.Dir, e.Name)
		b, ok := u.readText(p)
		if !ok {
			continue
		}
		f, err := u.loader.parse(p)
		if err != nil {
			u.report(err)
			text = text || strings.Contains("\n"+string(b), "\nworkspace")
			continue
		}
		pkg := f.PackageName()
		packages[pkg] = append(packages[pkg], p)
		u.own[p] = f
		u.attributes(f)
		u.imports(f)
		u.exponents(f)
	}
	return u.classify(packages, text)
}

// hidden names are refused where the tree is read.
func hidden(name string) bool {
	return strings.HasPrefix(name, "_") || strings.HasPrefix(name, ".") ||
		strings.HasSuffix(name, "_tool.cue") || strings.HasSuffix(name, "_test.cue")
}

func (u *unit) readText(p string) ([]byte, bool) {
	b, err := u.fs.read(p)
	if err != nil {
		u.say(fleet.Position{File: p}, "%s", tooLarge(err))
		return nil, false
	}
	return b, u.isText(p, b)
}

func tooLarge(err error) string {
	return "file too large: " + err.Error() + "; split it"
}

func (u *unit) isText(p string, b []byte) bool {
	if utf8.Valid(b) {
		return true
	}
	i := 0
	for i < len(b) {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		i += n
	}
	u.say(positionAt(p, b, i), "invalid UTF-8: byte 0x%02x; save the file as UTF-8", b[i])
	return false
}

func positionAt(p string, b []byte, offset int) fleet.Position {
	head := string(b[:offset])
	line := strings.Count(head, "\n")
	return fleet.Position{File: p, Line: line + 1, Column: offset - (strings.LastIndexByte(head, '\n') + 1) + 1}
}

// classify tells what the directory is by the packages of its files.
func (u *unit) classify(packages map[string][]string, text bool) bool {
	if len(packages) == 0 {
		if u.job.Dir == "." {
			u.res.Role = rolePlatform
		} else if !text && !strings.Contains(u.job.Dir+"/", "/workspace") && within(u.job.Dir, foldersDir) && !u.refusedSoFar() {
			u.res.Role = roleFolder
		}
		return false
	}
	for _, p := range packages[""] {
		u.say(fleet.Position{File: p, Line: 1, Column: 1}, "no package clause: CUE would leave the file out; begin it with `package %s`", fleetPackage)
	}
	delete(packages, "")
	if packages[fleetPackage] == nil && len(packages) == 1 && u.job.Dir != "." {
		u.res.Role = rolePackage // to be imported
		return false
	}
	for name, files := range packages {
		if name == fleetPackage {
			continue
		}
		for _, p := range files {
			u.say(fleet.Position{File: p, Line: 1, Column: 1}, "package %s beside package %s: CUE would leave the file out; make it `package %s`, or move it to a directory of its own and import it", name, fleetPackage, fleetPackage)
		}
	}
	if packages[fleetPackage] == nil {
		return false
	}
	for _, p := range packages[fleetPackage] {
		switch {
		case u.job.Dir == ".":
			u.res.Role = rolePlatform
		case !within(u.job.Dir, foldersDir):
			u.res.Role = roleFolder
			u.say(fleet.Position{File: p, Line: 1, Column: 1}, "package %s outside %s/ belongs to no workspace; move it below %s/, or give it another package name and import it", fleetPackage, foldersDir, foldersDir)
		case u.job.Inside != "":
			u.res.Role = roleFolder
			u.say(fleet.Position{File: p, Line: 1, Column: 1}, "package %s below the workspace %s: nothing evaluates it; move it up into the workspace", fleetPackage, u.job.Inside)
		}
	}
	if u.res.Role == roleUnknown {
		u.res.Role = roleFolder
		for _, f := range u.own {
			for _, d := range f.Decls {
				if labelOf(d) == "workspace" {
					u.res.Role = roleWorkspace
				}
			}
		}
		if text {
			u.res.Role = roleUnknown
		}
	}
	return true
}

// labelOf returns the name of a plain field, or nothing.
func labelOf(d ast.Node) string {
	f, ok := d.(*ast.Field)
	if !ok {
		return ""
	}
	name, _, err := ast.LabelName(f.Label)
	if err != nil {
		return ""
	}
	return name
}

// attributes refuses what leaves a file out depending on the caller.
func (u *unit) attributes(f *ast.File) {
	if a := conditional(f); a != nil {
		name, _ := a.Split()
		u.say(u.position(a.Pos()), "@%s: whether the file counts would depend on who evaluates it; remove the attribute", name)
	}
}

// load builds the directory's instance: its own files and those above.
func (u *unit) load() bool {
	u.inst = u.loader.instance(u.job.Dir, ".", fleetPackage, path.Join(u.module, u.job.Dir)+":"+fleetPackage)
	if u.inst.Err != nil {
		u.report(u.inst.Err)
		return false
	}
	u.findPlaces(u.inst.Files)
	u.ctx = cuecontext.New()
	u.value = u.ctx.BuildInstance(u.inst)
	u.embeds(u.inst.Files)
	if err := u.value.Err(); err != nil {
		u.report(err) // and go on: validation finds more
	}
	if u.res.Role == roleFolder && u.value.LookupPath(cue.ParsePath("workspace")).Exists() {
		u.res.Role = roleWorkspace // declared, but not as a plain field
	}
	return true
}

// above checks the platform or a folder, which may be incomplete.
func (u *unit) above() {
	if err := u.value.Validate(); err != nil {
		u.report(err)
	}
	u.closed()
	u.entities()
	for _, kind := range []string{"node", "device"} {
		for name := range u.res.Entities {
			if n, ok := strings.CutPrefix(name, kind+"/"); ok {
				u.sayOf(kind, n, "%ss live in workspaces alone; move it into the workspace that runs it", kind)
			}
		}
	}
	if u.job.Dir == "." {
		if w := u.value.LookupPath(cue.ParsePath("workspace")); w.Exists() {
			u.sayOf("workspace", "", "the platform is no workspace; make a directory below %s/", foldersDir)
		}
	}
	u.sealed(nil)
	u.declared()
}

// closed refuses a platform in which typos would pass. It tries one: what a value says
// of itself does not tell. What is closed in the platform is closed everywhere below.
func (u *unit) closed() {
	if u.job.Dir != "." || u.refusedSoFar() {
		return
	}
	const typo = "selvedgeTypo"
	l := newLoader(u.fs, u.module, u.version)
	f, err := parser.ParseFile(builtin+"typo.cue", "package "+fleetPackage+"\n\n"+typo+": 1\n", parser.Version(u.version))
	if err != nil {
		panic(err) // a constant
	}
	l.extra = f
	err = cuecontext.New().BuildInstance(l.instance(".", ".", fleetPackage, u.inst.ImportPath)).Validate()
	if err == nil || !strings.Contains(err.Error(), typo) {
		u.say(fleet.Position{File: "platform.cue", Line: 1, Column: 1},
			"the schema does not close the repo, typos would pass; begin platform.cue with `@experiment(explicitopen)` and embed `v1.#Repo` at its top")
	}
}

// entities lists what the instance holds by name, and where.
func (u *unit) entities() {
	for _, kind := range entityKinds {
		it, err := u.value.LookupPath(cue.MakePath(cue.Str(kind))).Fields()
		if err != nil {
			continue // not there, or refused already
		}
		for it.Next() {
			name := it.Selector().Unquoted()
			u.res.Entities[kind+"/"+name] = u.placeOf(kind, name)
		}
	}
}

func (u *unit) scopeOf(kind, name string) string {
	if s, ok := u.job.Inherits[kind+"/"+name]; ok {
		return s
	}
	if u.job.Dir == "." {
		return ""
	}
	return u.job.Dir
}
