package archtest

import (
	"path"
	"strings"
)

// rule says what packages that match a pattern may import of ours, tests aside.
// Patterns are those of path.Match, and "/..." at the end means all below.
type rule struct {
	pkg    string
	may    []string
	reason string
}

// floors, from the lowest; the first rule that matches a package holds.
var floors = []rule{
	{"schema/fleet", nil, "floor 0 imports nothing of ours"},
	{"internal/archtest", nil, "floor 0 imports nothing of ours"},
	{"internal/*", nil, "floor 0 imports nothing of ours"},

	{"schema/schematest", []string{"schema"}, "it loads the schema's fixtures"},
	{"schema/schemadoc", []string{"schema", "schema/fleet"}, "it documents the schema"},
	{"schema/trust", contracts, "floor 1"},
	{"schema/nodestate", floor0, "floor 1"},
	{"schema/wire", contracts, "floor 1: what hub and edge say to each other"},
	{"schema/roster", contracts, "floor 1: what the reconciler tells hubs"},
	{"schema/hubapi", []string{"schema/roster", "schema/wire"}, "floor 1: what the hub tells people"},
	{"schema/...", floor0, "floor 1"},
	{"policies", floor0, "floor 1"},

	{"reconciler", []string{"reconciler/*", "schema/...", "policies", "internal/*"}, "the loop wires its steps"},
	{"reconciler/validate/*", []string{"reconciler/validate", "reconciler/validate/*", "schema/...", "policies", "internal/*"}, "parts of one step"},
	{"reconciler/validate", []string{"reconciler/validate/*", "schema/...", "policies", "internal/*"}, "a step knows no sibling"},
	{"reconciler/hub", []string{"reconciler/hub/*", "reconciler/access", "schema/...", "internal/*"}, "the hub wires its services"},
	{"reconciler/hub/ops", []string{"reconciler/hub/*", "reconciler/access", "schema/...", "internal/*"}, "what people may do, over all services"},
	{"reconciler/hub/ops/opstest", []string{"reconciler/hub/*", "reconciler/access", "schema/...", "internal/*"}, "tests of ops and its faces have real services"},
	{"reconciler/hub/api", []string{"reconciler/hub/ops", "reconciler/access", "schema/...", "internal/*"}, "a face of ops"},
	{"reconciler/hub/console", []string{"reconciler/hub/ops", "reconciler/access", "schema/...", "internal/*"}, "a face of ops"},
	{"reconciler/hub/*", []string{"schema/...", "internal/*"}, "a service knows no sibling"},
	{"reconciler/*", steps, "a step knows no sibling"},

	{"edge", []string{"edge/...", "schema/nodestate", "schema/trust", "schema/wire", "internal/*"}, "the loop wires its steps"},
	{"edge/apply/*", []string{"edge/apply", "edge/apply/*", "edge/verify", "schema/nodestate", "schema/wire", "internal/*"}, "an adapter imports inwards"},
	{"edge/apply", []string{"edge/verify", "schema/nodestate", "schema/wire", "internal/*"}, "apply takes what verify made"},
	{"edge/store", []string{"edge/verify", "edge/identity", "schema/nodestate", "schema/trust", "internal/*"}, "store keeps what verify made"},
	{"edge/uplink", []string{"edge/auth", "schema/nodestate", "schema/wire", "internal/*"}, "the connection is opened by what auth gets"},
	{"edge/join", []string{"edge/auth", "schema/nodestate", "schema/trust", "schema/wire", "internal/*"}, "joining is a question that auth asks"},
	{"edge/verify/verifytest", []string{"edge/verify", "schema/nodestate", "schema/trust", "internal/*"}, "test states are made as the cloud makes them"},
	{"edge/*", []string{"schema/nodestate", "schema/trust", "schema/wire", "internal/*"}, "a step knows no sibling; the edge knows no config repo"},

	{"cmd/selvedge-edge/...", []string{"cmd/selvedge-edge/...", "edge", "edge/...", "schema/nodestate", "schema/trust", "schema/wire", "internal/*"}, "the agent carries nothing of the cloud"},
	{"cmd/...", []string{"cmd/...", "reconciler", "reconciler/...", "schema", "schema/...", "policies", "internal/*"}, "the cloud carries nothing of the edge"},

	{"test/...", []string{"..."}, "tests see everything"},
}

var (
	floor0    = []string{"schema/fleet", "internal/*"}
	contracts = []string{"schema/nodestate", "schema/fleet", "internal/*"}
	steps     = []string{"schema", "schema/...", "policies", "internal/*"}
)

// foreign lists modules that a binary must not carry, with the reason.
var foreign = map[string]map[string]string{
	"cmd/selvedge-edge": {
		"cuelang.org/go":                "the edge evaluates nothing",
		"github.com/sigstore/cosign":    "20 MB for one signature check",
		"github.com/go-git/go-git":      "the edge sees states, not Git",
		"selvedge/reconciler":           "the signed state is the only contract",
		"github.com/google/go-github":   "nothing at the edge talks to a forge",
		"k8s.io/kubernetes":             "the edge is a client",
		"github.com/sigstore/rekor":     "no transparency log at the edge",
		"github.com/sigstore/fulcio":    "no certificate authority at the edge",
		"github.com/google/certificate": "no transparency log at the edge",
	},
	"cmd/selvedge-hub": {
		"selvedge/edge":                "the bus messages are the only contract",
		"selvedge/reconciler/sign":     "the hub holds nothing that can sign a state",
		"selvedge/reconciler/git":      "the hub does not read Git, let alone write it",
		"selvedge/reconciler/validate": "the hub evaluates nothing",
		"cuelang.org/go":               "the hub evaluates nothing",
		"github.com/sigstore/cosign":   "the hub holds nothing that can sign a state",
		"github.com/go-git/go-git":     "the hub does not read Git, let alone write it",
	},
	"cmd/selvedge-reconciler": {
		"selvedge/edge": "the signed state is the only contract",
		"github.com/containerd/nerdctl/v2/pkg/cmd": "the cloud runs no container",
	},
}

// Allowed reports whether a package of ours may import another one of ours, and why not.
// Both are paths below the module.
func Allowed(pkg, imported string) (bool, string) {
	for _, r := range floors {
		if !match(r.pkg, pkg) {
			continue
		}
		for _, m := range r.may {
			if match(m, imported) {
				return true, ""
			}
		}
		return false, r.reason
	}
	return false, "no floor is given for it: add it to the table"
}

func match(pattern, pkg string) bool {
	if pattern == "..." {
		return true
	}
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == base || strings.HasPrefix(pkg, base+"/")
	}
	ok, err := path.Match(pattern, pkg)
	return err == nil && ok
}
