package git

import (
	"container/heap"
	"context"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// Commit is a commit whose tree can be read.
type Commit struct {
	Hash     string // hex
	Ref      string // the branch it was found at, e.g. refs/heads/main; empty for a revision
	Message  string
	Author   string    // "Name <address>"
	Time     time.Time // when it was committed, by the committer's clock
	Parents  []string  // hex
	Tree     *Tree
	Relation Relation // to the commit that the same Source gave before
	Before   string   // hex of that commit; empty if there was none
}

// Subject is the first line of the message.
func (c *Commit) Subject() string {
	line, _, _ := strings.Cut(c.Message, "\n")
	return strings.TrimSpace(line)
}

// Relation tells how a branch moved.
type Relation string

// The relations.
const (
	First     Relation = "first"        // nothing was seen before
	Same      Relation = "same"         // the branch did not move
	Forward   Relation = "fast-forward" // what was seen before is in the history
	Rewritten Relation = "rewritten"    // it is not: a force-push, or another repository
	Unknown   Relation = "unknown"      // the history is cut off: a shallow clone
)

const (
	maxMessage = 64 << 10
	maxWalk    = 50_000 // commits looked at to relate two
	// commits older than the one looked for that are still followed: clocks differ, and a
	// commit may claim to be older than its parent
	slack = 1_000
)

// readCommit reads a commit and the top directory of its tree.
func (o *objects) readCommit(h plumbing.Hash) (*Commit, error) {
	c, err := o.commit(h)
	if err != nil {
		return nil, err
	}
	if _, err := o.directory(c.TreeHash); err != nil {
		return nil, err
	}
	msg := strings.ToValidUTF8(c.Message, "\uFFFD")
	if len(msg) > maxMessage {
		msg = strings.ToValidUTF8(msg[:maxMessage], "")
	}
	out := &Commit{
		Hash:    h.String(),
		Message: strings.TrimRight(msg, "\n"),
		Author:  strings.ToValidUTF8(c.Author.Name+" <"+c.Author.Email+">", "\uFFFD"),
		Time:    c.Committer.When,
		Tree:    &Tree{objects: o, root: c.TreeHash},
	}
	for _, p := range c.ParentHashes {
		out.Parents = append(out.Parents, p.String())
	}
	return out, nil
}

func (o *objects) commit(h plumbing.Hash) (c *object.Commit, err error) {
	what := "commit " + h.String()
	defer guard("read", what, &err)
	data, err := o.read(plumbing.CommitObject, h, maxMetaBytes)
	if err != nil {
		return nil, err
	}
	obj := &plumbing.MemoryObject{}
	obj.SetType(plumbing.CommitObject)
	if _, err := obj.Write(data); err != nil {
		return nil, err
	}
	c = &object.Commit{}
	if err := c.Decode(obj); err != nil {
		return nil, corrupt("read", what, err)
	}
	c.Hash = h
	return c, nil
}

// relate tells how next follows before. Newest commits are looked at first, so that a
// plain push is answered at once.
func (o *objects) relate(ctx context.Context, before, next plumbing.Hash) (Relation, error) {
	switch before {
	case plumbing.ZeroHash:
		return First, nil
	case next:
		return Same, nil
	}
	var until time.Time
	shallow := o.shallow()
	if o.has(before) {
		old, err := o.commit(before)
		if err != nil { // no reason to withhold the new one
			return Unknown, nil
		}
		until = old.Committer.When
	} else if len(shallow) == 0 {
		return Rewritten, nil
	}
	cut := false // the history ends before its first commit
	seen := map[plumbing.Hash]bool{next: true}
	queue := &byTime{}
	push := func(h plumbing.Hash) {
		if !o.has(h) { // asked first: old history that is missing is no reason for a new clone
			cut = true
		} else if c, err := o.commit(h); err != nil {
			cut = true
		} else {
			heap.Push(queue, c)
		}
	}
	push(next)
	for walked, older := 0, 0; queue.Len() > 0; walked++ {
		if walked == maxWalk {
			return Unknown, nil
		}
		if walked%256 == 0 && ctx.Err() != nil {
			return Unknown, ctx.Err()
		}
		c := heap.Pop(queue).(*object.Commit)
		if c.Committer.When.Before(until) {
			if older++; older > slack {
				return Rewritten, nil
			}
		}
		for _, p := range c.ParentHashes {
			if p == before {
				return Forward, nil
			}
			if shallow[c.Hash] {
				cut = true // its parents are known by name alone
			} else if !seen[p] {
				seen[p] = true
				push(p)
			}
		}
	}
	if cut {
		return Unknown, nil
	}
	return Rewritten, nil
}

// byTime is a heap of commits, newest first.
type byTime []*object.Commit

func (q byTime) Len() int           { return len(q) }
func (q byTime) Less(i, j int) bool { return q[i].Committer.When.After(q[j].Committer.When) }
func (q byTime) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *byTime) Push(x any)        { *q = append(*q, x.(*object.Commit)) }
func (q *byTime) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}
