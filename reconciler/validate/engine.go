package validate

import "selvedge/schema"

// engine names the rules that make results of a tree: whatever changes them must change it.
func engine() string { return "validate/1 cue/0.17.1 " + schema.Digest() }
