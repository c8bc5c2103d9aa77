package validate

import (
	"encoding/json"

	"selvedge/schema/fleet"
)

// job is what a child is asked: to evaluate one directory.
type job struct {
	Dir string `json:"dir"`
	// Above are the nearest directories above that belong to the same instance, the
	// platform first, and what the instance of the last of them holds.
	Above    []string          `json:"above,omitempty"`
	Inherits map[string]string `json:"inherits,omitempty"` // "kind/name" → scope
	// Inside is the workspace above, if there is one: nothing may be below it.
	Inside   string `json:"inside,omitempty"`
	Problems int    `json:"problems"` // how many to report at most
	CPU      int64  `json:"cpu"`      // nanoseconds
}

// role is what a directory turned out to be.
type role string

const (
	rolePlatform  role = "platform"
	roleFolder    role = "folder"
	roleWorkspace role = "workspace"
	rolePackage   role = "package" // CUE to import, not of package fleet
	roleUnknown   role = "unknown" // too broken to tell
)

// result is a child's answer.
type result struct {
	Role     role                    `json:"role"`
	Unit     json.RawMessage         `json:"unit,omitempty"` // of what passed: all of a workspace, and of the platform or a folder what [unit.declared] says
	Entities map[string]fleet.Origin `json:"entities,omitempty"`
	Problems []fleet.Problem         `json:"problems,omitempty"`
	// Killed marks a verdict of the parent, not of the child: it is never cached.
	Killed bool `json:"-"`
	// Exceeded: it was killed for what it used, not by accident.
	Exceeded bool `json:"-"`
}

func (r *result) refused() bool {
	for i := range r.Problems {
		if r.Problems[i].Severity == fleet.Error {
			return true
		}
	}
	return false
}
