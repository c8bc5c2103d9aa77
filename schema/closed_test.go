package schema_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/cuecontext"
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
	n := 0
	eachStruct(doc, "", func(path string, m map[string]any) {
		if strings.Contains(path, ".params") {
			return // open by design
		}
		for _, typo := range []any{1, map[string]any{}, map[string]any{"a": 1}} {
			n++
			m["!typo"] = typo
			b, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			if r.eval(string(b)) == nil {
				t.Errorf("an unknown field with value %v is accepted in %s", typo, path)
			}
		}
		delete(m, "!typo")
	})
	t.Logf("%d unknown fields tried", n)
}

func eachStruct(v any, path string, f func(string, map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			eachStruct(v[k], path+"."+k, f)
		}
		f(path, v)
	case []any:
		for i, e := range v {
			eachStruct(e, fmt.Sprintf("%s[%d]", path, i), f)
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
