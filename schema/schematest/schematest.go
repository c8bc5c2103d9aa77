// Package schematest loads the fixtures of the schema: small config repos, each
// with what a checker must say of it.
//
// A fixture is a txtar archive in schema/testdata. Its comment says what to expect
// on a line of its own, and may say more on others:
//
//	expect: ok
//	expect: refused TEXT      plain CUE's output, and selvedge's, contain TEXT
//	check: selvedge           plain CUE does not see it: only selvedge refuses it
//
// The files of the archive are laid over base.txtar, the smallest repo there is,
// and the vendored schema; a file of the archive that is empty removes that of the
// base. The repo's workspaces are below folders/. Names of fixtures are those of
// the archives, without .txtar. Every mistake is in a workspace directory or above
// it, so that checking the workspaces finds it.
package schematest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"

	"selvedge/schema"
)

// Fixture is one config repo and what must be said of it.
type Fixture struct {
	Name  string
	Files map[string][]byte // by path from the root of the repo
	OK    bool              // accepted
	// Want is a part of the message that refuses it; empty if it is accepted.
	Want string
	// Plain is whether plain CUE must say the same. False: CUE accepts it, and only
	// selvedge refuses it.
	Plain bool
}

// Load returns all fixtures, sorted by name.
func Load() ([]Fixture, error) {
	dir, err := testdata()
	if err != nil {
		return nil, err
	}
	base, err := txtar.ParseFile(filepath.Join(dir, "base.txtar"))
	if err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil {
		return nil, err
	}
	var out []Fixture
	for _, name := range names {
		a, err := txtar.ParseFile(name)
		if err != nil {
			return nil, err
		}
		f := Fixture{Name: strings.TrimSuffix(filepath.Base(name), ".txtar"), Files: schema.Vendor(), Plain: true}
		if err := f.header(string(a.Comment)); err != nil {
			return nil, fmt.Errorf("fixture %s: %w", name, err)
		}
		f.lay(base)
		f.lay(a)
		out = append(out, f)
	}
	return out, nil
}

// testdata finds schema/testdata from the directory of the test that runs.
func testdata() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "schema", "testdata"), nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("find schema/testdata: not in the module's tree")
		}
		dir = up
	}
}

func (f *Fixture) header(comment string) error {
	for line := range strings.Lines(comment) {
		key, val, _ := strings.Cut(strings.TrimSpace(line), ":")
		val = strings.TrimSpace(val)
		switch key {
		case "expect":
			want, refused := strings.CutPrefix(val, "refused ")
			if !refused && val != "ok" || refused && want == "" {
				return fmt.Errorf("expect is ok or refused TEXT, not %q", val)
			}
			f.OK = !refused
			if refused {
				f.Want = want
			}
		case "check":
			if val != "selvedge" {
				return fmt.Errorf("check is selvedge, not %q", val)
			}
			f.Plain = false
		}
	}
	if !f.OK && f.Want == "" {
		return fmt.Errorf("no line with expect")
	}
	return nil
}

func (f *Fixture) lay(a *txtar.Archive) {
	for _, file := range a.Files {
		if len(bytes.TrimSpace(file.Data)) == 0 {
			delete(f.Files, file.Name)
			continue
		}
		f.Files[file.Name] = file.Data
	}
}

// Workspaces returns the directories that declare a workspace, as cue's arguments: ./folders/….
func (f Fixture) Workspaces() []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(f.Files)) {
		if path.Base(name) == "workspace.cue" {
			out = append(out, "./"+path.Dir(name))
		}
	}
	return out
}

// Write puts the fixture's files below dir.
func (f Fixture) Write(dir string) error {
	for name, data := range f.Files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
