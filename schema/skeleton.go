package schema

import (
	"embed"
	"io/fs"
	"strings"
)

//go:embed all:skeleton
var skeleton embed.FS

// Skeleton returns the files of a new config repo by their paths: one folder, one
// workspace, one node that awaits enrolment, CI for GitHub and GitLab, and the
// vendored schema.
func Skeleton() map[string][]byte {
	out := Vendor()
	err := fs.WalkDir(skeleton, "skeleton", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := skeleton.ReadFile(p)
		out[strings.TrimPrefix(p, "skeleton/")] = b
		return err
	})
	if err != nil {
		panic(err) // embedded
	}
	return out
}
