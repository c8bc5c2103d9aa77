package validate

import (
	"strings"
	"testing"
)

func TestAccepted(t *testing.T) {
	v := validator(t, Config{})
	dir := repoDir(t, baseRepo())
	f, repo := check(t, v, dir)
	if s := all(f, repo); s != "" {
		t.Fatal(s)
	}
	u := f.Workspaces[wsDir].Unit
	if u == nil || u.App["web"].Container["web"].Image != image || u.Folder.Title != "Plant A" {
		t.Fatalf("unit: %+v", u)
	}
	o := f.Workspaces[wsDir].Entities["node/gw-1"]
	if o.String() != wsDir+"/nodes.cue:3:7" || o.Scope != wsDir {
		t.Fatalf("origin: %+v", o)
	}
	again, _ := check(t, v, dir)
	if again.Workspaces[wsDir] != f.Workspaces[wsDir] {
		t.Error("an unchanged source is another pointer")
	}
}

// TestRefused is bad input with what is said of it, and where.
func TestRefused(t *testing.T) {
	v := validator(t, Config{})
	for _, c := range []struct {
		name string
		over map[string]string
		want string
	}{
		{"other package", map[string]string{wsDir + "/x.cue": "package other\n"}, wsDir + "/x.cue:1:1: package other beside package fleet"},
		{"no package", map[string]string{wsDir + "/x.cue": "a: 1\n"}, wsDir + "/x.cue:1:1: no package clause"},
		{"underscore", map[string]string{wsDir + "/_x.cue": "package fleet\n"}, wsDir + "/_x.cue: CUE leaves out files whose name begins with \"_\""},
		{"dot", map[string]string{wsDir + "/.x.cue": "package fleet\n"}, wsDir + "/.x.cue: CUE leaves out files whose name begins with \".\""},
		{"upper case", map[string]string{wsDir + "/x.CUE": "package fleet\n"}, wsDir + "/x.CUE: CUE leaves out files whose name does not end in .cue in lower case; rename it"},
		{"bad name", map[string]string{wsDir + "/x.cue": "package fleet\n\nnode: \"GW-7\": labels: role: \"x\"\n"}, wsDir + "/x.cue:3:15: node \"GW-7\": \"GW-7\" is no valid name; use lower-case letters, digits and dashes, at most 63"},
		{"test file", map[string]string{wsDir + "/x_test.cue": "package fleet\n"}, "x_test.cue: CUE leaves out files whose name ends in _test.cue"},
		{"hidden directory", map[string]string{"folders/_old/workspace.cue": "package fleet\n"}, "folders/_old: CUE leaves out directories"},
		{"odd directory", map[string]string{"folders/plant a/workspace.cue": "package fleet\n\nworkspace: title: \"x\"\n"}, "folders/plant a: the name of a directory is part of import paths"},
		{"duplicate in an import", map[string]string{
			"lib/a/a.cue": "@extern(embed)\n\npackage a\n\nx: _ @embed(file=a.yaml)\n", "lib/a/a.yaml": "b: 1\nb: 1\n",
			wsDir + "/x.cue": "package fleet\n\nimport \"example.com/fleet/lib/a\"\n\n_x: a.x\n"}, "lib/a/a.yaml:2:1: duplicate key \"b\""},
		{"nested module", map[string]string{wsDir + "/cue.mod/module.cue": "module: \"x.com/y@v0\"\n"}, wsDir + "/cue.mod: a module inside the repo"},
		{"local module", map[string]string{"cue.mod/local-module.cue": "deps: {}\n"}, "cue.mod/local-module.cue: redirects imports"},
		{"gen", map[string]string{"cue.mod/gen/x.com/y/y.cue": "package y\n"}, "cue.mod/gen: not supported"},
		{"if", map[string]string{wsDir + "/x.cue": "@if(prod)\n\npackage fleet\n"}, wsDir + "/x.cue:1:1: @if: whether the file counts"},
		{"below a workspace", map[string]string{wsDir + "/sub/x.cue": "package fleet\n\napp: {}\n"}, wsDir + "/sub/x.cue:1:1: package fleet below the workspace " + wsDir},
		{"outside folders", map[string]string{"teams/x.cue": "package fleet\n"}, "teams/x.cue:1:1: package fleet outside folders/"},
		{"tool", map[string]string{wsDir + "/x.cue": "package fleet\n\nimport \"tool/exec\"\n\n_x: exec.Run\n"}, wsDir + "/x.cue:3:8: import \"tool/exec\": packages below tool act on the machine"},
		{"remote import", map[string]string{wsDir + "/x.cue": "package fleet\n\nimport \"evil.example/x@v0\"\n\n_x: x.a\n"}, wsDir + "/x.cue:3:8: import \"evil.example/x@v0\": neither in this repo nor vendored"},
		{"missing import", map[string]string{wsDir + "/x.cue": "package fleet\n\nimport \"example.com/fleet/lib/a\"\n\n_x: a.a\n"}, "import \"example.com/fleet/lib/a\": the repo has no directory lib/a"},
		{"relative import", map[string]string{wsDir + "/x.cue": "package fleet\n\nimport \"../x\"\n\n_x: x.a\n"}, "relative, absolute and unclean paths"},
		{"escaping import", map[string]string{wsDir + "/x.cue": "package fleet\n\nimport \"example.com/fleet/../../etc\"\n\n_x: etc.a\n"}, "x.cue:3:8: "},
		{"deps", map[string]string{"cue.mod/module.cue": "module: \"example.com/fleet@v0\"\nlanguage: version: \"v0.17.0\"\ndeps: \"evil.example/x@v0\": v: \"v0.1.0\"\n"}, "cue.mod/module.cue: deps: no registry is asked"},
		{"old language", map[string]string{"cue.mod/module.cue": "module: \"example.com/fleet@v0\"\nlanguage: version: \"v0.14.0\"\n"}, "is older than v0.17.0"},
		{"no module", map[string]string{"cue.mod/module.cue": "-"}, "cue.mod/module.cue: missing: this is not a config repo; run `selvedge init`"},
		{"no platform", map[string]string{"platform.cue": "-"}, "platform.cue: missing"},
		{"old schema", map[string]string{"cue.mod/pkg/selvedge.dev/schema/v1/node.cue": "package v1\n"}, "node.cue: the vendored schema differs from the built-in one; run `selvedge init --upgrade`"},
		{"more schema", map[string]string{"cue.mod/pkg/selvedge.dev/schema/v1/x.cue": "package v1\n"}, "v1/x.cue: not a file of the schema"},
		{"open", map[string]string{"platform.cue": "package fleet\n\nimport \"selvedge.dev/schema/v1\"\n\nv1.#Repo\n\nplatform: name: \"Acme\"\n"}, "platform.cue:1:1: the schema does not close the repo"},
		{"embed parent", map[string]string{wsDir + "/x.cue": "@extern(embed)\n\npackage fleet\n\nconfig: x: file: a: _ @embed(file=\"../../../../etc/hostname\",type=text)\n"}, wsDir + "/x.cue:5:23: @embed: cannot refer to parent directory"},
		{"embed absolute", map[string]string{wsDir + "/x.cue": "@extern(embed)\n\npackage fleet\n\nconfig: x: file: a: _ @embed(file=\"/etc/hostname\",type=text)\n"}, wsDir + "/x.cue:5:23: @embed: only relative files are allowed"},
		{"embed missing", map[string]string{wsDir + "/x.cue": "@extern(embed)\n\npackage fleet\n\nnode: _ @embed(file=none.yaml)\n"}, "none.yaml: no such file"},
		{"duplicate in YAML", map[string]string{wsDir + "/x.cue": "@extern(embed)\n\npackage fleet\n\nnode: _ @embed(file=x.yaml)\n", wsDir + "/x.yaml": "gw-5:\n  labels:\n    a: b\n    a: b\n"}, wsDir + "/x.yaml:4:5: node \"gw-5\": duplicate key \"a\", first on line 3"},
		{"duplicate in JSON", map[string]string{wsDir + "/x.cue": "@extern(embed)\n\npackage fleet\n\nnode: _ @embed(file=x.json)\n", wsDir + "/x.json": "{\"gw-5\": {\n\t\"drain\": true,\n\t\"drain\": true}}\n"}, wsDir + "/x.json:3:2: node \"gw-5\": duplicate key \"drain\", first on line 2"},
		{"invalid UTF-8", map[string]string{wsDir + "/x.cue": "package fleet\n// \xff\n"}, wsDir + "/x.cue:2:4: invalid UTF-8: byte 0xff"},
		{"invalid UTF-8 in YAML", map[string]string{wsDir + "/x.cue": "@extern(embed)\n\npackage fleet\n\nnode: _ @embed(file=x.yaml)\n", wsDir + "/x.yaml": "gw-5:\n  labels:\n    a: \"\xfe\"\n"}, wsDir + "/x.yaml:3:9: invalid UTF-8"},
		{"10 MB", map[string]string{wsDir + "/x.cue": "package fleet\n// " + strings.Repeat("x", 10<<20)}, wsDir + "/x.cue: file too large"},
		{"10 MB YAML", map[string]string{wsDir + "/x.cue": "@extern(embed)\n\npackage fleet\n\nnode: _ @embed(file=x.yaml)\n", wsDir + "/x.yaml": "# " + strings.Repeat("x", 10<<20)}, wsDir + "/x.yaml: file too large"},
		{"NaN", map[string]string{wsDir + "/x.cue": "@extern(embed)\n\npackage fleet\n\ndeviceModel: m: property: p: _ @embed(file=x.yaml)\n", wsDir + "/x.yaml": "type: int16\nmin: .nan\n"}, wsDir + "/x.yaml:2:6: min: "},
		{"infinity", map[string]string{wsDir + "/x.cue": "@extern(embed)\n\npackage fleet\n\ndeviceModel: m: property: p: _ @embed(file=x.yaml)\n", wsDir + "/x.yaml": "type: int16\nmin: .inf\n"}, wsDir + "/x.yaml:2:6: min: "},
		{"exponent", map[string]string{wsDir + "/x.cue": "package fleet\n\nnode: \"gw-9\": capacity: cpu: 1e999999999\n"}, wsDir + "/x.cue:3:30: 1e999999999 is beyond what a number can hold"},
		{"exponent in JSON", map[string]string{wsDir + "/x.cue": "@extern(embed)\n\npackage fleet\n\nnode: _ @embed(file=x.json)\n", wsDir + "/x.json": `{"gw-9": {"capacity": {"cpu": 1e-999999999}}}`}, wsDir + "/x.json:1:31: 1e-999999999 is beyond what a number can hold"},
		{"exponent in YAML", map[string]string{wsDir + "/x.cue": "@extern(embed)\n\npackage fleet\n\nnode: _ @embed(file=x.yaml)\n", wsDir + "/x.yaml": "gw-9:\n  capacity: {cpu: 1e+999999999}\n"}, wsDir + "/x.yaml:2:19: node \"gw-9\": capacity.cpu: \"1e+999999999\" is a string"},
		{"2^53+1", map[string]string{wsDir + "/x.cue": "package fleet\n\ndeviceModel: m: property: p: {type: \"int64\", max: 9007199254740993}\n"}, wsDir + "/x.cue:3:14: deviceModel \"m\": property.p.max: 9007199254740993 is an integer beyond 2^53"},
		{"huge number", map[string]string{wsDir + "/x.cue": "package fleet\n\ndeviceModel: m: property: p: {type: \"int64\", max: 1e400}\n"}, "deviceModel \"m\": property.p.max: "},
		{"syntax", map[string]string{wsDir + "/x.cue": "package fleet\n\napp: {\n"}, wsDir + "/x.cue:3:"},
		{"syntax in YAML", map[string]string{wsDir + "/x.cue": "@extern(embed)\n\npackage fleet\n\nnode: _ @embed(file=x.yaml)\n", wsDir + "/x.yaml": "gw-5:\n  labels: {a: b\n"}, wsDir + "/x.yaml:"},
		{"node in a folder", map[string]string{"folders/plant-a/more.cue": "package fleet\n\nnode: \"gw-9\": {}\n"}, "folders/plant-a/more.cue:3:7: node \"gw-9\": nodes live in workspaces alone"},
		{"workspace in the platform", map[string]string{"more.cue": "package fleet\n\nworkspace: title: \"all\"\n"}, "more.cue:3:1: workspace: the platform is no workspace"},
		{"import cycle", map[string]string{
			"lib/a/a.cue": "package a\n\nimport \"example.com/fleet/lib/b\"\n\nx: b.x\n", "lib/b/b.cue": "package b\n\nimport \"example.com/fleet/lib/a\"\n\nx: a.x\n",
			wsDir + "/x.cue": "package fleet\n\nimport \"example.com/fleet/lib/a\"\n\n_x: a.x\n"}, "import cycle"},
		{"unknown name", map[string]string{wsDir + "/x.cue": "package fleet\n\napp: web: container: web: user: bob\n"}, wsDir + "/x.cue:3:33: app \"web\": container.web.user: unknown name \"bob\""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, repo := check(t, v, repoDir(t, with(c.over)))
			got := all(f, repo)
			if !strings.Contains(got, c.want) {
				t.Errorf("want %s\ngot %s", c.want, got)
			}
			if strings.Count(got, "\n") > 6 {
				t.Errorf("much is said of one mistake:\n%s", got)
			}
			t.Log(got)
		})
	}
}
