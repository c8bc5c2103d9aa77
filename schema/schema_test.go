package schema_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cuelang.org/go/cue"

	"selvedge/schema"
	"selvedge/schema/schematest"
)

// TestFixtures runs plain CUE on every fixture: what people's editors and CI see
// without any program of ours.
func TestFixtures(t *testing.T) {
	cue := tool(t, "cue")
	fixtures, err := schematest.Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fixtures {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := f.Write(dir); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(cue, append([]string{"vet", "-c"}, f.Workspaces()...)...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "CUE_REGISTRY=none")
			out, err := cmd.CombinedOutput()
			switch {
			case (f.OK || !f.Plain) && err != nil:
				t.Errorf("refused: %v\n%s", err, out)
			case !f.OK && f.Plain && err == nil:
				t.Errorf("accepted; want a message with %q", f.Want)
			case !f.OK && f.Plain && !strings.Contains(string(out), f.Want):
				t.Errorf("the message lacks %q:\n%s", f.Want, out)
			}
		})
	}
}

func TestVendor(t *testing.T) {
	files := schema.Vendor()
	err := fs.WalkDir(schema.Files(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(schema.Files(), p)
		if got := files[schema.VendorDir+"/"+p]; string(got) != string(b) {
			t.Errorf("Vendor lacks %s or differs from Files", p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 5 {
		t.Errorf("Vendor has %d files", len(files))
	}
	if d := schema.Digest(); d != schema.Digest() || !strings.HasPrefix(d, "sha256:") || len(d) != 71 {
		t.Errorf("Digest = %q", d)
	}
}

// tool finds a program in SELVEDGE_TOOLS or on the PATH.
func tool(t *testing.T, name string) string {
	t.Helper()
	if dir := os.Getenv("SELVEDGE_TOOLS"); dir != "" {
		p := filepath.Join(dir, name)
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	p, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing: run make tools", name)
		}
		t.Skipf("%s is missing: run make tools", name)
	}
	return p
}

// TestSupported holds the table against the schema.
func TestSupported(t *testing.T) {
	table := schema.Supported()
	if !slices.IsSortedFunc(table, func(a, b schema.Support) int { return strings.Compare(a.Path, b.Path) }) {
		t.Error("not sorted by path")
	}
	root := v1(t).LookupPath(cue.ParsePath("#Repo"))
	for _, s := range table {
		v := root
		for name := range strings.SplitSeq(s.Path, ".") {
			if name == "*" {
				v, _ = pattern(v)
				continue
			}
			v = fields(t, v)[name].value
			if !v.Exists() {
				t.Errorf("%s: not in the schema", s.Path)
				break
			}
		}
		if (s.Why == "") != (s.Level == schema.Acts) {
			t.Errorf("%s: level %s, why %q", s.Path, s.Level, s.Why)
		}
	}
	for kind := range fields(t, root) {
		if got := schema.LevelAt(kind); got.Path != kind {
			t.Errorf("kind %s: not in the table", kind)
		}
	}
	for path, want := range map[string]schema.Level{
		"app.*.container.*.image":   schema.Acts,
		"app.*.rollout.waves":       schema.Refuse,
		"app.*.secret.*.env":        schema.Refuse,
		"node.*.identity.publicKey": schema.Acts,
		"node.*.windows":            schema.Refuse,
		"device.*.modbus.unit":      schema.Warn,
		"nonsense":                  schema.Refuse,
	} {
		if got := schema.LevelAt(path).Level; got != want {
			t.Errorf("LevelAt(%s) = %s, want %s", path, got, want)
		}
	}
}
