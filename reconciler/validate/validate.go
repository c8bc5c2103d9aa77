package validate

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"selvedge/schema/fleet"
)

// foldersDir holds folders and workspaces.
const foldersDir = "folders"

// Config is how a Validator works.
type Config struct {
	CacheFile string // of results, kept between runs; "" means none
	Workers   int    // evaluators at a time; 0 means one a processor
	Limits    Limits
	Log       *slog.Logger // nil means slog.Default
}

// Limits bound one unit, which is one directory; zero fields have their defaults.
type Limits struct {
	CPU      time.Duration // processor time, in whole seconds; 0 means 10 s
	Wall     time.Duration // 0 means 60 s
	Memory   int64         // bytes of data; 0 means 768 MiB
	Output   int64         // bytes of a result; 0 means 64 MiB
	File     int64         // bytes of a file; 0 means 8 MiB
	Reads    int           // files and directories read; 0 means 20,000
	Bytes    int64         // bytes read; 0 means 128 MiB
	Problems int           // reported; 0 means 100
}

func (l Limits) orDefaults() Limits {
	return Limits{
		CPU: cmp.Or(l.CPU, 10*time.Second), Wall: cmp.Or(l.Wall, time.Minute),
		Memory: cmp.Or(l.Memory, 768<<20), Output: cmp.Or(l.Output, 64<<20),
		File: cmp.Or(l.File, 8<<20), Reads: cmp.Or(l.Reads, 20_000),
		Bytes: cmp.Or(l.Bytes, 128<<20), Problems: cmp.Or(l.Problems, 100),
	}
}

// Validator evaluates trees and remembers what it found.
type Validator struct {
	cfg  Config
	pool pool

	mu    sync.Mutex // one tree at a time
	known map[string]*verdict
	store *cache
}

// New returns a Validator. It starts nothing and opens nothing.
func New(cfg Config) *Validator {
	cfg.Limits = cfg.Limits.orDefaults()
	cfg.Workers = cmp.Or(cfg.Workers, runtime.GOMAXPROCS(0))
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Validator{cfg: cfg, pool: pool{limits: cfg.Limits}, known: map[string]*verdict{}}
}

// Close ends the evaluators and closes the cache.
func (v *Validator) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.pool.close()
	if v.store == nil {
		return nil
	}
	err := v.store.close()
	v.store = nil
	return err
}

// verdict is what is known of a directory: valid as long as all that was read is as it was.
type verdict struct {
	Reads  []readRecord `json:"reads"`
	Result *result      `json:"result"`
	id     string
	unit   *fleet.Unit   // decoded from Result.Unit, which is then dropped
	source *fleet.Source // of a workspace, a folder or the platform
	blamed string        // the problems from outside that source was made with
	retry  time.Time     // of an evaluation that was stopped: not tried again before, if nothing changed
}

// patience is how many times as long as it took a killed evaluation is left alone while its
// files are as they were: a bomb must not slow every commit of others, and a machine that
// was too busy must not refuse a workspace for long.
const patience = 10

// readRecord is one thing that an evaluation was told.
type readRecord struct {
	Op   readOp `json:"op"`
	Path string `json:"path"`
	ID   string `json:"id"` // empty: it was not there
}

type readOp string

const (
	opRead  readOp = "r"
	opList  readOp = "l"
	opCUE   readOp = "c" // the CUE files of a directory
	opAbove readOp = "a" // what a directory above evaluates to
)

// recorder answers a child from the index and writes down what it answered.
type recorder struct {
	mu     *sync.Mutex // of the index's ids and of the tree
	x      *index
	limits Limits
	reads  map[readRecord]struct{}
	bytes  int64
}

func (r *recorder) note(op readOp, p string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	id, err := r.x.recorded(op, p)
	if err != nil {
		return err
	}
	r.reads[readRecord{op, p, id}] = struct{}{}
	if len(r.reads) > r.limits.Reads {
		return &budgetError{fmt.Sprintf("it reads more than %d files and directories; split the workspace", r.limits.Reads)}
	}
	return nil
}

// recorded names what a question about a path is answered with.
func (x *index) recorded(op readOp, p string) (string, error) {
	if op == opCUE {
		return x.cueID(p), nil
	}
	return x.id(p)
}

func (r *recorder) list(dir string, cueOnly bool) ([]byte, error) {
	op := opList
	if cueOnly {
		op = opCUE
	}
	if err := r.note(op, dir); err != nil {
		return nil, err
	}
	es, ok := r.x.dirs[dir]
	if cueOnly {
		es, ok = r.x.cueFiles(dir)
	}
	if !ok {
		return nil, fs.ErrNotExist
	}
	return json.Marshal(es)
}

func (r *recorder) read(file string) ([]byte, error) {
	if err := r.note(opRead, file); err != nil {
		return nil, err
	}
	r.mu.Lock()
	b, err := r.x.read(file, r.limits.File)
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if r.bytes += int64(len(b)); r.bytes > r.limits.Bytes {
		return nil, &budgetError{fmt.Sprintf("it reads more than %d MiB; split the workspace", r.limits.Bytes>>20)}
	}
	return b, nil
}

// Validate evaluates every workspace of the tree. The problems that it returns are those
// of the repo as a whole, which refuse all of it, and those of directories that no
// workspace is below, which name the directory as their workspace. Problems of a
// workspace are in its source. An error is one of the environment: it says nothing
// of the tree. Without the schema and the platform nothing is evaluated, and the fleet
// is empty.
//
// A source that is unchanged since the last call is the same pointer.
func (v *Validator) Validate(ctx context.Context, tree Tree) (*fleet.Fleet, []fleet.Problem, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	x, err := readIndex(ctx, tree)
	if err != nil {
		return nil, nil, fmt.Errorf("read the tree: %w", err)
	}
	if err := v.open(); err != nil {
		return nil, nil, err
	}
	r := &round{v: v, x: x, verdicts: map[string]*verdict{}}
	repo, err := r.vendored()
	if err != nil {
		return nil, nil, err
	}
	f := &fleet.Fleet{Workspaces: map[string]*fleet.Source{}, Folders: map[string]*fleet.Source{}}
	if len(repo) > 0 { // without the schema every line would be an error
		for _, p := range x.problems {
			repo = append(repo, p.Problem)
		}
		return f, fleet.SortProblems(repo), nil
	}
	dirs := x.cueDirs()
	if err := r.evaluateAll(ctx, dirs); err != nil {
		return nil, nil, err
	}
	v.pool.trim()
	repo = append(repo, r.gather(f, dirs)...)
	v.known = r.verdicts
	if err := v.save(r, dirs); err != nil {
		v.cfg.Log.Warn("results are not kept", "file", v.cfg.CacheFile, "error", err)
	}
	return f, fleet.SortProblems(repo), nil
}

// Again returns when what was stopped in the last round, and is not to blame for sure, is
// worth another try of the same tree. It is zero if nothing was stopped.
func (v *Validator) Again() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	var at time.Time
	for _, vd := range v.known {
		if vd.Result.Killed && !vd.retry.IsZero() && (at.IsZero() || vd.retry.Before(at)) {
			at = vd.retry
		}
	}
	return at
}

// round is the evaluation of one tree.
type round struct {
	v  *Validator
	x  *index
	mu sync.Mutex // the index's ids, the tree and the verdicts

	verdicts map[string]*verdict
	fresh    []string // directories that were evaluated, not remembered
}

// evaluateAll goes down the tree level by level: what a directory inherits is known
// before it is evaluated.
func (r *round) evaluateAll(ctx context.Context, dirs []string) error {
	for len(dirs) > 0 {
		n := 0
		for n < len(dirs) && depthOf(dirs[n]) == depthOf(dirs[0]) {
			n++
		}
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(r.v.cfg.Workers)
		for _, dir := range dirs[:n] {
			j, above := r.job(dir)
			if vd := r.remembered(dir, above); vd != nil {
				r.learn(dir, vd, false)
				continue
			}
			if p, ok := r.hopeless(dir); ok {
				r.learn(dir, newVerdict(nil, &result{Role: roleUnknown, Killed: true, Problems: []fleet.Problem{p}}), false)
				continue
			}
			g.Go(func() error {
				rec := &recorder{mu: &r.mu, x: r.x, limits: r.v.cfg.Limits, reads: map[readRecord]struct{}{}}
				began := time.Now()
				res, err := r.v.pool.evaluate(gctx, j, rec)
				if err != nil {
					return fmt.Errorf("evaluate %s: %w", dir, err)
				}
				for _, a := range above {
					rec.reads[a] = struct{}{}
				}
				vd := newVerdict(rec.reads, res)
				if res.Killed {
					vd.retry = time.Now()
				}
				if res.Exceeded {
					vd.retry = vd.retry.Add(patience * time.Since(began))
				}
				r.learn(dir, vd, true)
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		dirs = dirs[n:]
	}
	return nil
}

func (r *round) learn(dir string, vd *verdict, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verdicts[dir] = vd
	if fresh {
		r.fresh = append(r.fresh, dir)
	}
}

func newVerdict(reads map[readRecord]struct{}, res *result) *verdict {
	vd := &verdict{Result: res, Reads: make([]readRecord, 0, len(reads))}
	for rr := range reads {
		vd.Reads = append(vd.Reads, rr)
	}
	slices.SortFunc(vd.Reads, func(a, b readRecord) int {
		return cmp.Or(cmp.Compare(a.Op, b.Op), cmp.Compare(a.Path, b.Path))
	})
	vd.name()
	return vd
}

// name computes the ID: the digest of everything that was read.
func (vd *verdict) name() {
	h := sha256.New()
	h.Write([]byte(engine()))
	for _, rr := range vd.Reads {
		fmt.Fprintf(h, "\x00%s\x00%s\x00%s", rr.Op, rr.Path, rr.ID)
	}
	if vd.Result.Killed { // no result: must not be mistaken for one
		h.Write([]byte("\x00killed"))
	}
	vd.id = hex.EncodeToString(h.Sum(nil))
}

// lineage returns the directories above dir that belong to its instance, the platform first.
func (r *round) lineage(dir string) []string {
	var up []string
	for d := dir; d != "."; {
		d = path.Dir(d)
		if vd := r.verdicts[d]; vd != nil && vd.Result.Role != rolePackage {
			up = append(up, d)
		}
	}
	slices.Reverse(up)
	return up
}

func (r *round) job(dir string) (job, []readRecord) {
	l := r.v.cfg.Limits
	j := job{Dir: dir, Problems: l.Problems, CPU: int64(l.CPU), Inherits: map[string]string{}}
	var recs []readRecord
	r.mu.Lock()
	defer r.mu.Unlock()
	j.Above = r.lineage(dir)
	for _, up := range j.Above {
		vd := r.verdicts[up]
		recs = append(recs, readRecord{opAbove, up, vd.id})
		if vd.Result.Role == roleWorkspace {
			j.Inside = up
		}
		for name, o := range vd.Result.Entities {
			if _, ok := j.Inherits[name]; !ok {
				j.Inherits[name] = o.Scope
			}
		}
	}
	return j, recs
}

// remembered returns the verdict of an earlier round if everything it read is as it was. That
// an evaluation was killed is remembered for a while, and never on disk.
func (r *round) remembered(dir string, above []readRecord) *verdict {
	ok := func(vd *verdict) bool {
		return vd != nil && (!vd.Result.Killed || time.Now().Before(vd.retry)) && r.holds(vd, above)
	}
	switch vd := r.v.known[dir]; {
	case ok(vd):
		return vd
	case vd != nil && !vd.Result.Killed: // the store has the same one
		return nil
	}
	if vd := r.v.store.get(dir); ok(vd) {
		return vd
	}
	return nil
}

func (r *round) holds(vd *verdict, above []readRecord) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	ups := 0
	for _, rr := range vd.Reads {
		if rr.Op == opAbove {
			if !slices.Contains(above, rr) {
				return false
			}
			ups++
			continue
		}
		if id, err := r.x.recorded(rr.Op, rr.Path); err != nil || id != rr.ID {
			return false
		}
	}
	return ups == len(above)
}

// hopeless tells a directory whose evaluation cannot end since that of one above did not.
func (r *round) hopeless(dir string) (fleet.Problem, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, up := range r.lineage(dir) {
		if res := r.verdicts[up].Result; res.Killed {
			p := res.Problems[0]
			if !strings.HasPrefix(p.Message, stoppedAbove) {
				p.Message = stoppedAbove + p.Message
			}
			return p, true
		}
	}
	return fleet.Problem{}, false
}

const stoppedAbove = "in a directory above: "
