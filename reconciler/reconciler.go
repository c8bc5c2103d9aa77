package reconciler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"sync"
	"syscall"
	"time"

	"selvedge/internal/backoff"
	"selvedge/reconciler/feed"
	"selvedge/reconciler/git"
	"selvedge/reconciler/resolve"
	"selvedge/reconciler/sign"
	"selvedge/reconciler/validate"
	"selvedge/schema/fleet"
	"selvedge/schema/nodestate"
)

// Publisher keeps signed states where nodes can pull them: the embedded store or a registry.
type Publisher interface {
	// Heads tells what is published for every node.
	Heads() (map[string]nodestate.Head, error)
	// Put publishes states; each has a higher generation than the one before it.
	Put(context.Context, []nodestate.Artifact) error
	// Remove withdraws states and remembers their generations.
	Remove(ctx context.Context, nodes []string) error
	// PutTrust publishes the root documents, oldest first.
	PutTrust(ctx context.Context, docs [][]byte) error
}

// Config is what a Reconciler works with. All fields up to DataDir are needed.
type Config struct {
	Git       *git.Source
	Validator *validate.Validator
	Signer    *sign.Signer
	Publisher Publisher
	TrustDir  string // root documents, see package trustdir
	DataDir   string // what was accepted last is kept here
	Log       *slog.Logger
	Feed      *feed.Feed // tells hubs; nil: nobody does
	Prefix    string     // of the published repositories, for hubs

	TrustInterval time.Duration // between looks at TrustDir; 0 means 5 s
}

// Reconciler is the loop. Make it with New.
type Reconciler struct {
	cfg      Config
	resolver *resolve.Resolver
	loaded   bool
	accepted resolve.Accepted
	keys     map[string]string // of accepted, by node; nil: not asked for yet
	signedBy signedBy
	trust    string // digest of the root documents that are published

	fingerprint string // of the first one
	told        told
	sources     map[string]*fleet.Source // that the last announcement was made of
	appsOf      map[string]appsOf
	touched     map[string]int64    // nodes with states signed since the last announcement
	gone        map[string]struct{} // and those withdrawn

	metrics *metrics

	mu     sync.Mutex
	status Status
}

// New returns a Reconciler; it does nothing yet.
func New(cfg Config) *Reconciler {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.TrustInterval <= 0 {
		cfg.TrustInterval = 5 * time.Second
	}
	r := &Reconciler{
		cfg: cfg, resolver: resolve.New(resolve.Config{}),
		appsOf: map[string]appsOf{}, touched: map[string]int64{}, gone: map[string]struct{}{},
	}
	r.metrics = newMetrics(r.steps())
	return r
}

// ErrStalled marks what only a new commit, or a person, can mend: the loop waits
// for the next change instead of trying the same again.
var ErrStalled = errors.New("waiting for a change")

// pass is one way through the steps.
type pass struct {
	commit   *git.Commit
	fleet    *fleet.Fleet
	result   *resolve.Result
	heads    map[string]nodestate.Head // as published, with this pass's
	keys     map[string]string         // public key by node
	problems []fleet.Problem
	signed   int
	removed  int

	untrusted error // why nothing may be signed
}

// step is one stage of a pass.
type step struct {
	name string
	run  func(context.Context, *pass) error
}

// steps are the pipeline, in order.
func (r *Reconciler) steps() []step {
	return []step{
		{"trust", r.beginTrust},
		{"fetch", r.fetch},
		{"validate", r.validate},
		{"resolve", r.resolve},
		{"revoke", r.revoke},
		{"trust", func(_ context.Context, p *pass) error { return p.untrusted }},
		{"allow", r.allow},
		{"publish", r.publish},
		{"accept", r.accept},
		{"announce", r.announce},
	}
}

// Run reconciles until the context ends. It returns early only if the data
// directory cannot be used, or a setting of the Git source is wrong.
func (r *Reconciler) Run(ctx context.Context) error {
	if err := r.load(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.cfg.Git.Run(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Log.Error("watch", "error", err) // Head tells it to people, too
		}
	})
	defer wg.Wait()
	defer cancel()

	retry := backoff.Backoff{Min: time.Second, Max: time.Minute}
	patience := backoff.Backoff{Min: time.Second, Max: 10 * time.Minute}
	for seen := ""; ; {
		err := r.Once(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, git.ErrConfig) {
			return err // it does not mend itself
		}
		var again, stopped <-chan time.Time // nil: nothing to try again
		if err != nil && !errors.Is(err, ErrStalled) {
			again = time.After(retry.Next())
		} else {
			retry.Reset()
			if now := r.Status().Seen.Hash; now != seen {
				seen = now
				patience.Reset()
			}
			if at := r.cfg.Validator.Again(); !at.IsZero() { // a machine without memory must not refuse a workspace for good
				stopped = time.After(max(time.Until(at), patience.Next()))
			}
		}
		if err := r.wait(ctx, again, stopped); err != nil {
			return err
		}
	}
}

// wait returns when there may be something to do.
func (r *Reconciler) wait(ctx context.Context, again, stopped <-chan time.Time) error {
	look := time.NewTicker(r.cfg.TrustInterval)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.cfg.Git.Changed():
			return nil
		case <-again:
			return nil
		case <-stopped:
			return nil
		case <-look.C:
			if again == nil && r.trustChanged() {
				return nil
			}
		}
	}
}

// load reads, once, what earlier passes left.
func (r *Reconciler) load() (err error) {
	if r.loaded {
		return nil
	}
	if r.accepted, err = loadAccepted(filepath.Join(r.cfg.DataDir, acceptedFile)); err != nil {
		return err
	}
	if r.signedBy, err = loadSignedBy(filepath.Join(r.cfg.DataDir, signedByFile)); err != nil {
		return err
	}
	if err := r.recall(); err != nil {
		return err
	}
	r.loaded = true
	return nil
}

// Once makes one pass. Run calls it; alone it serves tests and benchmarks.
func (r *Reconciler) Once(ctx context.Context) error {
	if err := r.load(); err != nil {
		return err
	}
	p, began := &pass{}, time.Now()
	for _, s := range r.steps() {
		if err := s.run(ctx, p); err != nil {
			err = fmt.Errorf("%s: %w", s.name, err)
			if p.untrusted != nil && s.name != "trust" {
				err = fmt.Errorf("trust: %w; %w", p.untrusted, err)
			}
			if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
				err = fmt.Errorf("%w; make room there, it goes on by itself", err)
			}
			r.metrics.pass(began, p, s.name)
			r.failed(p, err)
			return err
		}
	}
	r.metrics.pass(began, p, "")
	r.succeeded(p, time.Since(began))
	return nil
}

func (r *Reconciler) fetch(ctx context.Context, p *pass) (err error) {
	if p.commit, err = r.cfg.Git.Head(ctx); err != nil {
		return err
	}
	if p.commit.Relation == git.Rewritten {
		r.cfg.Log.Warn("history was rewritten; the new commit is taken", "commit", p.commit.Hash, "before", p.commit.Before)
	}
	return nil
}

func (r *Reconciler) validate(ctx context.Context, p *pass) (err error) {
	f, problems, err := r.cfg.Validator.Validate(ctx, p.commit.Tree)
	if err != nil {
		return err
	}
	f.Commit = p.commit.Hash
	p.fleet, p.problems = f, problems
	for _, s := range f.Workspaces {
		p.problems = append(p.problems, s.Problems...)
	}
	if whole := refusesAll(problems); whole != nil {
		return fmt.Errorf("%w: commit %.12s is refused as a whole: %s", ErrStalled, p.commit.Hash, whole)
	}
	return nil
}

// refusesAll returns a problem that is not of one workspace alone.
func refusesAll(problems []fleet.Problem) *fleet.Problem {
	for i, p := range problems {
		if p.Severity == fleet.Error && p.Workspace == "" {
			return &problems[i]
		}
	}
	return nil
}

func (r *Reconciler) resolve(_ context.Context, p *pass) error {
	p.result = r.resolver.Resolve(p.fleet, r.accepted)
	p.problems = fleet.SortProblems(append(p.problems, p.result.Problems...))
	return nil
}

func (r *Reconciler) accept(_ context.Context, p *pass) error {
	if p.result.SameHolders && reflect.DeepEqual(r.accepted.Access, p.result.Accepted.Access) || same(r.accepted, p.result.Accepted) {
		return nil
	}
	if err := saveAccepted(filepath.Join(r.cfg.DataDir, acceptedFile), p.result.Accepted); err != nil {
		return err
	}
	if !p.result.SameHolders {
		r.keys = nil
	}
	r.accepted = p.result.Accepted
	return nil
}
