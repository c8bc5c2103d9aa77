// Command digests puts the digests of the demo's images into a config repo's images.cue.
//
// The images are reproducible: the same program, Go version and architecture give the
// same digest, so what stands in examples-repo is what the demo builds and pushes.
package main

import (
	"fmt"
	"os"

	"selvedge/test/env"
)

//go:generate go run . ../../../examples-repo/images.cue

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "digests:", err)
		os.Exit(1)
	}
}

func run(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for name, version := range env.DemoImages {
		img, err := env.BuildImage(version)
		if err != nil {
			return err
		}
		d, err := img.Digest()
		if err != nil {
			return err
		}
		if b, err = env.SetImage(b, name, d.String()); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return os.WriteFile(file, b, 0o644) // #nosec G306 -- part of a public repo
}
