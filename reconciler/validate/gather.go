package validate

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"selvedge/schema"
	"selvedge/schema/fleet"
)

// upgrade is how a repo gets the schema that is built in.
const upgrade = "run `selvedge init --upgrade` and commit what it changes"

// vendored refuses a repo whose copy of the schema is not the one built in: the
// files would mean something else to plain CUE than to us.
func (r *round) vendored() ([]fleet.Problem, error) {
	var out []fleet.Problem
	say := func(file, format string, args ...any) {
		out = append(out, fleet.Problem{Severity: fleet.Error, Position: fleet.Position{File: file}, Message: fmt.Sprintf(format, args...)})
	}
	if _, ok := r.x.files["cue.mod/module.cue"]; !ok {
		say("cue.mod/module.cue", "missing: this is not a config repo; run `selvedge init`")
		return out, nil
	}
	want := schema.Vendor()
	if _, ok := r.x.dirs[schema.VendorDir]; !ok {
		say(schema.VendorDir, "missing: the schema is not vendored; %s", upgrade)
	} else {
		for _, e := range r.x.dirs[schema.VendorDir] {
			if p := path.Join(schema.VendorDir, e.Name); want[p] == nil {
				say(p, "not a file of the schema; remove it, or %s", upgrade)
			}
		}
		for _, p := range slices.Sorted(keys(want)) {
			got, err := r.x.read(p, int64(len(want[p]))+1)
			var much *tooMuchError
			switch {
			case errors.Is(err, fs.ErrNotExist):
				say(p, "missing: the vendored schema is incomplete; %s", upgrade)
			case errors.As(err, &much) || err == nil && !bytes.Equal(got, want[p]):
				say(p, "the vendored schema differs from the built-in one; %s", upgrade)
			case err != nil:
				return nil, err
			}
		}
	}
	if _, ok := r.x.files["platform.cue"]; !ok {
		say("platform.cue", "missing: it declares the platform and closes the schema; run `selvedge init`")
	}
	return out, nil
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// gather makes the fleet's sources of the verdicts, and returns the problems that
// belong to no workspace.
func (r *round) gather(f *fleet.Fleet, dirs []string) []fleet.Problem {
	var repo []fleet.Problem
	own := map[string][]fleet.Problem{}
	for _, p := range r.x.problems {
		d := p.dir
		for d != "." && r.verdicts[d] == nil {
			d = path.Dir(d)
		}
		own[d] = append(own[d], p.Problem)
	}
	for _, dir := range dirs {
		own[dir] = append(own[dir], r.verdicts[dir].Result.Problems...)
	}
	if r.verdicts["."] == nil {
		repo = append(repo, own["."]...)
	}
	for _, dir := range dirs {
		vd := r.verdicts[dir]
		var above []fleet.Problem
		for _, up := range r.lineage(dir) {
			for _, p := range own[up] {
				if p.Severity == fleet.Error {
					above = append(above, p)
				}
			}
		}
		role := vd.Result.Role
		if role == roleWorkspace || role == roleUnknown && within(dir, foldersDir) {
			f.Workspaces[dir] = vd.sourceOf(dir, own[dir], above)
			continue
		}
		switch {
		case dir == ".":
			f.Folders[""] = vd.sourceOf("", own[dir], nil)
		case role == roleFolder && within(dir, foldersDir):
			f.Folders[dir] = vd.sourceOf(dir, own[dir], above)
		}
		for _, p := range own[dir] {
			if dir != "." {
				p.Workspace = dir
			}
			repo = append(repo, p)
		}
	}
	return repo
}

// sourceOf returns the workspace's source: the same one as long as nothing changed.
func (vd *verdict) sourceOf(dir string, own, above []fleet.Problem) *fleet.Source {
	problems := slices.Concat(own, above)
	blamed := ""
	if len(problems) > 0 {
		blamed = fmt.Sprint(problems)
	}
	if vd.source != nil && vd.blamed == blamed {
		return vd.source
	}
	s := &fleet.Source{Path: dir, ID: vd.id, Entities: vd.Result.Entities}
	if blamed != "" {
		sum := sha256.Sum256([]byte(vd.id + blamed))
		s.ID = hex.EncodeToString(sum[:])
	}
	refused := false
	for _, p := range problems {
		p.Workspace = dir
		refused = refused || p.Severity == fleet.Error
		s.Problems = append(s.Problems, p)
	}
	if vd.unit == nil && vd.Result.Unit != nil {
		u := new(fleet.Unit)
		if err := json.Unmarshal(vd.Result.Unit, u); err != nil {
			refused = true
			s.Problems = append(s.Problems, fleet.Problem{
				Severity: fleet.Error, Workspace: dir, Position: fleet.Position{File: dir},
				Message: "values do not fit what the engine knows: " + strings.TrimPrefix(err.Error(), "json: ") + "; " + upgrade,
			})
		} else {
			vd.unit = u
		}
	}
	if !refused {
		s.Unit = vd.unit
	}
	s.Problems = fleet.SortProblems(s.Problems)
	vd.source, vd.blamed = s, blamed
	return s
}
