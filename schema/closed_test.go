package schema_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/cuecontext"
	"cuelang.org/go/cue/errors"
	"cuelang.org/go/cue/load"

	"selvedge/schema"
)

// TestClosed puts a field that the schema does not know into every struct that it
// does know, and wants it refused there: some ways of writing a schema that look
// right let it pass in silence.
func TestClosed(t *testing.T) {
	everything, err := os.ReadFile(filepath.Join("testdata", "everything.json"))
	if err != nil {
		t.Fatal(err)
	}
	r := newRepo(t)
	if err := r.eval(string(everything)); err != nil {
		t.Fatalf("everything.json itself: %v", err)
	}
	var doc any
	if err := json.Unmarshal(everything, &doc); err != nil {
		t.Fatal(err)
	}
	for _, typo := range []any{1, map[string]any{}, map[string]any{"a": 1}} {
		left := map[string]map[string]any{} // by the path of the unknown field
		eachStruct(doc, nil, func(path []string, m map[string]any) {
			if !slices.Contains(path, "params") { // open by design
				left[strings.Join(append(path, unknown), ".")] = m
			}
		})
		all := len(left)
		// Many at once, since that is quick: those that have no other below them, which would
		// hide it. Then by itself each that CUE did not name.
		for before := 0; len(left) != before; {
			before = len(left)
			for _, m := range left {
				m[unknown] = typo
			}
			for p := range left {
				for q, m := range left {
					if p != q && strings.HasPrefix(p, strings.TrimSuffix(q, unknown)) {
						delete(m, unknown)
					}
				}
			}
			problems := errors.Errors(r.eval(encode(t, doc)))
			for _, m := range left {
				delete(m, unknown)
			}
			for _, e := range problems {
				p := strings.ReplaceAll(strings.Join(e.Path(), "."), `"`, "")
				delete(left, strings.TrimSuffix(p, ".a")) // the unknown field itself, or what it holds
			}
		}
		for p, m := range left {
			m[unknown] = typo
			if r.eval(encode(t, doc)) == nil {
				t.Errorf("an unknown field with value %v is accepted: %s", typo, p)
			}
			delete(m, unknown)
		}
		t.Logf("value %v: %d structs, %d of them tried alone", typo, all, len(left))
	}
}

// unknown is a name that no struct has and no pattern allows.
const unknown = "!typo"

func encode(t *testing.T, doc any) string {
	t.Helper()
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func eachStruct(v any, path []string, f func([]string, map[string]any)) {
	path = path[:len(path):len(path)]
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			eachStruct(v[k], append(path, k), f)
		}
		f(path, v)
	case []any:
		for i, e := range v {
			eachStruct(e, append(path, strconv.Itoa(i)), f)
		}
	}
}

// repo is a config repo on disk whose one workspace is given as JSON.
type repo struct {
	dir string
}

func newRepo(t *testing.T) repo {
	t.Helper()
	t.Setenv("CUE_REGISTRY", "none")
	r := repo{dir: t.TempDir()}
	r.write(t, platform())
	return r
}

// platform is the schema, vendored, and the files above all folders.
func platform() map[string]string {
	files := map[string]string{
		"cue.mod/module.cue": "module: \"example.com/fleet@v0\"\nlanguage: version: \"" + schema.LanguageVersion + "\"\n",
		"platform.cue":       "@experiment(explicitopen)\n\npackage fleet\n\nimport \"selvedge.dev/schema/v1\"\n\nv1.#Repo\n\nplatform: name: \"Acme\"\nnode: [string]: labels: company: \"acme\"\n",
	}
	for name, data := range schema.Vendor() {
		files[name] = string(data)
	}
	return files
}

// eval evaluates a workspace as the reconciler does.
func (r repo) eval(workspace string) error {
	ws := filepath.Join(r.dir, "folders", "plant-a", "line-1")
	inst := load.Instances([]string{"./folders/plant-a/line-1"}, &load.Config{Dir: r.dir, Overlay: map[string]load.Source{
		filepath.Join(ws, "workspace.cue"): load.FromString("package fleet\n\n" + workspace),
	}})[0]
	if inst.Err != nil {
		return inst.Err
	}
	return cuecontext.New().BuildInstance(inst).Validate(cue.Concrete(true), cue.Final())
}
