package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"selvedge/schema"
)

// TestFresh: the files in the tree are what the generator writes.
func TestFresh(t *testing.T) {
	root := filepath.Join("..", "..")
	out, err := made()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range out {
		got, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil || string(got) != string(want) {
			t.Errorf("%s is not what make generate writes (%v); run it and commit", name, err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(root, vendored))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, ok := out[vendored+"/"+e.Name()]; !ok {
			t.Errorf("%s/%s is not of the schema", vendored, e.Name())
		}
	}
}

// TestReference: each kind is there, with its fields and what the engine does.
func TestReference(t *testing.T) {
	page, err := reference(schema.Vendor())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"## deviceModel\n",
		"| `container.NAME.image` | Image | required |",
		"| `container.NAME.probe.interval` | Duration | `\"5s\"` |",
		"| `remote.logs` | bool | `false` |",
		"| `windows[].cron` |",
		"| Duration | A time above zero",
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("no %q", want)
		}
	}
	for line := range strings.Lines(string(page)) {
		if strings.Contains(line, "`placement.replicas`") && strings.HasPrefix(line, "|") && !strings.HasSuffix(line, "| refused |\n") {
			t.Errorf("replicas is not refused: %s", line)
		}
	}
}

// TestComments: a field without a comment is refused, and so is a definition.
func TestComments(t *testing.T) {
	for want, src := range map[string]string{
		"#A.b has no comment": "package v1\n\n// #A is.\n#A: {\n\tb: string\n}\n",
		"#A has no comment":   "package v1\n\n#A: {\n\t// It is.\n\tb: string\n}\n",
	} {
		if _, err := parse(map[string][]byte{"a.cue": []byte(src)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
