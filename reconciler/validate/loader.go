package validate

import (
	"errors"
	"path"
	"slices"
	"strings"

	"cuelang.org/go/cue/ast"
	"cuelang.org/go/cue/build"
	cueerrors "cuelang.org/go/cue/errors"
	"cuelang.org/go/cue/parser"
	"cuelang.org/go/cue/token"

	"selvedge/schema"
)

// vendorDir holds the packages of others.
const vendorDir = "cue.mod/pkg"

// loader puts together instances: a directory's files and those of the same package
// above it, and what they import. cue/load does the same, but in v0.17.1 cannot load
// packages from cue.mod/pkg when it reads from an fs.FS; and it reads each data
// file, imported or not. The schema's fixtures hold the two against each other.
type loader struct {
	fs      *askFS
	module  string
	version string // of the language
	parsed  map[string]*ast.File
	extra   *ast.File // added to the first instance
	stack   []string
	ctx     *build.Context
}

func newLoader(fsys *askFS, module, version string) *loader {
	l := &loader{fs: fsys, module: module, version: version, parsed: map[string]*ast.File{}}
	l.ctx = build.NewContext(build.Loader(l.load))
	return l
}

// parse parses a file once.
func (l *loader) parse(p string) (*ast.File, error) {
	if f, ok := l.parsed[p]; ok {
		return f, nil
	}
	b, err := l.fs.read(p)
	if err != nil {
		return nil, cueerrors.Newf(token.NoPos, "%s: %v", p, err)
	}
	f, err := parser.ParseFile(p, b, parser.Version(l.version))
	if err != nil {
		return nil, err
	}
	if tf := f.Pos().File(); tf != nil { // @embed reads relative to it
		tf.SetFSLoc(token.FSLoc{FS: l.fs, Path: p, FromFSPath: func(p string) string { return p }})
	}
	l.parsed[p] = f
	return f, nil
}

// instance loads package pkg in dir; top is the highest directory whose files may belong to it.
func (l *loader) instance(dir, top, pkg, importPath string) *build.Instance {
	inst := l.ctx.NewInstance(dir, nil)
	inst.PkgName, inst.ImportPath, inst.DisplayPath = pkg, importPath, importPath
	inst.Module, inst.Root = l.module, "."
	if slices.Contains(l.stack, importPath) {
		inst.ReportError(cueerrors.Newf(token.NoPos, "import cycle: %s imports itself", importPath))
		return inst
	}
	l.stack = append(l.stack, importPath)
	defer func() { l.stack = l.stack[:len(l.stack)-1] }()

	var dirs []string
	for d := dir; ; d = path.Dir(d) {
		dirs = append(dirs, d)
		if d == top || d == "." {
			break
		}
	}
	slices.Reverse(dirs)
	own := 0
	for _, d := range dirs {
		own = 0
		es, err := l.fs.listCUE(d)
		if err != nil {
			continue
		}
		for _, e := range es {
			if hidden(e.Name) {
				continue
			}
			f, err := l.parse(path.Join(d, e.Name))
			if err != nil {
				inst.ReportError(cueerrors.Promote(err, ""))
				continue
			}
			if f.PackageName() != pkg {
				continue
			}
			if a := conditional(f); a != nil {
				inst.ReportError(cueerrors.Newf(a.Pos(), "%s: whether the file counts would depend on who evaluates it", a.Text))
				continue
			}
			own++
			if err := inst.AddSyntax(f); err != nil {
				break
			}
		}
	}
	if own == 0 {
		inst.ReportError(cueerrors.Newf(token.NoPos, "no files of package %s in %s", pkg, dir))
	}
	if l.extra != nil {
		_ = inst.AddSyntax(l.extra)
		l.extra = nil
	}
	_ = inst.Complete() // kept in inst.Err
	return inst
}

// conditional returns the attribute that may leave a file out, if there is one.
func conditional(f *ast.File) *ast.Attribute {
	for _, d := range f.Decls {
		if a, ok := d.(*ast.Attribute); ok {
			if name, _ := a.Split(); name == "if" || name == "ignore" {
				return a
			}
		}
	}
	return nil
}

// load is called for each import.
func (l *loader) load(pos token.Pos, p string) *build.Instance {
	dir, err := importDir(p, l.module)
	if dir == "" && err == nil {
		return nil // CUE's own
	}
	pkg := ast.ParseImportPath(p).Qualifier
	if err == nil {
		_, err = l.fs.listCUE(dir)
	}
	if err != nil {
		inst := l.ctx.NewInstance(dir, nil)
		inst.ReportError(cueerrors.Newf(pos, "%v", importProblem(p, dir, l.module)))
		return inst
	}
	top := "."
	if within(dir, vendorDir) {
		top = vendorDir
	}
	return l.instance(dir, top, pkg, p)
}

var errLeaves = errors.New("leaves the repo")

// importDir tells in which directory an imported package lies; none for one of CUE's own.
func importDir(p, module string) (string, error) {
	ip := ast.ParseImportPath(p)
	first, _, _ := strings.Cut(ip.Path, "/")
	switch {
	case strings.HasPrefix(p, ".") || strings.HasPrefix(p, "/") || !validPath(ip.Path):
		return "", errLeaves
	case first == "tool":
		return "", errLeaves
	case !strings.Contains(first, "."):
		return "", nil
	case ip.Path == module:
		return ".", nil
	case strings.HasPrefix(ip.Path, module+"/"):
		return strings.TrimPrefix(ip.Path, module+"/"), nil
	}
	return path.Join(vendorDir, ip.Path), nil
}

func validPath(p string) bool { return p != "" && path.Clean(p) == p && p != ".." }

// importProblem says what is wrong with an import that is not there.
func importProblem(p, dir, module string) string {
	ip := ast.ParseImportPath(p)
	switch first, _, _ := strings.Cut(ip.Path, "/"); {
	case first == "tool":
		return "import \"" + p + "\": packages below tool act on the machine; remove it"
	case dir == "":
		return "import \"" + p + "\": relative, absolute and unclean paths are no import paths; write " + module + "/…"
	case within(dir, vendorDir):
		return "import \"" + p + "\": neither in this repo nor vendored, and no registry is asked; vendor it as " + dir
	}
	return "import \"" + p + "\": the repo has no directory " + dir + "; check the path"
}

// languageVersion is what the files of a repo are parsed as.
func languageVersion(declared string) string {
	if declared == "" {
		return schema.LanguageVersion
	}
	return declared
}
