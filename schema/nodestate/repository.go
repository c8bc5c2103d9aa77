package nodestate

import (
	"strconv"
	"strings"
)

// ValidNode tells whether a name may be a node's: ^[a-z0-9][a-z0-9-]{0,62}$.
func ValidNode(name string) bool { return nameRE().MatchString(name) }

// NodeRepository returns the repository of a node's states below a prefix; the
// prefix may be empty. It is <prefix>/nodes/<node>, but OCI forbids a repository's
// name to end in '-': a run of n of them at the end is written ".n" ("a--" is "a.2").
// No node name holds a dot, so [NodeOf] can take it back.
func NodeRepository(prefix, node string) string {
	base := strings.TrimRight(node, "-")
	if n := len(node) - len(base); n > 0 {
		node = base + "." + strconv.Itoa(n)
	}
	return join(prefix, "nodes/"+node)
}

// NodeOf returns the node whose repository this is below the prefix.
func NodeOf(prefix, repository string) (node string, ok bool) {
	name, ok := strings.CutPrefix(repository, join(prefix, "nodes/"))
	if !ok {
		return "", false
	}
	base, count, dashed := strings.Cut(name, ".")
	if !dashed {
		return name, ValidNode(name) && !strings.HasSuffix(name, "-")
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > 62 {
		return "", false
	}
	node = base + strings.Repeat("-", n)
	// one repository a node: "a.02" and "a-.1" are nobody's
	return node, ValidNode(node) && NodeRepository(prefix, node) == repository
}

// TrustRepository returns the repository of the root documents below a prefix.
func TrustRepository(prefix string) string { return join(prefix, "trust") }

func join(prefix, rest string) string {
	if prefix == "" {
		return rest
	}
	return prefix + "/" + rest
}
