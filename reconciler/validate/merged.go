package validate

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"cuelang.org/go/cue"
	cueerrors "cuelang.org/go/cue/errors"

	"selvedge/policies"
	"selvedge/schema/fleet"
)

// guardrail is one policy, ready to be applied.
type guardrail struct {
	name, description string
	rule              cue.Value
}

// merged checks what nodes will really get: an override is a patch made after CUE,
// and may set what no template of the repo allows.
func (u *unit) merged(fu *fleet.Unit) {
	rails, err := u.guardrails(fu)
	if err != nil {
		u.say(fleet.Position{File: filePath(u.job.Dir)}, "%v", err)
		return
	}
	for _, name := range slices.Sorted(keys(fu.App)) {
		app := fu.App[name]
		if !u.overrides(name, &app) {
			continue
		}
		variants, err := variantsOf(name, &app, fu.Node)
		if err != nil {
			u.say(u.overridePlace(name), "%v", err)
			continue
		}
		base := app
		base.Override = nil
		refused := map[string]bool{}
		if !u.apply(rails["app"], "app", name, base, u.placeOf("app", name).Position, refused) {
			continue
		}
		for _, key := range slices.Sorted(keys(variants)) {
			if key != "" {
				u.variant(rails["app"], name, variants[key], refused)
			}
		}
	}
	for _, name := range slices.Sorted(keys(fu.Node)) {
		u.apply(rails["node"], "node", name, fu.Node[name], u.placeOf("node", name).Position, map[string]bool{})
	}
}

func (u *unit) overridePlace(app string) fleet.Position {
	if o, ok := u.places["app/"+app+"/override"]; ok {
		return o.Position
	}
	return u.placeOf("app", app).Position
}

// overrides finds patches of containers that the app does not have, on whatever node.
func (u *unit) overrides(name string, app *fleet.App) bool {
	ok := true
	for i, o := range app.Override {
		for _, c := range slices.Sorted(keys(o.Container)) {
			if _, has := app.Container[c]; !has {
				ok = false
				u.add(fleet.Problem{Position: u.overridePlace(name), Kind: "app", Name: name,
					Message: fmt.Sprintf("override.%d: unknown container %q; the app has %s", i, c, strings.Join(slices.Sorted(keys(app.Container)), ", "))})
			}
		}
	}
	return ok
}

// variantsOf returns the different forms in which the app runs on the workspace's nodes.
func variantsOf(name string, app *fleet.App, nodes map[string]fleet.Node) (map[string]fleet.App, error) {
	out := map[string]fleet.App{}
	if len(app.Override) == 0 {
		return out, nil
	}
	for _, n := range slices.Sorted(keys(nodes)) {
		if !app.On(n, nodes[n]) {
			continue
		}
		m, key, err := app.Merged(n, nodes[n])
		if err != nil {
			return nil, fmt.Errorf("app %q on node %q: %w", name, n, err)
		}
		out[key] = m
	}
	return out, nil
}

// variant checks an app with overrides merged in against the schema and the guardrails.
func (u *unit) variant(rails []guardrail, name string, app fleet.App, refused map[string]bool) {
	pos := u.overridePlace(name)
	v, err := u.asCUE(app)
	if err != nil {
		u.say(pos, "%v", err)
		return
	}
	if err := u.definition("app").Unify(v).Validate(cue.Concrete(true), cue.Final()); err != nil {
		for _, e := range cueerrors.Errors(err) {
			f := u.take(e)
			if disjunction.MatchString(f.msg) {
				continue
			}
			field := strings.TrimPrefix(strings.TrimPrefix(strings.Join(f.path, "."), "#App"), ".")
			u.once(refused, fleet.Problem{Position: pos, Kind: "app", Name: name,
				Message: fmt.Sprintf("with its overrides merged in, %s: %s", field, u.words(f))})
		}
		return
	}
	u.apply(rails, "app", name, app, pos, refused)
}

func (u *unit) once(said map[string]bool, p fleet.Problem) {
	if !said[p.Message] {
		said[p.Message] = true
		u.add(p)
	}
}

// apply holds a value against guardrails, and reports whether it passed.
func (u *unit) apply(rails []guardrail, kind, name string, value any, pos fleet.Position, said map[string]bool) bool {
	if len(rails) == 0 {
		return true
	}
	v, err := u.asCUE(value)
	if err != nil {
		u.say(pos, "%v", err)
		return false
	}
	ok := true
	for _, g := range rails {
		err := g.rule.Unify(v).Validate(cue.Concrete(true))
		if err == nil {
			continue
		}
		ok = false
		var fields []string
		for _, e := range cueerrors.Errors(err) {
			f := u.take(e)
			if i := slices.Index(f.path, "#rule"); i >= 0 {
				f.path = f.path[i+1:]
			}
			if s := strings.Join(f.path, "."); s != "" && !slices.Contains(fields, s) {
				fields = append(fields, s)
			}
		}
		where := ""
		if len(fields) > 0 {
			where = strings.Join(fields[:min(len(fields), 5)], ", ") + ": "
		}
		u.once(said, fleet.Problem{Position: pos, Kind: kind, Name: name,
			Message: fmt.Sprintf("%sagainst policy %q: %s", where, g.name, oneLine(g.description))})
	}
	return ok
}

func (u *unit) asCUE(value any) (cue.Value, error) {
	b, err := json.Marshal(value)
	if err != nil {
		return cue.Value{}, err
	}
	v := u.ctx.CompileBytes(b, cue.Filename(builtin+"merged.json"))
	return v, v.Err()
}

// guardrails returns the policies by the kind that they bind: those of the repo, then
// those built in.
func (u *unit) guardrails(fu *fleet.Unit) (map[string][]guardrail, error) {
	out := map[string][]guardrail{}
	for _, name := range slices.Sorted(keys(fu.Policy)) {
		p := fu.Policy[name]
		rule := u.value.LookupPath(cue.MakePath(cue.Str("policy"), cue.Str(name), cue.Def("rule")))
		if !rule.Exists() {
			continue
		}
		out[p.Target] = append(out[p.Target], guardrail{name, p.Description, rule})
	}
	for _, f := range policies.All() {
		it, err := u.ctx.CompileBytes(f.Source, cue.Filename(builtin+f.Name)).LookupPath(cue.MakePath(cue.Str("policy"))).Fields()
		if err != nil {
			return nil, fmt.Errorf("built-in policy %s: %w", f.Name, err)
		}
		for it.Next() {
			var p fleet.Policy
			if err := it.Value().Decode(&p); err != nil {
				return nil, fmt.Errorf("built-in policy %s: %w", f.Name, err)
			}
			rule := it.Value().LookupPath(cue.MakePath(cue.Def("rule")))
			out[p.Target] = append(out[p.Target], guardrail{it.Selector().Unquoted(), p.Description, rule})
		}
	}
	return out, nil
}
