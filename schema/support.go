package schema

import (
	"slices"
	"strings"
)

// Level says what the engine does with a part of the schema.
type Level string

// The levels.
const (
	Acts   Level = "acts"   // it does what the schema says
	Warn   Level = "warn"   // it is checked and kept, and nothing acts on it: said once a kind or field
	Refuse Level = "refuse" // ignoring it would be dangerous: an error
)

// Support is what the engine does with the value at a path and all below it.
type Support struct {
	// Path is that of a value in a workspace: kind, then field names, with * for the
	// name of an entity or any other key of a map, e.g. app.*.placement.replicas.
	Path  string
	Level Level
	// Why completes "not supported yet: …" for people, with what to do instead; empty for Acts.
	Why string
}

// Supported returns the table of what is supported, by path. A path that is not in
// it has the level of the nearest path above it that is.
func Supported() []Support { return slices.Clone(supported) }

// LevelAt returns what the engine does with the value at a path such as
// app.*.rollout.waves.
func LevelAt(path string) Support {
	for p := path; ; {
		if i, ok := slices.BinarySearchFunc(supported, p, func(s Support, p string) int { return strings.Compare(s.Path, p) }); ok {
			return supported[i]
		}
		i := strings.LastIndexByte(p, '.')
		if i < 0 {
			return Support{Path: path, Level: Refuse, Why: "unknown to the engine"}
		}
		p = p[:i]
	}
}

// supported is sorted by path; a test holds it against the schema.
var supported = []Support{
	{"accessGuide", Acts, ""},
	{"app", Acts, ""},
	{"app.*.kubernetes", Refuse, "no node runs Kubernetes objects; declare containers"},
	{"app.*.model", Refuse, "models are not delivered to nodes; put the model into the image, or mount a directory of the node"},
	{"app.*.placement.replicas", Refuse, "an app runs on every node that it selects; select by a label, or name the nodes"},
	{"app.*.placement.spread", Refuse, "an app runs on every node that it selects; select by a label, or name the nodes"},
	{"app.*.rollout", Refuse, "a change goes to all nodes at once; remove rollout, and change one label or node after the other"},
	{"app.*.secret", Refuse, "secrets are not delivered to nodes; mount a file of the node"},
	{"app.*.update.gate", Refuse, "nodes do not wait for a condition; remove gate"},
	{"config", Acts, ""},
	{"device", Warn, "devices are not read or written"},
	{"deviceModel", Warn, "devices are not read or written"},
	{"endpoint", Warn, "no message is routed"},
	{"folder", Acts, ""},
	{"identity", Acts, ""},
	{"model", Warn, "models are not delivered to nodes"},
	{"node", Acts, ""},
	{"node.*.identity.recipient", Warn, "no secret is encrypted to it"},
	{"node.*.schedulable", Warn, "no app is placed by replicas; use drain to take apps off the node"},
	{"node.*.windows", Refuse, "updates start as soon as they arrive; remove windows"},
	{"platform", Acts, ""},
	{"policy", Acts, ""},
	{"roleBinding", Acts, ""},
	{"route", Warn, "no message is routed"},
	{"secret", Warn, "secrets are not delivered to nodes"},
	{"workspace", Acts, ""},
}
