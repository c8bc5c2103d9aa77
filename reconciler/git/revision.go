package git

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
)

const (
	maxRevision  = 1024    // bytes
	maxSteps     = 100_000 // generations back
	minShortHash = 4
)

// Resolve finds the commit that a revision names: a branch, a tag, a remote branch, a full
// or short hash, HEAD or @, each with any number of ~N, ^N and ^{commit} behind it, as in
// gitrevisions(7).
//
// go-git's own resolver takes ^3 for ^2 and gives up on alternates, hence this one.
func (r *Repository) Resolve(ctx context.Context, rev string) (*Commit, error) {
	if len(rev) > maxRevision {
		return nil, &Error{Op: "resolve", What: printable(rev), Kind: ErrNoRevision, Why: "the name is too long"}
	}
	base, steps := rev, ""
	if i := strings.IndexAny(rev, "^~"); i >= 0 {
		base, steps = rev[:i], rev[i:]
	}
	h, ref, err := r.objects.named(base)
	if err != nil {
		return nil, r.noRevision(rev, err)
	}
	if h, err = r.objects.follow(ctx, h, steps); err != nil {
		return nil, r.noRevision(rev, err)
	}
	c, err := r.objects.readCommit(h)
	if err != nil {
		return nil, err
	}
	if steps == "" && plumbing.ReferenceName(ref).IsBranch() {
		c.Ref = ref
	}
	return c, nil
}

func (r *Repository) noRevision(rev string, err error) error {
	if !errors.Is(err, ErrNoRevision) {
		return err
	}
	e := &Error{Op: "resolve", What: strconv.Quote(printable(rev)), Kind: ErrNoRevision, Hint: "see git log and git branch -a"}
	if inner := new(Error); errors.As(err, &inner) {
		e.Why = inner.Why
	}
	if r.Shallow() {
		e.cause = ErrShallow
		e.Hint = "the clone is shallow: run git fetch --unshallow, or check out with fetch-depth: 0"
	} else if _, err := r.objects.branches(); err == nil {
		if _, _, err := r.objects.tip(""); errors.Is(err, ErrEmpty) {
			return err
		}
	}
	return e
}

func noSuch(format string, args ...any) error {
	return &Error{Op: "resolve", Kind: ErrNoRevision, Why: fmt.Sprintf(format, args...)}
}

// named finds what a name without steps stands for, in the order of gitrevisions(7).
func (o *objects) named(name string) (plumbing.Hash, string, error) {
	if name == "@" {
		name = "HEAD"
	}
	if plumbing.IsHash(name) {
		h := plumbing.NewHash(name)
		if !o.has(h) {
			return h, "", noSuch("no object has this hash")
		}
		return h, "", nil
	}
	if name == "HEAD" {
		h, ref, err := o.tip("")
		return h, ref, err
	}
	for _, format := range []string{"%s", "refs/%s", "refs/tags/%s", "refs/heads/%s", "refs/remotes/%s", "refs/remotes/%s/HEAD"} {
		full := fmt.Sprintf(format, name)
		if name == "" || !strings.HasPrefix(full, "refs/") {
			continue
		}
		if h, ref, err := o.tip(full); err == nil {
			return h, ref, nil
		}
	}
	h, err := o.short(name)
	return h, "", err
}

// short finds the one commit, or tag of a commit, whose hash begins so.
func (o *objects) short(prefix string) (plumbing.Hash, error) {
	prefix = strings.ToLower(prefix)
	even, err := hex.DecodeString(prefix[:len(prefix)&^1])
	if _, perr := strconv.ParseUint(prefix+"0", 16, 64); len(prefix) < minShortHash || err != nil || (perr != nil && errors.Is(perr, strconv.ErrSyntax)) {
		return plumbing.ZeroHash, noSuch("no branch, tag or hash is called so")
	}
	found := make(map[plumbing.Hash]bool) // commits
	for _, h := range o.withPrefix(even) {
		if strings.HasPrefix(h.String(), prefix) {
			if c, err := o.peel(h); err == nil {
				found[c] = true
			}
		}
	}
	switch len(found) {
	case 0:
		return plumbing.ZeroHash, noSuch("no branch, tag or hash is called so")
	case 1:
		for h := range found {
			return h, nil
		}
	}
	return plumbing.ZeroHash, noSuch("%d commits begin so: give more digits", len(found))
}

func (o *objects) withPrefix(prefix []byte) (all []plumbing.Hash) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.packNames() != o.packs {
		o.reopen()
	}
	for _, s := range o.stores {
		func() {
			var err error
			defer guard("look up", "a short hash", &err)
			if hashes, err := s.HashesWithPrefix(prefix); err == nil {
				all = append(all, hashes...)
			}
		}()
	}
	return all
}

// peel follows tags to their commit.
func (o *objects) peel(h plumbing.Hash) (plumbing.Hash, error) {
	for range 8 {
		t, err := o.kindOf(h)
		switch {
		case err != nil:
			return h, err
		case t == plumbing.CommitObject:
			return h, nil
		case t != plumbing.TagObject:
			return h, noSuch("%s is a %s and no commit", h, t)
		}
		data, err := o.read(plumbing.TagObject, h, maxMetaBytes)
		if err != nil {
			return h, err
		}
		if h, err = decodeTag(h, data); err != nil {
			return h, err
		}
	}
	return h, noSuch("tags of tags of tags")
}

func decodeTag(h plumbing.Hash, data []byte) (to plumbing.Hash, err error) {
	defer guard("read", "tag "+h.String(), &err)
	obj := &plumbing.MemoryObject{}
	obj.SetType(plumbing.TagObject)
	if _, err := obj.Write(data); err != nil {
		return h, err
	}
	var tag object.Tag
	if err := tag.Decode(obj); err != nil {
		return h, corrupt("read", "tag "+h.String(), err)
	}
	return tag.Target, nil
}

// follow goes back through the history: ~N first parents, ^N the Nth parent.
func (o *objects) follow(ctx context.Context, h plumbing.Hash, steps string) (plumbing.Hash, error) {
	h, err := o.peel(h)
	if err != nil {
		return h, err
	}
	for total := 0; steps != ""; {
		kind := steps[0]
		steps = steps[1:]
		if kind == '^' && strings.HasPrefix(steps, "{") {
			what, rest, ok := strings.Cut(steps[1:], "}")
			if !ok || (what != "" && what != "commit") {
				return h, noSuch("^{%s} is not understood: use ^{commit}", what)
			}
			steps = rest
			continue
		}
		digits := 0
		for digits < len(steps) && steps[digits] >= '0' && steps[digits] <= '9' {
			digits++
		}
		n := 1
		if digits > 0 {
			if n, err = strconv.Atoi(steps[:digits]); err != nil {
				return h, noSuch("%s is not a number of steps", steps[:digits])
			}
		}
		steps = steps[digits:]
		if steps != "" && steps[0] != '^' && steps[0] != '~' {
			return h, noSuch("%q is not understood", steps)
		}
		if total += n; total > maxSteps {
			return h, noSuch("more than %d steps back", maxSteps)
		}
		nth, times := 1, n
		if kind == '^' {
			nth, times = n, min(n, 1)
		}
		for range times {
			if err := ctx.Err(); err != nil {
				return h, err
			}
			c, err := o.commit(h)
			if err != nil {
				return h, err
			}
			if len(c.ParentHashes) < nth {
				return h, noSuch("commit %s has %d parents", h, len(c.ParentHashes))
			}
			if o.shallow()[h] {
				return h, noSuch("the parents of commit %s were left out of the clone", h)
			}
			h = c.ParentHashes[nth-1]
		}
	}
	return h, nil
}
