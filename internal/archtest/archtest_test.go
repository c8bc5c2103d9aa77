package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "selvedge"

// topLevel are the folders that Go code may stand in: the flow of the product.
var topLevel = []string{"cmd", "edge", "internal", "policies", "reconciler", "schema", "test"}

type file struct {
	name string // below the root
	ast  *ast.File
}

// files parses all Go files of the module up to their imports, by package directory.
func files(t *testing.T, root string) map[string][]file {
	t.Helper()
	fset := token.NewFileSet()
	found := map[string][]file{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, name)
		if d.IsDir() {
			if base := d.Name(); rel != "." && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || base == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, name, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(rel))
		found[dir] = append(found[dir], file{filepath.ToSlash(rel), f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestFloors(t *testing.T) {
	for dir, fs := range files(t, "../..") {
		for _, f := range fs {
			if strings.HasSuffix(f.name, "_test.go") {
				continue
			}
			for _, im := range f.ast.Imports {
				p, _ := strconv.Unquote(im.Path.Value)
				imported, ours := strings.CutPrefix(p, module+"/")
				if !ours {
					continue
				}
				if ok, why := Allowed(dir, imported); !ok {
					t.Errorf("%s imports %s: %s (internal/archtest/floors.go)", f.name, imported, why)
				}
			}
		}
	}
}

func TestFolders(t *testing.T) {
	for dir, fs := range files(t, "../..") {
		top, _, _ := strings.Cut(dir, "/")
		ok := false
		for _, want := range topLevel {
			ok = ok || top == want
		}
		if !ok {
			t.Errorf("%s: Go code stands only below %v", fs[0].name, topLevel)
		}
	}
}

// TestPackageDocs asks each package for one sentence on what it is.
func TestPackageDocs(t *testing.T) {
	for dir, fs := range files(t, "../..") {
		var docs []string
		name, only := "", true
		for _, f := range fs {
			if strings.HasSuffix(f.name, "_test.go") {
				continue
			}
			only, name = false, f.ast.Name.Name
			if f.ast.Doc != nil {
				docs = append(docs, f.ast.Doc.Text())
			}
		}
		if only {
			continue // a directory of tests
		}
		want := "Package " + name + " "
		if name == "main" {
			want = "Command " + filepath.Base(dir) + " "
		}
		switch {
		case len(docs) != 1:
			t.Errorf("%s: %d package comments, want one", dir, len(docs))
		case !strings.HasPrefix(docs[0], want):
			t.Errorf("%s: package comment starts %.40q, want %q", dir, docs[0], want)
		}
	}
}

func TestFileSize(t *testing.T) {
	const most = 500
	for _, fs := range files(t, "../..") {
		for _, f := range fs {
			b, err := os.ReadFile(filepath.Join("../..", f.name))
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(b), "\n"); n > most && !strings.HasSuffix(f.name, "_test.go") && !ast.IsGenerated(f.ast) {
				t.Errorf("%s has %d lines; split it near %d", f.name, n, most)
			}
		}
	}
}

// TestForeign looks at everything that a binary links.
func TestForeign(t *testing.T) {
	for cmd, banned := range foreign {
		if _, err := os.Stat(filepath.Join("../..", cmd)); err != nil {
			t.Errorf("%s: %v", cmd, err)
			continue
		}
		out, err := exec.Command("go", "list", "-deps", module+"/"+cmd).Output()
		if err != nil {
			t.Fatalf("go list -deps %s: %v", cmd, err)
		}
		for dep := range strings.FieldsSeq(string(out)) {
			for prefix, why := range banned {
				if strings.HasPrefix(dep, prefix) {
					t.Errorf("%s links %s: %s", cmd, dep, why)
				}
			}
		}
	}
}
