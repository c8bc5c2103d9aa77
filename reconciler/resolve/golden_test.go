package resolve

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"selvedge/schema/fleet"
	"selvedge/schema/nodestate"
)

var update = flag.Bool("update", false, "write golden files that are not there yet")

// TestEngine1 holds what engine 1 renders, for ever: a failure here means that an upgrade
// of the reconciler would change nodes that nobody has touched. The files are never
// rewritten; new rules are a new engine with golden files of its own.
func TestEngine1(t *testing.T) {
	dir := filepath.Join("testdata", "engine1")
	in, err := os.ReadFile(filepath.Join(dir, "unit.json"))
	if err != nil {
		t.Fatal(err)
	}
	u := new(fleet.Unit)
	dec := json.NewDecoder(bytes.NewReader(in))
	dec.DisallowUnknownFields()
	if err := dec.Decode(u); err != nil {
		t.Fatal(err)
	}
	f := fleetOf(&fleet.Source{Path: "folders/plant-a/line-1", ID: "x", Unit: u})
	res := New(Config{}).Resolve(f, Accepted{})
	if firstError(res.Problems) != "" || len(res.Nodes) != 3 {
		t.Fatal(texts(res.Problems))
	}
	for name, n := range res.Nodes {
		file := filepath.Join(dir, name+".json")
		want, err := os.ReadFile(file)
		if os.IsNotExist(err) && *update {
			if err := os.WriteFile(file, n.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := n.Bytes(); !bytes.Equal(got, want) {
			t.Errorf("%s is rendered differently\n got %s\nwant %s", name, got, want)
		}
		if _, err := nodestate.Decode(want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzInterpolation(f *testing.F) {
	for _, s := range []string{"", "{{", "{{{{", "}}", "{{node.name}}", "{{node.labels.a}}{{{{{{ node.workspace }}", "a{{{node.name}}}", "{{node.labels.}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tpl, err := parse(s)
		if err != nil {
			return
		}
		if len(tpl.text) != len(tpl.field)+1 {
			t.Fatalf("%q: %d texts, %d fields", s, len(tpl.text), len(tpl.field))
		}
		// With their own names as values and braces doubled again, the string means the same.
		var again string
		for i, x := range tpl.text {
			again += string(bytes.ReplaceAll([]byte(x), []byte("{{"), []byte("{{{{")))
			if i < len(tpl.field) {
				again += "{{" + tpl.field[i] + "}}"
			}
		}
		if two, err := parse(again); err == nil && len(two.field) == len(tpl.field) {
			values := map[string]string{}
			for _, x := range tpl.field {
				values[x] = "<" + x + ">"
			}
			if a, b := tpl.with(values), two.with(values); a != b {
				t.Fatalf("%q: %q and %q", s, a, b)
			}
		}
	})
}
