// Package schema holds the CUE schema of a config repo.
//
// It hands out the schema's files, embedded from v1, to whoever vendors them into
// a repo or compares a repo's copy with them; the files of a new repo; and what
// the engine does with each part of the schema. It reads no file at run time and
// imports no CUE.
package schema

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
)

// ImportPath is how the CUE files of a config repo import the schema.
const ImportPath = "selvedge.dev/schema/v1"

// VendorDir is where a config repo keeps its copy of the schema, from the root of the repo.
const VendorDir = "cue.mod/pkg/" + ImportPath

// LanguageVersion is the version of the CUE language that the cue.mod/module.cue of a
// repo names. The schema closes only from this version on.
const LanguageVersion = "v0.17.0"

//go:embed v1/*.cue
var v1 embed.FS

// Files returns the schema's files, all of them at the top.
func Files() fs.FS {
	sub, err := fs.Sub(v1, "v1")
	if err != nil {
		panic(err) // the name is a constant
	}
	return sub
}

// Vendor returns the schema's files by their paths in a config repo.
func Vendor() map[string][]byte {
	out := map[string][]byte{}
	for _, name := range names() {
		out[path.Join(VendorDir, name)] = read(name)
	}
	return out
}

// Digest names the schema by its content: "sha256:" and hex.
func Digest() string {
	h := sha256.New()
	for _, name := range names() {
		b := read(name)
		fmt.Fprintf(h, "%s\x00%d\x00", name, len(b)) // lengths first: no two sets of files hash alike
		h.Write(b)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

func names() []string { // in order: ReadDir sorts
	entries, err := v1.ReadDir("v1")
	if err != nil {
		panic(err) // embedded
	}
	out := make([]string, 0, len(entries))
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func read(name string) []byte {
	b, err := v1.ReadFile("v1/" + name)
	if err != nil {
		panic(err) // embedded
	}
	return b
}
