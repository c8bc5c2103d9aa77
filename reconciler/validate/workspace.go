package validate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"path"
	"strings"

	"cuelang.org/go/cue"

	"selvedge/schema/fleet"
)

// workspace checks a workspace, which must be complete, and renders its values.
func (u *unit) workspace() {
	if err := u.value.Validate(cue.Concrete(true), cue.Final()); err != nil {
		u.report(err)
	}
	u.entities()
	if u.refusedSoFar() {
		return
	}
	b, err := u.value.MarshalJSON()
	if err != nil {
		u.report(err)
		return
	}
	values := map[string]any{}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(&values); err != nil {
		u.notJSON(err)
		return
	}
	u.numbers(values, nil)
	if u.refusedSoFar() {
		return
	}
	u.unread()
	u.supported(values)
	u.sealed(values)
	if u.refusedSoFar() {
		return
	}
	var fu fleet.Unit
	if err := json.Unmarshal(b, &fu); err != nil {
		u.say(fleet.Position{File: filePath(u.job.Dir)}, "values do not fit what the engine knows: %s", strings.TrimPrefix(err.Error(), "json: "))
		return
	}
	u.merged(&fu)
	u.res.Unit = b
}

// unread warns of data beside a workspace that looks like a part of it and is not.
func (u *unit) unread() {
	es, err := u.fs.list(u.job.Dir)
	if err != nil {
		return
	}
	for _, e := range es {
		p := path.Join(u.job.Dir, e.Name)
		if _, read := u.fs.files[p]; read || e.Kind != isFile {
			continue
		}
		switch path.Ext(e.Name) {
		case ".yaml", ".yml", ".json":
			u.add(fleet.Problem{Severity: fleet.Warning, Position: fleet.Position{File: p},
				Message: fmt.Sprintf("nothing reads this file; embed it, such as `node: _ @embed(file=%s)`, or move it away", e.Name)})
		}
	}
}

// notJSON finds the value that has no JSON form: NaN or an infinity.
func (u *unit) notJSON(err error) {
	found := false
	u.value.Walk(func(v cue.Value) bool {
		if k := v.Kind(); k == cue.NumberKind || k == cue.FloatKind {
			if b, err := v.MarshalJSON(); err == nil && !json.Valid(b) {
				found = true
				u.odd(pathOf(v.Path()), "%s is no number that a state can hold; write a finite one", bytes.TrimSpace(b))
			}
		}
		return true
	}, nil)
	if !found {
		u.say(fleet.Position{File: filePath(u.job.Dir)}, "values have no JSON form: %v", err)
	}
}

var maxExact = new(big.Int).Lsh(big.NewInt(1), 53)

// numbers refuses integers that a reader of JSON would round: RFC 8785 counts on
// IEEE 754 doubles, which are exact up to 2^53.
func (u *unit) numbers(v any, at []string) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			u.numbers(x, append(at[:len(at):len(at)], k))
		}
	case []any:
		for i, x := range v {
			u.numbers(x, append(at[:len(at):len(at)], fmt.Sprint(i)))
		}
	case json.Number:
		s := v.String()
		if len(s) < 16 && !strings.ContainsAny(s, "eE") {
			return
		}
		if f, err := v.Float64(); err != nil {
			u.odd(at, "%s is beyond what a number can hold; write a smaller one", s)
		} else if i, ok := new(big.Int).SetString(s, 10); ok && i.CmpAbs(maxExact) > 0 {
			u.odd(at, "%s is an integer beyond 2^53, which would be rounded; write it as a string", s)
		} else if !ok && f != 0 && strings.ContainsAny(s, "eE") {
			if r, ok := new(big.Rat).SetString(s); ok && r.IsInt() && r.Num().CmpAbs(maxExact) > 0 {
				u.odd(at, "%s is an integer beyond 2^53, which would be rounded; write it as a string", s)
			}
		}
	}
}

// odd reports a problem of the value at a path.
func (u *unit) odd(at []string, format string, args ...any) {
	kind, name, rest := split(at)
	msg := fmt.Sprintf(format, args...)
	if rest != "" {
		msg = rest + ": " + msg
	}
	u.sayOf(kind, name, "%s", msg)
}

// split tells the entity that a path leads into from the rest.
func split(at []string) (kind, name, rest string) {
	if len(at) == 0 {
		return "", "", ""
	}
	kind, at = at[0], at[1:]
	for _, k := range entityKinds {
		if k == kind && len(at) > 0 {
			name, at = at[0], at[1:]
			break
		}
	}
	return kind, name, strings.Join(at, ".")
}

func pathOf(p cue.Path) []string {
	var out []string
	for _, s := range p.Selectors() {
		if s.LabelType().IsHidden() || s.IsDefinition() || s.Type() == cue.IndexLabel {
			out = append(out, s.String())
		} else {
			out = append(out, s.Unquoted())
		}
	}
	return out
}
