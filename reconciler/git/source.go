package git

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/go-git/go-git/v5/plumbing"
)

// Config says which branch of which repository to follow.
type Config struct {
	// Remote is a path, a file:// or an https:// address without credentials in it; http://
	// on a loopback address only.
	Remote string
	Branch string // "" means the one that the remote's HEAD names

	// CredentialsFile holds one line, "username:password" or a token alone. It is read anew
	// at each fetch, and refused if anyone but its owner can read it.
	CredentialsFile string
	CAFile          string // PEM; trusted instead of the system's roots; read anew at each fetch
	Dir             string // where the clone of a remote is kept; not needed for a local one

	Interval     time.Duration // between polls, with jitter; 0 means 1 min
	FetchTimeout time.Duration // of one fetch; 0 means 10 min
	FetchBytes   int64         // of one fetch; 0 means 1 GiB
	Limits       Limits

	// Since is the hash of the commit that was accepted last, if any: after a restart the
	// first commit is related to it.
	Since string
	Log   *slog.Logger // nil means slog.Default()
}

// Source follows a branch.
type Source struct {
	cfg     Config
	changed chan struct{}
	turn    chan struct{} // holds one token: Head is one at a time
	// newWatcher is fsnotify.NewWatcher, but in tests that take inotify away
	newWatcher func() (*fsnotify.Watcher, error)

	// guarded by turn
	local  *Repository // of a local remote
	clone  *clone      // of another
	before plumbing.Hash
}

// New makes a Source. Wrong settings are told by Head and Run.
func New(cfg Config) *Source {
	cfg.Interval = cmp.Or(cfg.Interval, time.Minute)
	cfg.FetchTimeout = cmp.Or(cfg.FetchTimeout, 10*time.Minute)
	cfg.FetchBytes = cmp.Or(cfg.FetchBytes, 1<<30)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	s := &Source{
		cfg:        cfg,
		changed:    make(chan struct{}, 1),
		turn:       make(chan struct{}, 1),
		newWatcher: fsnotify.NewWatcher,
	}
	if plumbing.IsHash(cfg.Since) {
		s.before = plumbing.NewHash(cfg.Since)
	}
	s.turn <- struct{}{}
	return s
}

// Changed tells that Head may have news. Signals that nobody took fall together.
func (s *Source) Changed() <-chan struct{} { return s.changed }

func (s *Source) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Head returns the newest commit of the branch; a remote is fetched for it. On an error
// nothing is forgotten: the next commit is related to the last one that was returned.
func (s *Source) Head(ctx context.Context) (*Commit, error) {
	release, err := s.take(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	at, err := parseRemote(s.cfg.Remote)
	if err != nil {
		return nil, err
	}
	var c *Commit
	var o *objects
	if at.url == nil {
		c, o, err = s.headLocal(ctx, at.path)
	} else {
		c, o, err = s.headRemote(ctx, at.url)
	}
	if err != nil {
		return nil, err
	}
	h := plumbing.NewHash(c.Hash)
	if c.Relation, err = o.relate(ctx, s.before, h); err != nil {
		return nil, err
	}
	if !s.before.IsZero() {
		c.Before = s.before.String()
	}
	s.before = h
	return c, nil
}

// Commit returns a commit by its full hash, without fetching: for example the one that was
// in force before a restart. A rewritten history may have dropped it.
func (s *Source) Commit(ctx context.Context, hash string) (*Commit, error) {
	release, err := s.take(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	at, err := parseRemote(s.cfg.Remote)
	if err != nil {
		return nil, err
	}
	var r *Repository
	if at.url == nil {
		r, err = s.openLocal(at.path)
	} else {
		r, err = s.openClone(at.url)
	}
	if err != nil {
		return nil, err
	}
	return r.Resolve(ctx, hash)
}

func (s *Source) take(ctx context.Context) (release func(), err error) {
	select {
	case <-s.turn:
		return func() { s.turn <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *Source) openLocal(path string) (*Repository, error) {
	if s.local != nil {
		return s.local, nil
	}
	l, err := locate(path, false)
	if err != nil {
		return nil, err
	}
	s.local, err = openAt(l, s.cfg.Limits)
	return s.local, err
}

func (s *Source) headLocal(ctx context.Context, path string) (*Commit, *objects, error) {
	for fresh := s.local == nil; ; fresh = true {
		r, err := s.openLocal(path)
		if err != nil {
			s.local = nil
			return nil, nil, err
		}
		c, err := r.Head(ctx, s.cfg.Branch)
		if err == nil {
			return c, r.objects, nil
		}
		// the repository may have been removed and made again: look with fresh eyes once
		s.local = nil
		if fresh || ctx.Err() != nil {
			return nil, nil, err
		}
	}
}

// location is a parsed Config.Remote: one of both.
type location struct {
	path string
	url  *url.URL
}

func parseRemote(remote string) (location, error) {
	bad := func(why, hint string) (location, error) {
		return location{}, &Error{Op: "read", What: "the address of the repository", Kind: ErrConfig, Why: why, Hint: hint}
	}
	if remote == "" {
		return bad("it is empty", "give a path or an https:// address")
	}
	if !strings.Contains(remote, "://") {
		host, _, colon := strings.Cut(remote, ":")
		if _, err := os.Lstat(remote); err != nil && colon && !strings.Contains(host, "/") && len(host) > 1 {
			return bad("it is an SSH address", "use the https:// address, with a token in the credentials file")
		}
		abs, err := filepath.Abs(remote)
		return location{path: abs}, err
	}
	u, err := url.Parse(remote)
	if err != nil { // its text would quote the address, and credentials with it
		return bad("it is no valid URL", "give a path or an https:// address")
	}
	switch {
	case u.Scheme != "file" && u.Scheme != "http" && u.Scheme != "https":
		return bad(fmt.Sprintf("%s:// is not supported", u.Scheme), "use the https:// address, with a token in the credentials file")
	case u.User != nil:
		return bad("it holds credentials", "move them to the credentials file: addresses are logged")
	case u.RawQuery != "" || u.Fragment != "":
		return bad("it has a query or a fragment", "leave out everything from ? or # on")
	case u.Scheme == "file" && (u.Host == "" || u.Host == "localhost"):
		return location{path: filepath.Clean(u.Path)}, nil
	case u.Scheme == "https" && u.Hostname() != "":
		return location{url: u}, nil
	case u.Scheme == "http" && loopback(u.Hostname()):
		return location{url: u}, nil
	case u.Scheme == "http":
		return bad("http:// would show configuration and credentials to the network", "use https://")
	}
	return bad("it names no host, or a host where none belongs", "give a path or an https:// address")
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
