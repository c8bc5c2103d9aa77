package schema_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"

	"selvedge/schema"
	"selvedge/schema/fleet"
	"selvedge/schema/schematest"
)

// TestSkeleton: what `selvedge init` writes is accepted as it is.
func TestSkeleton(t *testing.T) {
	cue := tool(t, "cue")
	f := schematest.Fixture{Files: schema.Skeleton()}
	dir := t.TempDir()
	if err := f.Write(dir); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"cue.mod/module.cue", "platform.cue", ".gitlab-ci.yml", ".github/workflows/selvedge.yml", "README.md"} {
		if len(f.Files[want]) == 0 {
			t.Errorf("no %s", want)
		}
	}
	if !strings.Contains(string(f.Files["cue.mod/module.cue"]), schema.LanguageVersion) {
		t.Errorf("module.cue does not name language version %s", schema.LanguageVersion)
	}
	vet(t, cue, dir, "-c", "./folders/...")
}

// TestExample holds the example to what it is for: plain CUE accepts it, its sizes are
// as promised, its keys are keys, and everything in it has a place in the Go values.
func TestExample(t *testing.T) {
	cue := tool(t, "cue")
	dir, err := filepath.Abs("../examples-repo")
	if err != nil {
		t.Fatal(err)
	}
	var workspaces []string
	err = filepath.WalkDir(filepath.Join(dir, "folders"), func(p string, _ os.DirEntry, err error) error {
		if filepath.Base(p) == "workspace.cue" {
			rel, _ := filepath.Rel(dir, filepath.Dir(p))
			workspaces = append(workspaces, "./"+filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(workspaces) != 4 {
		t.Errorf("%d workspaces", len(workspaces))
	}
	vet(t, cue, dir, "-c=false", "./...")
	vet(t, cue, dir, append([]string{"-c"}, workspaces...)...)
	nodes, apps := map[string]string{}, map[string]bool{}
	keys := map[string]string{}
	for _, w := range workspaces {
		cmd := exec.Command(cue, "export", w)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CUE_REGISTRY=none")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("export %s: %v", w, err)
		}
		var u fleet.Unit
		d := json.NewDecoder(strings.NewReader(string(out)))
		d.DisallowUnknownFields()
		if err := d.Decode(&u); err != nil {
			t.Fatalf("%s: %v", w, err)
		}
		for name, n := range u.Node {
			if other, twice := nodes[name]; twice {
				t.Errorf("node %s: in %s and %s", name, other, w)
			}
			nodes[name] = w
			if n.Identity == nil {
				continue
			}
			if !nkeys.IsValidPublicUserKey(n.Identity.PublicKey) {
				t.Errorf("node %s: no nkey of a user", name)
			}
			if other, twice := keys[n.Identity.PublicKey]; twice {
				t.Errorf("nodes %s and %s have one key", name, other)
			}
			keys[n.Identity.PublicKey] = name
		}
		for name := range u.App {
			apps[name] = true
		}
	}
	if len(nodes) != 24 || len(apps) != 8 {
		t.Errorf("%d nodes, %d apps", len(nodes), len(apps))
	}
	if nodes["gw-demo"] != "./folders/munich/lab" || !apps["hello"] {
		t.Error("the demo's node or app is missing")
	}
}

// TestLanguageVersion: the example and the fixtures name the version that closes.
func TestLanguageVersion(t *testing.T) {
	for _, p := range []string{"../examples-repo/cue.mod/module.cue", "skeleton/cue.mod/module.cue", "testdata/base.txtar"} {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(strings.Split(string(b), "\n"), `language: version: "`+schema.LanguageVersion+`"`) {
			t.Errorf("%s: not language version %s", p, schema.LanguageVersion)
		}
	}
}

func vet(t *testing.T, cue, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command(cue, append([]string{"vet"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CUE_REGISTRY=none")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("cue vet %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
