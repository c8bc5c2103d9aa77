package validate

import (
	"strings"
	"testing"

	"selvedge/schema/schematest"
)

// TestFixtures holds this package to the schema's fixtures; the schema's own test
// holds plain cue to the same ones.
func TestFixtures(t *testing.T) {
	fixtures, err := schematest.Load()
	if err != nil {
		t.Fatal(err)
	}
	v := validator(t, Config{})
	for _, fx := range fixtures {
		t.Run(fx.Name, func(t *testing.T) {
			dir := t.TempDir()
			if err := fx.Write(dir); err != nil {
				t.Fatal(err)
			}
			f, repo := check(t, v, dir)
			got := all(f, repo)
			t.Log(got)
			refused := len(repo) > 0
			for _, s := range f.Workspaces {
				refused = refused || s.Unit == nil
			}
			if refused == fx.OK {
				t.Fatalf("refused %v, want %v", refused, !fx.OK)
			}
			if !strings.Contains(got, fx.Want) {
				t.Errorf("no %q", fx.Want)
			}
		})
	}
}
