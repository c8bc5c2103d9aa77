package validate

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"selvedge/schema"
	"selvedge/schema/fleet"
)

func TestMain(m *testing.M) {
	Worker()
	os.Exit(m.Run())
}

const wsDir = "folders/plant-a/line-1"

// baseRepo is a small repo that is accepted.
func baseRepo() map[string]string {
	files := map[string]string{
		"cue.mod/module.cue":         "module: \"example.com/fleet@v0\"\nlanguage: version: \"v0.17.0\"\n",
		"platform.cue":               "@experiment(explicitopen)\n\npackage fleet\n\nimport \"selvedge.dev/schema/v1\"\n\nv1.#Repo\n\nplatform: name: \"Acme\"\n",
		"folders/plant-a/folder.cue": "package fleet\n\nfolder: title: \"Plant A\"\n",
		wsDir + "/workspace.cue":     "package fleet\n\nworkspace: title: \"Line 1\"\n",
		wsDir + "/nodes.cue":         "package fleet\n\nnode: \"gw-1\": {\n\tlabels: role: \"gateway\"\n\tidentity: publicKey: \"UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4\"\n}\n",
		wsDir + "/apps.cue":          "package fleet\n\napp: web: {\n\tplacement: selector: role: \"gateway\"\n\tcontainer: web: {\n\t\timage: \"" + image + "\"\n\t\tresources: {cpu: 0.5, memory: \"64MiB\"}\n\t}\n}\n",
		"folders/plant-b/folder.cue": "package fleet\n\nfolder: title: \"Plant B\"\n",
		otherDir + "/workspace.cue":  "package fleet\n\nworkspace: title: \"Other\"\n\nnode: \"gw-2\": labels: role: \"x\"\n",
	}
	for p, b := range schema.Vendor() {
		files[p] = string(b)
	}
	return files
}

const (
	otherDir = "folders/plant-b/line-2"
	image    = "registry.example/web@sha256:0000000000000000000000000000000000000000000000000000000000000001"
)

func with(over map[string]string) map[string]string {
	files := baseRepo()
	maps.Copy(files, over)
	for p, s := range over {
		if s == "-" {
			delete(files, p)
		}
	}
	return files
}

func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, s := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func repoDir(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, files)
	return dir
}

func tree(t testing.TB, dir string) Tree {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return Dir(root)
}

func validator(t testing.TB, cfg Config) *Validator {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	v := New(cfg)
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

func check(t testing.TB, v *Validator, dir string) (*fleet.Fleet, []fleet.Problem) {
	t.Helper()
	f, ps, err := v.Validate(context.Background(), tree(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	return f, ps
}

// all is every problem of a result as text.
func all(f *fleet.Fleet, repo []fleet.Problem) string {
	ps := append([]fleet.Problem(nil), repo...)
	for _, s := range f.Workspaces {
		ps = append(ps, s.Problems...)
	}
	var b bytes.Buffer
	_ = WriteText(&b, fleet.SortProblems(ps))
	return strings.TrimSpace(b.String())
}
