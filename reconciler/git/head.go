package git

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
)

// headRemote brings the clone up to date and reads the branch's commit from it.
func (s *Source) headRemote(ctx context.Context, u *url.URL) (*Commit, *objects, error) {
	fetching, cancel := context.WithTimeout(ctx, s.cfg.FetchTimeout)
	defer cancel()
	unlock, err := lockClones(fetching, s.cfg.Dir)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	r, err := s.dial(u)
	if err != nil {
		return nil, nil, err
	}
	defer r.close()
	c, err := s.update(fetching, r)
	if err != nil {
		return nil, nil, r.explain(fetching, s.cfg.FetchTimeout, err)
	}
	return c, s.clone.repo.objects, nil
}

// openClone opens the newest clone without fetching.
func (s *Source) openClone(u *url.URL) (*Repository, error) {
	if s.clone == nil {
		n, err := newest(s.cfg.Dir)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return nil, &Error{Op: "open", What: u.Redacted(), Kind: ErrEmpty, Why: "it was not cloned yet"}
		}
		return openAt(layout{gitDir: clonePath(s.cfg.Dir, n), commonDir: clonePath(s.cfg.Dir, n)}, s.cfg.Limits)
	}
	return s.clone.repo, nil
}

// update fetches what is new. The remote is asked first: a clone is only given up when it
// can be had again.
func (s *Source) update(ctx context.Context, r *remote) (*Commit, error) {
	adv, h, ref, err := r.advertised(ctx, s.cfg.Branch)
	if err != nil {
		return nil, err
	}
	if err := s.reopenClone(ctx); err != nil {
		return nil, err
	}
	if s.clone == nil {
		return s.cloneAnew(ctx, r, adv, h, ref, 1)
	}
	old := s.clone
	if !old.repo.objects.damaged.Load() {
		c, err := s.advance(ctx, r, adv, h, ref)
		if err == nil || !errors.Is(err, ErrCorrupt) {
			return c, err
		}
		s.cfg.Log.Warn("the clone is damaged", "clone", old.dir, "error", err)
	}
	c, err := s.cloneAnew(ctx, r, adv, h, ref, old.number+1)
	if err != nil {
		return nil, err
	}
	s.cfg.Log.Warn("the damaged clone was replaced", "by", s.clone.dir, "kept", filepath.Join(s.cfg.Dir, brokenName))
	return c, setAside(s.cfg.Dir, old)
}

// reopenClone opens the clone that an earlier run left, and checks it thoroughly: it may
// have been killed, or its machine lost power.
func (s *Source) reopenClone(ctx context.Context) error {
	if s.clone != nil {
		if _, err := gitDirAt(s.clone.dir); err == nil {
			return nil
		}
		s.clone = nil // removed, or made again by another process
	}
	c, err := openNewest(s.cfg.Dir, s.cfg.Limits)
	if c == nil {
		return err
	}
	if err == nil {
		var tip plumbing.Hash
		if tip, _, err = c.repo.objects.tip(""); err == nil {
			err = c.repo.objects.complete(ctx, tip, true)
		}
	}
	if cerr := ctx.Err(); cerr != nil {
		return cerr
	}
	if err != nil {
		s.cfg.Log.Warn("the clone is damaged", "clone", c.dir, "error", err)
		if c.repo == nil {
			c.repo = &Repository{objects: &objects{layout: layout{gitDir: c.dir, commonDir: c.dir}}}
		}
		c.repo.objects.damaged.Store(true)
	}
	s.clone = c
	return nil
}

// advance brings the clone to a commit of the remote.
func (s *Source) advance(ctx context.Context, r *remote, adv *packp.AdvRefs, h plumbing.Hash, ref string) (*Commit, error) {
	o := s.clone.repo.objects
	tip, at, err := o.tip("")
	if err != nil {
		return nil, corrupt("open", s.clone.dir, err)
	}
	if tip != h {
		if s.clone.packCount() >= maxPacks {
			if c, err := s.cloneAnew(ctx, r, adv, h, ref, s.clone.number+1); err == nil {
				return c, nil
			} else if errors.Is(err, ErrDisk) || errors.Is(err, ErrTooLarge) {
				s.cfg.Log.Warn("the clone has many packs and could not be made again; it is used on", "clone", s.clone.dir, "error", err)
			} else {
				return nil, err
			}
		}
		// a push back to an older commit brings nothing new
		if !o.has(h) || o.complete(ctx, h, false) != nil {
			if err := r.download(ctx, adv, h, o.haves(tip), s.clone.dir); err != nil {
				return nil, err
			}
		}
		if err := o.complete(ctx, h, false); err != nil {
			return nil, err
		}
	}
	if tip != h || at != ref {
		if err := s.clone.setShallow(adv.Shallows); err != nil {
			return nil, err
		}
		if err := s.clone.setRef(ref, h); err != nil {
			return nil, err
		}
	}
	c, err := o.readCommit(h)
	if err == nil {
		c.Ref = ref
	}
	return c, err
}

// cloneAnew makes a whole new clone and changes over to it.
func (s *Source) cloneAnew(ctx context.Context, r *remote, adv *packp.AdvRefs, h plumbing.Hash, ref string, number int) (*Commit, error) {
	tmp := clonePath(s.cfg.Dir, number) + tmpSuffix
	repo, err := initClone(tmp, s.cfg.Limits)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp) // gone already if it was published
	if err := r.download(ctx, adv, h, nil, tmp); err != nil {
		return nil, err
	}
	if err := repo.objects.complete(ctx, h, false); err != nil {
		// never ErrCorrupt, which would make it all again: it is the remote's fault
		return nil, &Error{Op: "fetch", What: r.url.Redacted(), Kind: ErrProtocol, Why: "it sent an incomplete commit: " + printable(err.Error()),
			Hint: "run git fsck there; " + hintStays, cause: nil}
	}
	c := &clone{dir: tmp, number: number}
	if err := c.setShallow(adv.Shallows); err != nil {
		return nil, err
	}
	if err := c.setRef(ref, h); err != nil {
		return nil, err
	}
	if err := publish(s.cfg.Dir, tmp, number); err != nil {
		return nil, err
	}
	c.dir = clonePath(s.cfg.Dir, number)
	if c.repo, err = openAt(layout{gitDir: c.dir, commonDir: c.dir}, s.cfg.Limits); err != nil {
		return nil, err
	}
	if s.clone != nil {
		sweep(s.cfg.Dir, s.clone.number) // keeps the one before: its trees may still be read
	}
	s.clone = c
	out, err := c.repo.objects.readCommit(h)
	if err == nil {
		out.Ref = ref
	}
	return out, err
}
