package schema_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
