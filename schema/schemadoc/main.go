// Command schemadoc writes the files that are made of the schema: the reference for
// people and the copy that examples-repo vendors.
//
// It reads the schema that is built in, and writes below the root of the module,
// which is its one argument. It refuses a schema with a field that has no comment.
package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"selvedge/schema"
)

//go:generate go run . ../..

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: schemadoc ROOT")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "schemadoc:", err)
		os.Exit(1)
	}
}

func write(root string) error {
	out, err := made()
	if err != nil {
		return err
	}
	// The copy is the schema and nothing else: a file that left the schema leaves it too.
	if err := os.RemoveAll(filepath.Join(root, vendored)); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(out)) {
		p := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, out[name], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// vendored is the copy of the schema, from the root of the module.
const vendored = "examples-repo/" + schema.VendorDir

// made returns the contents of all files by their paths from the root of the module.
func made() (map[string][]byte, error) {
	out := map[string][]byte{}
	for name, b := range schema.Vendor() {
		out["examples-repo/"+name] = b
	}
	page, err := reference(schema.Vendor())
	if err != nil {
		return nil, err
	}
	out["docs/reference/schema.md"] = page
	return out, nil
}
