package registry

import (
	"net/url"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// nameRE is the grammar of repositories of the OCI distribution spec.
var nameRE = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

const maxName = 255

// kinds of what is asked for.
const (
	kindManifest  = "manifests"
	kindBlob      = "blobs"
	kindReferrers = "referrers"
	kindTags      = "tags"
)

// asked is a path below /v2/, taken apart.
type asked struct {
	repository, kind, reference string
}

// parsePath takes /v2/<repository>/<kind>/<reference> apart. Only the plainest spelling of a
// path passes, so that nothing behind the hub can read it in another way.
func parsePath(u *url.URL) (asked, bool) {
	path := u.EscapedPath()
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok || strings.ContainsAny(path, `%\`) || u.Path != path {
		return asked{}, false
	}
	i := strings.LastIndexByte(rest, '/')
	if i < 0 {
		return asked{}, false
	}
	j := strings.LastIndexByte(rest[:i], '/') // read from the end: names may hold the words of kinds
	if j < 0 {
		return asked{}, false
	}
	a := asked{repository: rest[:j], kind: rest[j+1 : i], reference: rest[i+1:]}
	if len(a.repository) > maxName || !nameRE.MatchString(a.repository) {
		return asked{}, false
	}
	switch a.kind {
	case kindManifest:
		return a, reference.TagRegexp.FindString(a.reference) == a.reference && a.reference != "" || isDigest(a.reference)
	case kindBlob, kindReferrers:
		return a, isDigest(a.reference)
	case kindTags:
		return a, a.reference == "list"
	}
	return asked{}, false
}

// isDigest is for digests that can be checked.
func isDigest(s string) bool {
	_, err := digest.Parse(s)
	return err == nil
}

// roots returns the digests of the images of a repository that a node needs.
func roots(images []string, host, repository string) []digest.Digest {
	var all []digest.Digest
	for _, text := range images {
		at := strings.LastIndexByte(text, '@')
		if at < 0 || !strings.Contains(text, repository[strings.LastIndexByte(repository, '/')+1:]) { // most are others: spare the grammar
			continue
		}
		ref, err := reference.ParseNormalizedNamed(text)
		if err != nil || reference.Domain(ref) != host || reference.Path(ref) != repository {
			continue
		}
		if d, err := digest.Parse(text[at+1:]); err == nil {
			all = append(all, d)
		}
	}
	return all
}
