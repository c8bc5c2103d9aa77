package env

import (
	"fmt"
	"regexp"
)

// DemoImages are the names in examples-repo/images.cue of the images that the demo builds, and
// their versions.
var DemoImages = map[string]string{"hello": "1", "hello-2": "2", "hello-3": "3"}

// SetImage puts a digest into the line of an image in the text of images.cue.
func SetImage(text []byte, name, digest string) ([]byte, error) {
	line := regexp.MustCompile(`(?m)^(\s*"?` + regexp.QuoteMeta(name) + `"?:\s+"[^"@]+@)sha256:[0-9a-f]{64}"`)
	if !line.Match(text) {
		return nil, fmt.Errorf("no image %q with a digest", name)
	}
	return line.ReplaceAll(text, []byte(`${1}`+digest+`"`)), nil
}
