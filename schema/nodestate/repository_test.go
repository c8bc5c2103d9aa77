package nodestate_test

import (
	"regexp"
	"strings"
	"testing"

	"selvedge/schema/nodestate"
)

// ociName is the grammar of the OCI distribution spec for repository names.
var ociName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

func TestNodeRepositoryIsReversible(t *testing.T) {
	seen := map[string]string{}
	for _, node := range []string{"gw-7", "a", "a-", "a--", "a--b", "a-1", "a1", "a-1-", "7", strings.Repeat("x", 63), "x" + strings.Repeat("-", 62), "a---------"} {
		for _, prefix := range []string{"", "p", "p/q"} {
			repo := nodestate.NodeRepository(prefix, node)
			if !ociName.MatchString(repo) {
				t.Errorf("%q: repository %q is against OCI's grammar", node, repo)
			}
			if other := seen[repo]; other != "" && other != node {
				t.Errorf("%q and %q share %q", node, other, repo)
			}
			seen[repo] = node
			if got, ok := nodestate.NodeOf(prefix, repo); !ok || got != node {
				t.Errorf("%q: back from %q comes %q, %v", node, repo, got, ok)
			}
		}
	}
	for _, repo := range []string{"", "nodes", "nodes/", "nodes/a-", "nodes/a.0", "nodes/a.01", "nodes/a-.1", "nodes/a.-1", "nodes/a.+1", "nodes/a.63", "nodes/.1",
		"nodes/A", "nodes/a/b", "nodes/a.1.1", "nodes/a_b", "other/a", "p/nodes/a", "nodes/" + strings.Repeat("x", 64)} {
		if node, ok := nodestate.NodeOf("", repo); ok {
			t.Errorf("%q is the repository of %q", repo, node)
		}
	}
}
