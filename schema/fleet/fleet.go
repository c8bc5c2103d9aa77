package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fleet is a whole config repo, evaluated.
type Fleet struct {
	Commit     string             // hex; empty for a directory that is not a commit
	Workspaces map[string]*Source // by path of the workspace directory, e.g. folders/plant-a/line-1
	// Folders are the platform, by "", and the folders, by path. Their units hold what needs
	// no workspace to count: platform, folder, identity, roleBinding and accessGuide.
	Folders map[string]*Source
}

// Source is one workspace, or one folder: its values, or why there are none, and where they were written.
type Source struct {
	Path string
	// ID is the digest of everything that the evaluation read: two sources with one
	// ID are equal.
	ID       string
	Unit     *Unit             // nil if it is refused
	Entities map[string]Origin // by "kind/name"
	Problems []Problem         // errors (then Unit is nil) and warnings
}

// Origin is where an entity was declared.
type Origin struct {
	Position
	Scope string `json:"scope"` // topmost directory whose instance holds it; "" is the platform
}

// Position is a place in a file of the repo; Line and Column count from 1, 0 means unknown.
type Position struct {
	File   string `json:"file,omitempty"` // path from the root of the repo
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

func (p Position) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Severity tells whether a problem refuses a workspace.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // the workspace keeps its last state
	Warning Severity = "warning" // said, and nothing more
)

// Problem is a finding for people: place, cause, next step.
type Problem struct {
	Severity  Severity `json:"severity"`
	Workspace string   `json:"workspace,omitempty"` // path; empty: the whole repo
	Position
	Kind    string `json:"kind,omitempty"` // node, app, …
	Name    string `json:"name,omitempty"`
	Message string `json:"message"` // what is wrong; what to do
}

// String is the text form: `path:line:col: kind "name": message`, with "warning: " before
// the message of a warning.
func (p Problem) String() string {
	var b strings.Builder
	if s := p.Position.String(); s != "" {
		b.WriteString(s + ": ")
	}
	if p.Severity == Warning {
		b.WriteString("warning: ")
	}
	if p.Kind != "" {
		b.WriteString(p.Kind)
		if p.Name != "" {
			fmt.Fprintf(&b, " %q", p.Name)
		}
		b.WriteString(": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// SortProblems orders problems by place and drops those said twice.
func SortProblems(ps []Problem) []Problem {
	slices.SortFunc(ps, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name),
			cmp.Compare(a.Message, b.Message), cmp.Compare(a.Workspace, b.Workspace))
	})
	return slices.CompactFunc(ps, func(a, b Problem) bool { // an inherited mistake is one mistake
		a.Workspace, b.Workspace = "", ""
		return a == b
	})
}
