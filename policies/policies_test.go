package policies

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/cuecontext"
)

// TestPolicies shows to each policy a merged app that it accepts and one that it
// refuses, and nothing but the field at fault may be named.
func TestPolicies(t *testing.T) {
	fault := map[string]string{
		"digest-pinned": "container.web.image",
		"limits":        "container.web.resources.cpu",
		"no-privileged": "container.web.privileged",
	}
	if len(All()) != len(fault) {
		t.Errorf("%d policies, %d tested", len(All()), len(fault))
	}
	for _, f := range All() {
		t.Run(f.Name, func(t *testing.T) {
			ctx := cuecontext.New()
			p := ctx.CompileBytes(f.Source, cue.Filename(f.Name+".cue")).LookupPath(cue.MakePath(cue.Str("policy"), cue.Str(f.Name)))
			if p.Err() != nil {
				t.Fatal(p.Err())
			}
			for _, name := range []string{"description", "target"} {
				if s, err := p.LookupPath(cue.ParsePath(name)).String(); err != nil || s == "" {
					t.Errorf("%s: %q, %v", name, s, err)
				}
			}
			rule := p.LookupPath(cue.ParsePath("#rule"))
			if err := rule.Unify(app(t, ctx, f.Name+".accept.json")).Validate(cue.Concrete(true), cue.Final()); err != nil {
				t.Errorf("refused what is right: %v", err)
			}
			err := rule.Unify(app(t, ctx, f.Name+".refuse.json")).Validate(cue.Concrete(true), cue.Final())
			if err == nil || !strings.Contains(err.Error(), fault[f.Name]) {
				t.Errorf("want %s refused, got %v", fault[f.Name], err)
			}
		})
	}
}

// TestEmpty: an app without containers breaks no policy.
func TestEmpty(t *testing.T) {
	ctx := cuecontext.New()
	for _, f := range All() {
		rule := ctx.CompileBytes(f.Source).LookupPath(cue.MakePath(cue.Str("policy"), cue.Str(f.Name), cue.Def("rule")))
		if err := rule.Unify(ctx.CompileString(`placement: {}`)).Validate(cue.Concrete(true), cue.Final()); err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
	}
}

func app(t *testing.T, ctx *cue.Context, name string) cue.Value {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	v := ctx.CompileBytes(b)
	if v.Err() != nil {
		t.Fatal(v.Err())
	}
	return v
}
