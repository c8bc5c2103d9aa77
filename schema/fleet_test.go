package schema_test

import (
	"encoding/json"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/cuecontext"
	"cuelang.org/go/cue/load"

	"selvedge/schema/fleet"
)

// TestFleet holds the Go values of schema/fleet against the schema, field by field
// and both ways: names, kinds, and which fields always have a value.
func TestFleet(t *testing.T) {
	v := v1(t)
	m := matcher{t: t, patch: v.LookupPath(cue.ParsePath("#ContainerPatch"))}
	m.match("", v.LookupPath(cue.ParsePath("#Repo")), reflect.TypeFor[fleet.Unit]())
	if m.fields < 150 {
		t.Errorf("only %d fields compared", m.fields)
	}
	t.Logf("%d fields compared", m.fields)
}

// TestPatch holds #ContainerPatch against the container that it changes: the same
// fields at every depth, all of them optional.
func TestPatch(t *testing.T) {
	v := v1(t)
	n := matchPatch(t, "container", v.LookupPath(cue.ParsePath("#Container")), v.LookupPath(cue.ParsePath("#ContainerPatch")))
	if n < 30 {
		t.Errorf("only %d fields compared", n)
	}
}

func v1(t *testing.T) cue.Value {
	t.Helper()
	t.Setenv("CUE_REGISTRY", "none")
	dir, err := filepath.Abs("v1")
	if err != nil {
		t.Fatal(err)
	}
	v := cuecontext.New().BuildInstance(load.Instances([]string{"."}, &load.Config{Dir: dir})[0])
	if v.Err() != nil {
		t.Fatal(v.Err())
	}
	return v
}

type matcher struct {
	t      *testing.T
	patch  cue.Value
	fields int
}

func (m *matcher) match(path string, v cue.Value, typ reflect.Type) {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	kind := v.IncompleteKind()
	wrong := func() { m.t.Errorf("%s: %v in CUE, %v in Go", path, kind, typ) }
	if typ == reflect.TypeFor[json.RawMessage]() { // an override's container, kept as a patch
		if !v.Equals(m.patch) && v.Subsume(m.patch) != nil {
			m.t.Errorf("%s: not a #ContainerPatch", path)
		}
		return
	}
	switch typ.Kind() {
	case reflect.Interface: // free-form: CUE says what it may be
	case reflect.String:
		if kind != cue.StringKind {
			wrong()
		}
	case reflect.Bool:
		if kind != cue.BoolKind {
			wrong()
		}
	case reflect.Int:
		if kind != cue.IntKind {
			wrong()
		}
	case reflect.Float64:
		if kind != cue.NumberKind {
			wrong()
		}
	case reflect.Slice:
		if kind != cue.ListKind {
			wrong()
			return
		}
		m.match(path+"[]", v.LookupPath(cue.MakePath(cue.AnyIndex)), typ.Elem())
	case reflect.Map:
		if kind != cue.StructKind {
			wrong()
			return
		}
		elem, ok := pattern(v)
		switch {
		case !ok && typ.Elem().Kind() != reflect.Interface:
			m.t.Errorf("%s: no map in CUE", path)
		case ok:
			m.match(path+".*", elem, typ.Elem())
		}
	case reflect.Struct:
		if kind != cue.StructKind {
			wrong()
			return
		}
		m.structs(path, v, typ)
	default:
		m.t.Errorf("%s: unexpected Go type %v", path, typ)
	}
}

func (m *matcher) structs(path string, v cue.Value, typ reflect.Type) {
	inGo := map[string]reflect.StructField{}
	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			m.t.Errorf("%s: Go field %s has no JSON name", path, f.Name)
			continue
		}
		inGo[name] = f
	}
	for name, field := range fields(m.t, v) {
		p := strings.TrimPrefix(path+"."+name, ".")
		f, ok := inGo[name]
		if !ok {
			m.t.Errorf("%s: in CUE, not in Go", p)
			continue
		}
		delete(inGo, name)
		m.fields++
		_, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		omitted := slices.Contains(strings.Split(opts, ","), "omitempty")
		if field.optional != omitted {
			m.t.Errorf("%s: optional in CUE %v, omitempty in Go %v", p, field.optional, omitted)
		}
		if !field.optional && !field.required && field.value.IncompleteKind() != cue.StructKind {
			if _, ok := field.value.Default(); !ok {
				m.t.Errorf("%s: neither optional, nor required, nor with a default", p)
			}
		}
		m.match(p, field.value, f.Type)
	}
	for name := range inGo {
		m.t.Errorf("%s.%s: in Go, not in CUE", path, name)
	}
}

type field struct {
	value              cue.Value
	optional, required bool
}

// fields returns the declared fields of a struct, without hidden ones and definitions.
func fields(t *testing.T, v cue.Value) map[string]field {
	t.Helper()
	it, err := v.Fields(cue.Optional(true))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]field{}
	for it.Next() {
		name := it.Selector().Unquoted()
		out[name] = field{
			value:    it.Value(),
			optional: it.FieldType()&cue.OptionalConstraint != 0,
			required: it.FieldType()&cue.RequiredConstraint != 0,
		}
	}
	return out
}

// pattern returns what a map's values are.
func pattern(v cue.Value) (cue.Value, bool) {
	it, err := v.Fields(cue.Patterns(true))
	if err != nil {
		return cue.Value{}, false
	}
	for it.Next() {
		if it.FieldType()&cue.PatternConstraint != 0 {
			return it.Value(), true
		}
	}
	return cue.Value{}, false
}

func matchPatch(t *testing.T, path string, whole, patch cue.Value) int {
	t.Helper()
	n := 0
	want, got := fields(t, whole), fields(t, patch)
	for name, w := range want {
		p := path + "." + name
		g, ok := got[name]
		if !ok {
			t.Errorf("%s: missing in the patch", p)
			continue
		}
		delete(got, name)
		n++
		if !g.optional {
			t.Errorf("%s: not optional in the patch", p)
		}
		if extra := g.value.IncompleteKind() &^ (w.value.IncompleteKind() | cue.NullKind); extra != 0 {
			t.Errorf("%s: the patch takes %v", p, extra)
		}
		if g.value.IncompleteKind()&cue.NullKind != 0 && !w.optional {
			t.Errorf("%s: null in the patch would remove what must be there", p)
		}
		if w.value.IncompleteKind() != cue.StructKind {
			continue
		}
		we, isMap := pattern(w.value)
		if !isMap {
			n += matchPatch(t, p, w.value, notNull(g.value))
			continue
		}
		ge, _ := pattern(g.value)
		if we.IncompleteKind() == cue.StructKind {
			n += matchPatch(t, p+".*", we, notNull(ge))
		}
	}
	for name := range got {
		t.Errorf("%s.%s: in the patch alone", path, name)
	}
	return n
}

// notNull returns the struct of null | struct.
func notNull(v cue.Value) cue.Value {
	if op, args := v.Expr(); op == cue.OrOp {
		for _, a := range args {
			if a.IncompleteKind() == cue.StructKind {
				return a
			}
		}
	}
	return v
}

// TestOverrideDefaults holds what Merged fills into parts that an override adds
// against the defaults of the schema.
func TestOverrideDefaults(t *testing.T) {
	container := v1(t).LookupPath(cue.ParsePath("#Container"))
	for _, added := range []string{
		`{}`,
		`{"port": {"p": {"container": 80}}}`,
		`{"mount": {"/a": {"host": "/b"}}}`,
		`{"probe": {"http": {"port": 80}}}`,
		`{"probe": {"tcp": {"port": 80}}}`,
		`{"stop": {"timeout": "1s"}, "log": {"maxFiles": 1}, "resources": {"cpu": 1}}`,
	} {
		var whole, bare fleet.Container
		declare := func(c *fleet.Container, v string) {
			b, err := container.FillPath(cue.ParsePath("image"), "r.example/a:1").Unify(cuecontext.New().CompileString(v)).MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, c); err != nil {
				t.Fatal(err)
			}
		}
		declare(&whole, added)
		declare(&bare, `{}`)
		app := fleet.App{
			Container: map[string]fleet.Container{"web": bare},
			Override:  []fleet.Override{{Nodes: []string{"n"}, Container: map[string]json.RawMessage{"web": json.RawMessage(added)}}},
		}
		merged, _, err := app.Merged("n", fleet.Node{})
		if err != nil {
			t.Fatal(err)
		}
		if got := merged.Container["web"]; !reflect.DeepEqual(got, whole) {
			t.Errorf("%s by an override: %+v, declared: %+v", added, got, whole)
		}
	}
}
