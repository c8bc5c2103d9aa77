package git

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/go-git/go-git/v5/plumbing"

	"selvedge/internal/backoff"
)

const (
	// how often a local branch is read while no file events come
	blindInterval = time.Second
	// how soon a repository that went away is looked for again
	goneInterval = 250 * time.Millisecond
)

// Run watches until ctx ends: a local repository by file events and, more slowly, by
// looking; a remote by signalling at each interval, since only a fetch can tell.
func (s *Source) Run(ctx context.Context) error {
	at, err := parseRemote(s.cfg.Remote)
	if err != nil {
		return err
	}
	if at.url == nil {
		return s.watch(ctx, at.path)
	}
	s.signal()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff.Jitter(s.cfg.Interval)):
			s.signal()
		}
	}
}

// watch signals whenever the branch of a local repository points elsewhere.
func (s *Source) watch(ctx context.Context, path string) error {
	w := s.watcher()
	defer func() { w.Close() }()
	last := "" // the first look signals: what came before it is news too
	look := func() time.Duration {
		seen, wait := s.observe(path, w)
		if seen != last {
			s.signal()
			last = seen
		}
		return wait
	}
	timer := time.NewTimer(look())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev, ok := <-w.events():
			if !ok { // never seen, but a closed channel would keep this loop spinning
				w.fs = nil
				w.blind(errors.New("the watcher ended"))
			}
			if !ok || relevant(ev) {
				timer.Reset(look())
			}
		case err := <-w.errors(): // nil when it ended
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				timer.Reset(look()) // events were dropped: look for oneself
			} else if err != nil {
				s.cfg.Log.Warn("watching the repository", "path", path, "error", err)
			}
		case <-timer.C:
			timer.Reset(look())
		}
	}
}

// relevant leaves out lock files and what a worktree's own work stirs up.
func relevant(ev fsnotify.Event) bool {
	name := filepath.Base(ev.Name)
	if ev.Op == fsnotify.Chmod || strings.HasSuffix(name, ".lock") {
		return false
	}
	switch name {
	case "index", "COMMIT_EDITMSG", "ORIG_HEAD", "FETCH_HEAD", "MERGE_HEAD":
		return false
	}
	return true
}

// observe sets the watches that are missing and tells where the branch points, or why
// that is unknown, and how long to wait for an event before looking again.
func (s *Source) observe(path string, w *watcher) (seen string, wait time.Duration) {
	wait = backoff.Jitter(s.cfg.Interval)
	l, err := locate(path, false)
	if err != nil {
		return err.Error(), min(wait, goneInterval)
	}
	o := refsOf(l)
	// watch first, then look: what changes after the look makes an event
	for range 8 {
		w.follow(l, w.ref)
		h, ref, err := o.tip(s.cfg.Branch)
		if seen = h.String() + " " + ref; err != nil {
			seen = err.Error()
		}
		if ref == w.ref {
			break
		}
		w.ref = ref
	}
	if !w.works() {
		wait = min(wait, blindInterval)
	}
	return seen, wait
}

// watcher is a set of watched folders that falls back to none.
type watcher struct {
	fs      *fsnotify.Watcher // nil: none can be had
	ref     string            // where the branch was found last
	watched []string          // folders
	blind   func(error)       // tells once
	failing bool
}

func (s *Source) watcher() *watcher {
	w := &watcher{ref: branchRef(s.cfg.Branch).String()}
	w.blind = func(err error) {
		if !w.failing {
			s.cfg.Log.Warn("file events cannot be had, the repository is polled instead; raise fs.inotify.max_user_watches and max_user_instances",
				"remote", s.cfg.Remote, "every", min(s.cfg.Interval, blindInterval), "error", err)
		}
		w.failing = true
	}
	fsw, err := s.newWatcher()
	if err != nil {
		w.blind(err)
		return w
	}
	w.fs = fsw
	return w
}

func (w *watcher) Close() {
	if w.fs != nil {
		w.fs.Close()
	}
}

func (w *watcher) works() bool { return w.fs != nil && !w.failing }

func (w *watcher) events() <-chan fsnotify.Event {
	if w.fs == nil {
		return nil
	}
	return w.fs.Events
}

func (w *watcher) errors() <-chan error {
	if w.fs == nil {
		return nil
	}
	return w.fs.Errors
}

// follow watches the folders through which a ref can change: Git writes files elsewhere
// and renames them into place, so it is their folders that see it.
func (w *watcher) follow(l layout, ref string) {
	if w.fs == nil {
		return
	}
	want := []string{l.gitDir}
	if l.commonDir != l.gitDir {
		want = append(want, l.commonDir)
	}
	if plumbing.ReferenceName(ref).IsSafe() && strings.HasPrefix(ref, "refs/") {
		parts := strings.Split(ref, "/")
		for i := range parts[1:] { // from above: the folder above tells when one is made
			want = append(want, filepath.Join(l.commonDir, filepath.Join(parts[:i+1]...)))
		}
	}
	failed := false
	for _, dir := range want {
		// Each time anew: it is harmless, and a folder that was removed and made again is
		// not watched any more.
		if err := w.fs.Add(dir); err != nil && !errors.Is(err, os.ErrNotExist) && !notDir(err) {
			failed = true
			w.blind(err)
		}
	}
	if !failed {
		w.failing = false
	}
	for _, dir := range w.watched {
		if !slices.Contains(want, dir) {
			w.fs.Remove(dir) // its error says that it is gone already
		}
	}
	w.watched = want
}
