package validate

import (
	"path/filepath"
	"strings"
	"testing"
)

const ana = "package fleet\n\nidentity: ana: {groups: [\"g\"], token: t: {hash: \"sha256:0000000000000000000000000000000000000000000000000000000000000001\", expires: \"2030-01-31T00:00:00Z\"}}\n"

// TestFolders holds that the platform and folders have values of their own, with or without a
// workspace below.
func TestFolders(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "cache.db")
	dir := repoDir(t, with(map[string]string{
		"people.cue":                 "package fleet\n\nroleBinding: admins: {role: \"admin\", subjects: [\"group:g\"]}\n",
		"folders/plant-a/people.cue": ana,
		"folders/plant-c/folder.cue": "package fleet\n\nfolder: title: \"Plant C\"\naccessGuide: [string]: labels: plant: \"c\"\naccessGuide: box: prefix: \"box-\"\n",
		"folders/plant-d/note.cue":   "package fleet\n\nnode: [string]: labels: plant: \"d\"\n",
	}))
	for range 2 { // the second time from the cache
		v := validator(t, Config{CacheFile: cache})
		f, repo := check(t, v, dir)
		if s := all(f, repo); s != "" {
			t.Fatal(s)
		}
		if len(f.Folders) != 5 {
			t.Errorf("%d folders", len(f.Folders))
		}
		p, a, c := f.Folders[""], f.Folders["folders/plant-a"], f.Folders["folders/plant-c"]
		if p.Unit.Platform.Name != "Acme" || p.Unit.RoleBinding["admins"].Role != "admin" || p.Entities["roleBinding/admins"].Scope != "" || p.Path != "" {
			t.Errorf("platform %+v", p)
		}
		if id := a.Unit.Identity["ana"]; id.Kind != "user" || id.Token["t"].Expires == "" || a.Entities["identity/ana"].Scope != "folders/plant-a" || a.Unit.Folder.Title != "Plant A" {
			t.Errorf("plant A %+v", a.Unit)
		}
		if _, ok := a.Unit.RoleBinding["admins"]; !ok || a.Entities["roleBinding/admins"].Scope != "" {
			t.Error("what is inherited is not told apart")
		}
		if g := c.Unit.AccessGuide["box"]; g.Labels["plant"] != "c" || f.Folders["folders/plant-d"].Unit.Folder != nil {
			t.Errorf("plant C %+v", c.Unit)
		}
		if w := f.Workspaces[wsDir].Unit; w.Identity["ana"].Token["t"].Hash == "" || len(w.RoleBinding) != 1 {
			t.Errorf("workspace %+v", w)
		}
		again, _ := check(t, v, dir)
		if again.Folders["folders/plant-c"] != c {
			t.Error("an unchanged folder is another source")
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFoldersRefused(t *testing.T) {
	v := validator(t, Config{})
	for _, c := range []struct {
		name, file, text, want string
		whole                  bool // the commit is refused as a whole
	}{
		{"incomplete", "folders/plant-c/p.cue", "package fleet\n\nroleBinding: b: role: \"viewer\"\n", "subjects", false},
		{"a token without an end", "folders/plant-c/p.cue", strings.Replace(ana, ", expires: \"2030-01-31T00:00:00Z\"", "", 1), "expires", false},
		{"a guide at the platform", "p.cue", "package fleet\n\naccessGuide: box: prefix: \"box-\"\n", `accessGuide "box": nodes join folders or workspaces; move it into the folder whose nodes it is for`, true},
		{"a typo", "folders/plant-c/p.cue", "package fleet\n\nidentities: {}\n", "identities", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, repo := check(t, v, repoDir(t, with(map[string]string{c.file: c.text})))
			if s := all(f, repo); !strings.Contains(s, c.want) {
				t.Errorf("it says\n%s\nwithout %q", s, c.want)
			}
			if c.whole {
				if f.Folders[""].Unit != nil || f.Workspaces[wsDir].Unit != nil {
					t.Error("accepted")
				}
				return
			}
			if f.Folders["folders/plant-c"].Unit != nil {
				t.Error("accepted")
			}
			if f.Folders["folders/plant-a"].Unit == nil || f.Workspaces[wsDir].Unit == nil {
				t.Error("others are refused with it")
			}
		})
	}
}
