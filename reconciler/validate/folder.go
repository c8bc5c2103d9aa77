package validate

import (
	"encoding/json"

	"cuelang.org/go/cue"
)

// accessKinds count without a workspace below the directory that declares them.
var accessKinds = []string{"identity", "roleBinding", "accessGuide"}

// declared renders what the platform or a folder says by itself: who it is, and what it
// declares of people and joining. All of that is sealed, so that nothing below could
// complete what is incomplete here.
func (u *unit) declared() {
	if u.job.Dir == "." {
		it, err := u.value.LookupPath(cue.MakePath(cue.Str("accessGuide"))).Fields()
		for err == nil && it.Next() {
			u.sayOf("accessGuide", it.Selector().Unquoted(), "nodes join folders or workspaces; move it into the folder whose nodes it is for")
		}
	}
	values := map[string]any{}
	for _, kind := range []string{"platform", "folder"} {
		v := u.value.LookupPath(cue.MakePath(cue.Str(kind)))
		if !v.Exists() || kind == "folder" && !u.declares(kind) {
			continue
		}
		if b, err := v.MarshalJSON(); err == nil { // else a workspace says it
			values[kind] = json.RawMessage(b)
		}
	}
	for _, kind := range accessKinds {
		it, err := u.value.LookupPath(cue.MakePath(cue.Str(kind))).Fields()
		if err != nil {
			continue // not there, or refused already
		}
		all := map[string]json.RawMessage{}
		for it.Next() {
			name := it.Selector().Unquoted()
			if err := it.Value().Validate(cue.Concrete(true), cue.Final()); err != nil {
				u.report(err)
				continue
			}
			b, err := it.Value().MarshalJSON()
			if err != nil {
				u.report(err)
				continue
			}
			all[name] = b
		}
		if len(all) > 0 {
			values[kind] = all
		}
	}
	if u.refusedSoFar() {
		return
	}
	b, err := json.Marshal(values)
	if err != nil {
		u.report(err)
		return
	}
	u.res.Unit = b
}

// declares tells whether a file of the directory itself has a field.
func (u *unit) declares(name string) bool {
	for _, f := range u.own {
		for _, d := range f.Decls {
			if labelOf(d) == name {
				return true
			}
		}
	}
	return false
}
