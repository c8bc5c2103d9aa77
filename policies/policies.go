// Package policies holds the guardrails that bind every platform.
//
// They are CUE files of the shape that a config repo uses: package fleet, one
// policy value with a description, a target and a rule. Whoever applies them
// unifies #rule with each merged value of the target and wants the result valid
// and concrete. They always hold: no repo can switch them off. The package reads
// no file at run time and imports no CUE.
package policies

import (
	"embed"
	"io/fs"
	"strings"
)

//go:embed *.cue
var files embed.FS

// Files returns the policies' files, all of them at the top.
func Files() fs.FS { return files }

// File is one policy.
type File struct {
	Name   string // of the policy and, with .cue, of the file
	Source []byte
}

// All returns the policies, sorted by name.
func All() []File {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // embedded
	}
	var out []File
	for _, e := range entries {
		b, err := files.ReadFile(e.Name())
		if err != nil {
			panic(err) // embedded
		}
		out = append(out, File{Name: strings.TrimSuffix(e.Name(), ".cue"), Source: b})
	}
	return out
}
