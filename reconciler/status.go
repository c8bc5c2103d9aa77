package reconciler

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"time"

	"selvedge/internal/atomicfile"
	"selvedge/reconciler/resolve"
	"selvedge/schema/fleet"
)

// Status is what the reconciler knows of itself, for people and monitors.
type Status struct {
	Seen       Commit                  `json:"seen"`    // the newest commit that could be read
	InForce    Commit                  `json:"inForce"` // the newest commit whose good workspaces are published
	Error      string                  `json:"error,omitempty"`
	Since      time.Time               `json:"since,omitzero"` // of Error
	Workspaces int                     `json:"workspaces"`
	Nodes      int                     `json:"nodes"`              // with a state of the commit in force
	Before     int                     `json:"before,omitempty"`   // nodes with a state from before the start, while nothing is in force since
	Held       map[string]resolve.Held `json:"held,omitempty"`     // node → why it keeps an earlier state
	Awaiting   []string                `json:"awaiting,omitempty"` // nodes without identity
	Problems   []fleet.Problem         `json:"problems,omitempty"` // of the commit seen
	Signed     int                     `json:"signed"`             // states, in the last pass that had news
	Removed    int                     `json:"removed"`            // states withdrawn in it
	Took       string                  `json:"took,omitempty"`     // that pass
	Finished   time.Time               `json:"finished,omitzero"`  // the last good pass
}

// Commit names a commit for people.
type Commit struct {
	Hash    string    `json:"hash,omitempty"`
	Subject string    `json:"subject,omitempty"`
	Author  string    `json:"author,omitempty"`
	Time    time.Time `json:"time,omitzero"`
}

// Status returns what is known now.
func (r *Reconciler) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status // replaced as a whole, never changed
}

func (p *pass) seen() Commit {
	if p.commit == nil {
		return Commit{}
	}
	return Commit{p.commit.Hash, p.commit.Subject(), p.commit.Author, p.commit.Time}
}

func (r *Reconciler) failed(p *pass, err error) {
	defer func() { r.trouble(p, r.Status()) }()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	if s.InForce.Hash == "" {
		s.Before = published(r.cfg.Publisher)
	}
	if p.commit != nil {
		s.Seen = p.seen()
	}
	if p.problems != nil {
		s.Problems = fleet.SortProblems(p.problems)
	}
	if s.Error != err.Error() {
		s.Error, s.Since = err.Error(), time.Now()
		r.cfg.Log.Error("pass", "error", err, "in force", s.InForce.Hash)
	}
	r.status = s
}

// published counts the nodes that have a state; 0 if that cannot be told.
func published(p Publisher) int {
	heads, err := p.Heads()
	if err != nil {
		return 0
	}
	n := 0
	for _, h := range heads {
		if h.ContentDigest != "" {
			n++
		}
	}
	return n
}

func (r *Reconciler) succeeded(p *pass, took time.Duration) {
	s := Status{
		Seen: p.seen(), InForce: p.seen(), Workspaces: len(p.fleet.Workspaces), Nodes: len(p.result.Nodes),
		Held: p.result.Held, Awaiting: p.result.Awaiting, Problems: p.problems,
		Signed: p.signed, Removed: p.removed, Took: took.Round(time.Millisecond).String(), Finished: time.Now(),
	}
	r.mu.Lock()
	before := r.status
	if p.signed+p.removed == 0 && before.InForce.Hash == s.InForce.Hash && before.Error == "" {
		s.Signed, s.Removed, s.Took = before.Signed, before.Removed, before.Took // a look without news
	}
	r.status = s
	r.mu.Unlock()
	if before.InForce.Hash != s.InForce.Hash {
		r.metrics.commits.Inc()
	}
	if p.signed > 0 || p.removed > 0 || before.InForce.Hash != s.InForce.Hash || before.Error != "" {
		r.cfg.Log.Info("published", "commit", p.commit.Hash, "nodes", s.Nodes, "signed", p.signed, "removed", p.removed, "held", len(s.Held), "took", s.Took)
	}
	for _, problem := range s.Problems {
		if before.Seen.Hash != s.Seen.Hash && problem.Severity == fleet.Error {
			r.cfg.Log.Warn("refused", "workspace", problem.Workspace, "problem", problem.String())
		}
	}
}

// acceptedFile remembers who held which name and key in the last accepted commit.
const acceptedFile = "accepted.json"

func loadAccepted(file string) (resolve.Accepted, error) {
	var a resolve.Accepted
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(b, &a); err != nil {
		return a, fmt.Errorf("%s: %w; remove the file to start without it: then the first to claim a name or key holds it", file, err)
	}
	return a, nil
}

func saveAccepted(file string, a resolve.Accepted) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return atomicfile.Write(file, b, 0o600)
}

func same(a, b resolve.Accepted) bool {
	return maps.Equal(a.Nodes, b.Nodes) && maps.Equal(a.Keys, b.Keys) && reflect.DeepEqual(a.Access, b.Access)
}
