package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"selvedge/internal/backoff"
	"selvedge/schema/nodestate"
)

// Config is what an Applier needs.
type Config struct {
	Runtime  Runtime
	FilesDir string        // where config files of containers are kept; made when needed
	Log      *slog.Logger  // nil means slog.Default()
	Drift    time.Duration // between looks at everything; 0 means 2 s
	Settle   time.Duration // a container without a probe is healthy after running this long; 0 means 1 s
	Stable   time.Duration // a run this long forgives earlier restarts; 0 means 1 min
	Starts   int           // containers started at a time; 0 means 2
	Pulls    int           // images pulled at a time; 0 means 2
}

// Applier keeps one node's containers as its state wants them. Run supervises;
// Apply and Start say what is wanted.
type Applier struct {
	rt     Runtime
	files  files
	log    *slog.Logger
	drift  time.Duration
	settle time.Duration
	stable time.Duration
	pulls  int
	probe  func(context.Context, Instance, *nodestate.Probe) error // a test may answer itself

	applying chan struct{} // capacity 1: one Apply at a time
	slots    chan struct{}
	poked    chan struct{} // capacity 1: look now
	progress chan struct{} // capacity 1: some health changed

	images   sync.RWMutex // held for reading by what needs images to come or stay, for writing by Prune
	looks    atomic.Int64 // begun so far
	mu       sync.Mutex
	next     *target           // given, not taken over by Run yet
	cur      *target           // what Run keeps
	accepted map[Key]string    // fingerprints of the last state that was healthy, or started from disk
	removing map[string]string // container ID → name, while it is being removed
	down     error             // why the runtime did not answer the last look
	wg       sync.WaitGroup    // children of Run
}

// target is one state as Run works on it.
type target struct {
	generation int64
	digest     string
	apps       []nodestate.App
	specs      []Spec
	units      map[Key]*unit
	taken      chan struct{} // closed when Run works on it
	clean      chan struct{} // closed when everything unwanted had its chance to go
	cleaning   bool
}

// New prepares an Applier; it does nothing yet.
func New(c Config) *Applier {
	a := &Applier{
		rt: c.Runtime, files: files{dir: c.FilesDir}, log: c.Log,
		drift:  orDefault(c.Drift, 2*time.Second),
		settle: orDefault(c.Settle, time.Second),
		stable: orDefault(c.Stable, time.Minute),
		pulls:  c.Pulls, probe: newProber(c.Runtime).probe,
		applying: make(chan struct{}, 1), poked: make(chan struct{}, 1), progress: make(chan struct{}, 1),
		accepted: map[Key]string{}, removing: map[string]string{},
	}
	if a.log == nil {
		a.log = slog.Default()
	}
	if a.pulls <= 0 {
		a.pulls = 2
	}
	if c.Starts <= 0 {
		c.Starts = 2
	}
	a.slots = make(chan struct{}, c.Starts)
	return a
}

// build makes the target of a state.
func (a *Applier) build(s nodestate.State, generation int64, digest string) (*target, error) {
	t := &target{generation: generation, digest: digest, apps: s.Apps, units: map[Key]*unit{},
		taken: make(chan struct{}), clean: make(chan struct{})}
	seen := map[Key]bool{}
	for _, app := range s.Apps {
		for _, c := range app.Containers {
			spec := Spec{App: app.Name, Generation: generation, Hash: hash(app.Name, c), Container: c, Binds: a.files.binds(c)}
			if seen[spec.Key()] {
				return nil, fmt.Errorf("app %q: container %q is declared twice", app.Name, c.Name)
			}
			seen[spec.Key()] = true
			t.specs = append(t.specs, spec)
		}
	}
	return t, nil
}

// apply pulls, hands the target to Run and waits for its verdict.
func (a *Applier) apply(ctx context.Context, s nodestate.State, generation int64, digest string) error {
	select {
	case a.applying <- struct{}{}:
		defer func() { <-a.applying }()
	case <-ctx.Done():
		return ctx.Err()
	}
	t, err := a.build(s, generation, digest)
	if err != nil {
		return fmt.Errorf("apply generation %d: %w", generation, err)
	}
	if err := a.prefetch(ctx, t.specs); err != nil {
		return fmt.Errorf("apply generation %d: nothing was changed: %w", generation, err)
	}
	a.give(t)
	if err := a.await(ctx, t); err != nil {
		return err
	}
	a.accept(t)
	if err := a.files.sweep(t.specs); err != nil {
		a.log.Warn("old config files stay", "error", err)
	}
	return nil
}

// start hands the target to Run as it is.
func (a *Applier) start(ctx context.Context, s nodestate.State, generation int64, digest string) error {
	select {
	case a.applying <- struct{}{}:
		defer func() { <-a.applying }()
	case <-ctx.Done():
		return ctx.Err()
	}
	t, err := a.build(s, generation, digest)
	if err != nil {
		return fmt.Errorf("start generation %d: %w", generation, err)
	}
	a.accept(t)
	a.give(t)
	return nil
}

func (a *Applier) give(t *target) {
	a.mu.Lock()
	a.next = t
	a.mu.Unlock()
	a.look()
}

func (a *Applier) accept(t *target) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.accepted = map[Key]string{}
	for app, s := range t.each() {
		a.accepted[s.Key()] = fingerprint(s, grace(app))
	}
}

// each yields every spec with its app.
func (t *target) each() func(yield func(nodestate.App, Spec) bool) {
	return func(yield func(nodestate.App, Spec) bool) {
		n := 0
		for _, app := range t.apps {
			for range app.Containers {
				if !yield(app, t.specs[n]) {
					return
				}
				n++
			}
		}
	}
}

// defaultDeadline applies when a state names none.
const defaultDeadline = 5 * time.Minute

func grace(app nodestate.App) time.Duration {
	return orDefault(time.Duration(app.DeadlineMS)*time.Millisecond, defaultDeadline)
}

func (a *Applier) look() {
	select {
	case a.poked <- struct{}{}:
	default:
	}
}

func (a *Applier) progressed() {
	select {
	case a.progress <- struct{}{}:
	default:
	}
}

// Run supervises what Apply and Start hand over until the context ends, and leaves
// the containers running.
func (a *Applier) Run(ctx context.Context) error {
	defer a.wg.Wait()
	defer a.release()
	if w, ok := a.rt.(Watcher); ok {
		a.wg.Go(func() { a.listen(ctx, w) })
	}
	tick := time.NewTicker(a.drift)
	defer tick.Stop()
	for {
		a.takeOver(ctx)
		a.pass(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-a.poked:
		case <-tick.C:
		}
	}
}

// listen asks for a look whenever the runtime tells of a change.
func (a *Applier) listen(ctx context.Context, w Watcher) {
	again := backoff.Backoff{Min: 250 * time.Millisecond, Max: 5 * time.Second}
	for ctx.Err() == nil {
		begun := time.Now()
		err := w.Watch(ctx, a.look)
		if ctx.Err() != nil {
			return
		}
		a.log.Debug("the runtime's events ended; subscribing again", "error", err)
		a.look()
		if time.Since(begun) > time.Minute {
			again.Reset()
		}
		select {
		case <-ctx.Done():
		case <-time.After(again.Next()):
		}
	}
}

// takeOver switches to a newly given target: units that stay the same live on.
func (a *Applier) takeOver(ctx context.Context) {
	a.mu.Lock()
	t, old := a.next, a.cur
	a.next = nil
	a.mu.Unlock()
	if t == nil || ctx.Err() != nil {
		return
	}
	kept := map[*unit]bool{}
	var fresh []*unit
	for app, s := range t.each() {
		var u *unit
		if old != nil {
			u = old.units[s.Key()]
		}
		if u == nil || !u.keepable() || fingerprint(u.spec, u.grace) != fingerprint(s, grace(app)) {
			u = newUnit(a, s, grace(app))
			fresh = append(fresh, u)
		}
		kept[u] = true
		t.units[s.Key()] = u
	}
	if old != nil {
		for _, u := range old.units {
			if !kept[u] {
				u.cancel()
			}
		}
		for _, u := range old.units {
			if !kept[u] {
				<-u.done
			}
		}
	}
	t.gates(fresh)
	a.mu.Lock()
	a.cur = t
	a.mu.Unlock()
	for _, u := range fresh {
		uctx, cancel := context.WithCancel(ctx)
		u.cancel = cancel
		a.wg.Go(func() {
			defer cancel()
			u.run(uctx)
		})
	}
	close(t.taken)
	a.log.Info("working on a state", "generation", t.generation, "containers", len(t.specs), "changed", len(fresh))
}

// keepable tells whether a unit can live on under another target: not while it
// waits for what only its own target has.
func (u *unit) keepable() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.past
}

// gates makes new units wait: for what is unwanted to be gone, and in ordered apps
// for those before them.
func (t *target) gates(fresh []*unit) {
	isFresh := map[*unit]bool{}
	for _, u := range fresh {
		isFresh[u] = true
		u.gate = append(u.gate, gate{t.clean, "containers that are no longer wanted to stop"})
	}
	for _, app := range t.apps {
		for i, c := range app.Containers {
			u := t.units[Key{app.Name, c.Name}]
			if !isFresh[u] {
				continue
			}
			for _, before := range app.Containers[:min(i, max(app.Ordered, 0))] {
				u.gate = append(u.gate, gate{t.units[Key{app.Name, before.Name}].ready, fmt.Sprintf("container %q to be healthy", before.Name)})
			}
		}
	}
}

// pass looks at everything once and hands it to the units; unwanted containers go.
func (a *Applier) pass(ctx context.Context) {
	a.mu.Lock()
	t := a.cur
	a.mu.Unlock()
	if t == nil || ctx.Err() != nil {
		return
	}
	look := a.looks.Add(1)
	have, err := a.observe(ctx)
	if ctx.Err() != nil {
		return
	}
	a.reached(err)
	if err != nil {
		return
	}
	p := diff(t.specs, have)
	a.removeAll(ctx, t, p.remove)
	for k, u := range t.units {
		i, ok := p.keep[k]
		if !ok {
			i = Instance{App: k.App, Container: k.Container, State: Absent}
		}
		u.offer(i, look)
	}
}

// lookBound ends a look that hangs.
const lookBound = 20 * time.Second

// observe asks the runtime; one that is there and says nothing, as when it is stopped or its
// disk hangs, is as good as away.
func (a *Applier) observe(ctx context.Context) ([]Instance, error) {
	bound, cancel := context.WithTimeout(ctx, lookBound)
	defer cancel()
	have, err := a.rt.Observe(bound)
	if err != nil && errors.Is(bound.Err(), context.DeadlineExceeded) {
		return nil, fmt.Errorf("%w: it gave no answer within %s: %w; it is waited for: if it does not come back, restart it", ErrUnavailable, lookBound, err)
	}
	return have, err
}

// reached notes and says, once, that the runtime went away or came back.
func (a *Applier) reached(err error) {
	a.mu.Lock()
	was := a.down
	a.down = err
	a.mu.Unlock()
	switch {
	case err != nil && was == nil:
		a.log.Warn("the runtime does not answer; running containers go on, and this agent waits", "error", err)
	case err == nil && was != nil:
		a.log.Info("the runtime answers again")
	}
	if (err == nil) != (was == nil) {
		a.progressed()
	}
}

// removeAll removes containers side by side, each once at a time.
func (a *Applier) removeAll(ctx context.Context, t *target, list []Instance) {
	var mine sync.WaitGroup
	for _, i := range list {
		a.mu.Lock()
		_, busy := a.removing[i.ID]
		if !busy {
			a.removing[i.ID] = i.Key().String()
		}
		a.mu.Unlock()
		if busy {
			continue
		}
		mine.Add(1)
		a.wg.Go(func() {
			defer mine.Done()
			log := a.log.With("app", i.App, "container", i.Container, "id", i.ID)
			log.Info("removing a container that is not wanted as it is", "generation", i.Generation)
			err := a.rt.Stop(ctx, i.ID, false)
			if err != nil && ctx.Err() == nil {
				log.Warn("container cannot be removed; trying again later", "error", err)
			}
			a.mu.Lock()
			delete(a.removing, i.ID)
			a.mu.Unlock()
			if err == nil {
				a.look()
			}
		})
	}
	if t.cleaning {
		return
	}
	t.cleaning = true
	a.wg.Go(func() {
		mine.Wait()
		close(t.clean)
	})
}

// release ends the units; their containers stay.
func (a *Applier) release() {
	a.mu.Lock()
	t := a.cur
	a.mu.Unlock()
	if t == nil {
		return
	}
	for _, u := range t.units {
		u.cancel()
	}
}
