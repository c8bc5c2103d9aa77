// Package version tells which build this is.
package version

import (
	"fmt"
	"runtime"
)

// Version is set when the product is built: a tag, or a tag and a commit.
var Version = "devel"

// String returns one line for a command of that name, such as "selvedge v0.3.0 (go1.26.8 linux/amd64)".
func String(command string) string {
	return fmt.Sprintf("%s %s (%s %s/%s)", command, Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
