package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"selvedge/edge/apply"
)

// Fake is a runtime in memory. Like the hello image, its containers understand the
// environment variable FAIL: exit (code 3), crash-after=<duration> (code 2).
type Fake struct {
	mu      sync.Mutex
	last    int
	all     map[string]*fakeContainer
	ended   []*fakeContainer // removed
	images  map[string]bool
	watcher map[chan struct{}]bool
	calls   []string

	down       error
	pullErr    map[string]error
	startErr   map[apply.Key]error
	stopErr    map[apply.Key]error
	startDelay time.Duration
	exec       map[apply.Key]int
}

type fakeContainer struct {
	apply.Instance
	run     int // counts starts, so that a late crash does not hit the next run
	started bool
	never   bool
	log     []string
}

var (
	_ apply.Runtime = (*Fake)(nil)
	_ apply.Watcher = (*Fake)(nil)
	_ apply.Execer  = (*Fake)(nil)
	_ apply.Tailer  = (*Fake)(nil)
	_ apply.Pruner  = (*Fake)(nil)
)

// NewFake returns an empty runtime.
func NewFake() *Fake {
	return &Fake{all: map[string]*fakeContainer{}, images: map[string]bool{}, watcher: map[chan struct{}]bool{}, pullErr: map[string]error{},
		startErr: map[apply.Key]error{}, stopErr: map[apply.Key]error{}, exec: map[apply.Key]int{}}
}

func (f *Fake) note(format string, args ...any) {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

// Calls returns what was done so far: "pull IMAGE", "start APP/NAME", "stop APP/NAME",
// "remove APP/NAME", "prune IMAGE".
func (f *Fake) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// Forget empties Calls.
func (f *Fake) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = nil
}

// Down makes every call fail until it is called with nil.
func (f *Fake) Down(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = err
	if err != nil { // the connection is cut
		for c := range f.watcher {
			close(c)
			delete(f.watcher, c)
		}
	}
}

// FailPull, FailStart and FailStop make a call fail; nil mends it.
func (f *Fake) FailPull(image string, err error) { f.lock(func() { f.pullErr[image] = err }) }

// FailStart makes starts of a container fail; nil mends it.
func (f *Fake) FailStart(k apply.Key, err error) { f.lock(func() { f.startErr[k] = err }) }

// FailStop makes stops of a container fail; nil mends it.
func (f *Fake) FailStop(k apply.Key, err error) { f.lock(func() { f.stopErr[k] = err }) }

// ExecCode sets what commands in a container exit with.
func (f *Fake) ExecCode(k apply.Key, code int) { f.lock(func() { f.exec[k] = code }) }

// SlowStart makes each start take that long.
func (f *Fake) SlowStart(d time.Duration) { f.lock(func() { f.startDelay = d }) }

// DropImage removes an image.
func (f *Fake) DropImage(image string) { f.lock(func() { delete(f.images, image) }) }

func (f *Fake) lock(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// Get returns the instance of a container, or one that is absent.
func (f *Fake) Get(k apply.Key) apply.Instance {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.all {
		if c.Key() == k {
			return c.Instance
		}
	}
	return apply.Instance{State: apply.Absent}
}

// Exit ends a container from outside.
func (f *Fake) Exit(k apply.Key, code int) {
	f.change(k, func(c *fakeContainer) { c.State, c.ExitCode, c.Since = apply.Exited, code, time.Now() })
}

// Pause freezes a container from outside.
func (f *Fake) Pause(k apply.Key) {
	f.change(k, func(c *fakeContainer) { c.State = apply.Paused })
}

// Damage takes something from a running container that a start gives back.
func (f *Fake) Damage(k apply.Key, fault string) {
	f.change(k, func(c *fakeContainer) { c.Fault = fault })
}

// Reboot ends all containers without an exit code.
func (f *Fake) Reboot() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.all {
		c.State, c.Since = apply.Created, time.Time{}
		if c.never && c.started {
			c.State = apply.Lost
		}
		c.run++
	}
}

// Delete removes a container from outside.
func (f *Fake) Delete(k apply.Key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, c := range f.all {
		if c.Key() == k {
			delete(f.all, id)
		}
	}
	f.tell()
}

// Plant puts a container there that nobody started.
func (f *Fake) Plant(i apply.Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	i.ID = fmt.Sprintf("planted-%d", f.last)
	f.all[i.ID] = &fakeContainer{Instance: i}
	f.tell()
}

func (f *Fake) change(k apply.Key, do func(*fakeContainer)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.all {
		if c.Key() == k {
			do(c)
		}
	}
	f.tell()
}

func (f *Fake) tell() {
	for c := range f.watcher {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Pull makes an image local.
func (f *Fake) Pull(ctx context.Context, image string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(ctx.Err(), f.down, f.pullErr[image]); err != nil {
		return err
	}
	f.note("pull %s", image)
	f.images[image] = true
	return nil
}

// Prune forgets the images that are neither kept nor a container's.
func (f *Fake) Prune(ctx context.Context, keep []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(ctx.Err(), f.down); err != nil {
		return err
	}
	for _, c := range f.all {
		keep = append(keep, c.Image)
	}
	for image := range f.images {
		if !slices.Contains(keep, image) {
			f.note("prune %s", image)
			delete(f.images, image)
		}
	}
	return nil
}

// Observe lists all containers.
func (f *Fake) Observe(ctx context.Context) ([]apply.Instance, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(ctx.Err(), f.down); err != nil {
		return nil, err
	}
	var out []apply.Instance
	for _, c := range f.all {
		out = append(out, c.Instance)
	}
	return out, nil
}

// Start resumes, starts again or creates.
func (f *Fake) Start(ctx context.Context, s apply.Spec) (apply.Instance, error) {
	f.mu.Lock()
	d := f.startDelay
	f.mu.Unlock()
	if d > 0 {
		time.Sleep(d)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(ctx.Err(), f.down, f.startErr[s.Key()]); err != nil {
		return apply.Instance{}, err
	}
	var c *fakeContainer
	for _, x := range f.all {
		if x.Key() != s.Key() {
			continue
		}
		if x.Hash != s.Hash {
			return apply.Instance{}, errors.New("an older version of it is still there")
		}
		c = x
	}
	if c == nil {
		if !f.images[s.Container.Image] {
			return apply.Instance{}, fmt.Errorf("%w: %s", apply.ErrImageMissing, s.Container.Image)
		}
		f.last++
		c = &fakeContainer{Instance: apply.Instance{ID: fmt.Sprintf("fake-%d", f.last), App: s.App, Container: s.Container.Name, Hash: s.Hash,
			Image: s.Container.Image, Generation: s.Generation, Address: "127.0.0.1"}}
		f.all[c.ID] = c
	}
	f.note("start %s", s.Key())
	switch c.State {
	case apply.Running:
		return c.Instance, nil
	case apply.Paused:
		c.State = apply.Running
		return c.Instance, nil
	}
	c.State, c.Fault = apply.Running, ""
	c.Since, c.started, c.never = time.Now(), true, s.Container.Restart == "never"
	c.run++
	i := c.Instance
	f.fail(c, s.Container.Env["FAIL"])
	return i, nil
}

// fail arms what the container was told to do.
func (f *Fake) fail(c *fakeContainer, how string) {
	if how == "exit" {
		c.log = append(c.log, "told to fail: no such database")
		c.State, c.ExitCode = apply.Exited, 3
		f.tell()
		return
	}
	var after string
	if n, _ := fmt.Sscanf(how, "crash-after=%s", &after); n != 1 {
		return
	}
	d, err := time.ParseDuration(after)
	if err != nil {
		return
	}
	run := c.run
	time.AfterFunc(d, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if c.run == run && c.State == apply.Running {
			c.log = append(c.log, "told to crash")
			c.State, c.ExitCode, c.Since = apply.Exited, 2, time.Now()
			f.tell()
		}
	})
}

// Stop ends a container.
func (f *Fake) Stop(ctx context.Context, id string, keep bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.all[id]
	if err := errors.Join(ctx.Err(), f.down); err != nil {
		return err
	}
	if !ok {
		return nil
	}
	if err := f.stopErr[c.Key()]; err != nil {
		return err
	}
	c.State = apply.Created
	c.run++
	if keep {
		f.note("stop %s", c.Key())
	} else {
		f.note("remove %s", c.Key())
		f.ended = append(f.ended, c)
		delete(f.all, id)
	}
	f.tell()
	return nil
}

// Watch tells of changes.
func (f *Fake) Watch(ctx context.Context, changed func()) error {
	f.mu.Lock()
	if f.down != nil {
		defer f.mu.Unlock()
		return f.down
	}
	c := make(chan struct{}, 1)
	f.watcher[c] = true
	f.mu.Unlock()
	defer f.lock(func() { delete(f.watcher, c) })
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-c:
			if !ok {
				return errors.New("the event stream ended")
			}
			changed()
		}
	}
}

// Exec returns the code that was set.
func (f *Fake) Exec(_ context.Context, id string, command []string) (int, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down != nil {
		return 0, "", f.down
	}
	c, ok := f.all[id]
	if !ok || c.State != apply.Running {
		return 0, "", errors.New("container does not run")
	}
	if len(command) > 1 && command[1] == "check" {
		return f.exec[c.Key()], "checked", nil
	}
	return 1, "unknown command", nil
}

// Tail returns the last lines.
func (f *Fake) Tail(_ context.Context, id string, lines int) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.all[id]
	if !ok {
		return nil, nil
	}
	return c.log[max(len(c.log)-lines, 0):], nil
}
