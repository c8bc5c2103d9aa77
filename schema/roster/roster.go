// Package roster is what the reconciler tells hubs about the fleet in Git: which nodes there
// are and what each should run, who may join, who may see and do what.
//
// The reconciler serves it as a stream of Events, one JSON value a line
// (application/x-ndjson): first the whole, then what each commit changed. It holds no secret:
// of API tokens only hashes. Hubs believe it because of where it comes from; nodes never
// see it.
package roster

import (
	"time"

	"selvedge/schema/nodestate"
)

// Path is where the reconciler serves the stream to hubs.
const Path = "/roster/v1/watch"

// MaxEvent is the most bytes of one event; the reconciler splits what is larger.
const MaxEvent = 8 << 20

// Event is one change. A hub applies it as a whole.
type Event struct {
	Reset bool `json:"reset,omitempty"` // what was known before is void: the stream begins
	// More: others follow that belong to the same change; apply them together.
	More bool `json:"more,omitempty"`
	// Fleet is in place of the one before. If one change has several of them, what is in the maps
	// and lists of a later one belongs to the first.
	Fleet   *Fleet          `json:"fleet,omitempty"`
	Nodes   map[string]Node `json:"nodes,omitempty"` // new or changed
	Removed []string        `json:"removed,omitempty"`
	// Changes are commits that took effect, oldest first; after Reset the latest few.
	Changes []Change `json:"changes,omitempty"`
	Trust   string   `json:"trust,omitempty"` // digest of the root documents, when it changed or after Reset
}

// Fleet is what the repo says besides nodes.
type Fleet struct {
	Platform    string              `json:"platform"`
	Prefix      string              `json:"prefix,omitempty"`      // of the published repositories
	Fingerprint string              `json:"fingerprint,omitempty"` // of the first root document
	Seen        Commit              `json:"seen"`
	InForce     Commit              `json:"inForce"`
	Error       string              `json:"error,omitempty"` // why the commit seen is not in force
	Scopes      map[string]Scope    `json:"scopes"`          // by path; "" is the platform
	Identities  map[string]Identity `json:"identities,omitempty"`
	Bindings    []Binding           `json:"bindings,omitempty"`
	Guides      map[string]Guide    `json:"guides,omitempty"`   // by scope and name: "folders/munich/lab/lab-box"
	Problems    []Problem           `json:"problems,omitempty"` // of the commit seen, at most 1,000
	Apps        map[string][]App    `json:"apps,omitempty"`     // by workspace
}

// Commit is a commit, for people.
type Commit struct {
	Hash    string    `json:"hash,omitempty"`
	Subject string    `json:"subject,omitempty"`
	Author  string    `json:"author,omitempty"`
	Time    time.Time `json:"time,omitzero"`
}

// Scope is a directory of the permission tree.
type Scope struct {
	Kind  string `json:"kind"` // platform, folder or workspace
	Title string `json:"title,omitempty"`
}

// Identity is a person or service. Identities may be declared at any scope; names are
// unique in the platform.
type Identity struct {
	Kind   string           `json:"kind"`            // user or service
	Scope  string           `json:"scope,omitempty"` // that declares it: it counts there and below, and so do its tokens
	Groups []string         `json:"groups,omitempty"`
	Tokens map[string]Token `json:"tokens,omitempty"` // API tokens, by name
}

// Token is an API token, of which Git knows a hash.
type Token struct {
	Hash    string    `json:"hash"` // sha256: and 64 hex digits, of the token's text
	Expires time.Time `json:"expires"`
	Role    string    `json:"role,omitempty"`  // at most this; empty: all that its holder has
	Scope   string    `json:"scope,omitempty"` // there and below only
}

// Binding grants a role at a scope and below.
type Binding struct {
	Name     string   `json:"name"`
	Scope    string   `json:"scope"`    // path; "" is the platform
	Role     string   `json:"role"`     // viewer, editor or admin
	Subjects []string `json:"subjects"` // user:NAME, group:NAME or service:NAME
}

// Guide lets nodes join below a scope.
type Guide struct {
	Name     string            `json:"name"`
	Scope    string            `json:"scope"` // a folder or workspace
	Prefix   string            `json:"prefix"`
	Labels   map[string]string `json:"labels,omitempty"`
	MaxNodes int               `json:"maxNodes,omitempty"` // 0: no bound
}

// Node is one node in Git.
type Node struct {
	Workspace string            `json:"workspace"` // path
	Labels    map[string]string `json:"labels,omitempty"`
	PublicKey string            `json:"publicKey,omitempty"` // empty: awaiting an identity
	// Generation, Digest and Commit are of the published state; zero if there is none.
	Generation int64            `json:"generation,omitempty"`
	Digest     string           `json:"digest,omitempty"` // of the content
	Commit     string           `json:"commit,omitempty"` // that made it
	Apps       []string         `json:"apps,omitempty"`   // that run on it
	Images     []string         `json:"images,omitempty"` // that it needs, with digest
	Remote     nodestate.Remote `json:"remote,omitzero"`
	Held       string           `json:"held,omitempty"` // why it keeps an earlier state
	Drain      bool             `json:"drain,omitempty"`
}

// App is one app of a workspace.
type App struct {
	Name  string `json:"name"`
	Scope string `json:"scope"` // where it is declared
}

// Change is a commit that took effect.
type Change struct {
	Commit
	At      time.Time        `json:"at"`              // when it took effect
	Nodes   map[string]int64 `json:"nodes,omitempty"` // touched, with their new generation; at most 100,000
	Removed []string         `json:"removed,omitempty"`
	// Count is how many nodes it touched or removed; of old changes, the names are forgotten.
	Count int `json:"count,omitempty"`
}

// Problem is a finding about the repo, as people read it.
type Problem struct {
	Severity  string `json:"severity"`
	Workspace string `json:"workspace,omitempty"`
	Text      string `json:"text"`
}
