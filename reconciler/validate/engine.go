package validate

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"

	"selvedge/policies"
	"selvedge/schema"
)

// rules is the version of what this package itself decides: raise it with each change
// of a verdict, so that no cache keeps the old one.
const rules = "2"

// engine names everything, besides the tree, that a result depends on.
var engine = sync.OnceValue(func() string {
	h := sha256.New()
	h.Write([]byte("validate " + rules + "\x00cue v0.17.1\x00" + schema.Digest()))
	for _, p := range policies.All() {
		h.Write([]byte("\x00" + p.Name + "\x00"))
		h.Write(p.Source)
	}
	return hex.EncodeToString(h.Sum(nil))
})
